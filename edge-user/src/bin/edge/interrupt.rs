//! Ends a command cleanly on Ctrl-C, SIGTERM or the end of its terminal: it stops where it is and
//! removes what it began. A second such signal ends the process at once: a disk, a network file
//! system or a pipe that does not answer would hold the first one up for ever.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use edge_user::client::stop::Stop;
use edge_user::seal::unfinished;
use edge_user::spawn;
use nix::sys::signal::{SigSet, Signal};

use crate::failed::Failed;
use crate::said::complain;

/// A command that has not ended this long after it was asked to says how it can be made to.
const HINT_AFTER: Duration = Duration::from_secs(2);
/// What removing files may take when the process ends at once.
const REMOVAL_MAX: Duration = Duration::from_millis(300);

/// A stop that the first such signal sets. The thread that waits for it ends with the process.
///
/// To be called before any other thread is started, which inherits the blocked signals.
pub(crate) fn stop_on_signal() -> Result<Arc<Stop>, Failed> {
    let failed = |error: io::Error| Failed::new(format!("cannot wait for signals: {error}"));
    let stop = Arc::new(Stop::new().map_err(failed)?);
    let ends = ends();
    // Blocked, a write beyond the limit for files (`ulimit -f`) is an error and not the end.
    let mut blocked = ends;
    blocked.add(Signal::SIGXFSZ);
    blocked
        .thread_block()
        .map_err(|errno| failed(errno.into()))?;
    let stopped = Arc::clone(&stop);
    thread::Builder::new()
        .spawn(move || {
            next(&ends);
            stopped.stop();
            hint();
            end_now(next(&ends));
        })
        .map_err(|error| failed(spawn::refused(error)))?;
    Ok(stop)
}

/// The signals that end a command, but for those this process was told to ignore: `nohup` and a
/// script's `&` mean what they say.
fn ends() -> SigSet {
    let ignored = ignored();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .filter(|signal| ignored >> (*signal as u32 - 1) & 1 == 0)
        .collect()
}

fn next(signals: &SigSet) -> Signal {
    loop {
        // Fails only for a set that is not one.
        if let Ok(signal) = signals.wait() {
            return signal;
        }
    }
}

/// On a thread of its own: standard error may be what does not answer. Without one there is no
/// hint.
fn hint() {
    drop(thread::Builder::new().spawn(|| {
        let (_open, never) = channel::<()>();
        let (Ok(()) | Err(_)) = never.recv_timeout(HINT_AFTER);
        complain("edge: something does not answer; a second Ctrl-C ends edge at once");
    }));
}

/// The signals this process ignores, one bit each from signal 1 up; none where nobody can tell.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0)
}

/// With the exit code of a process that this signal ended.
#[expect(
    clippy::exit,
    reason = "asked for twice, and the main thread does not answer"
)]
fn end_now(signal: Signal) -> ! {
    let (tell, removed) = channel();
    // On a thread of its own: what is stuck may be the very file system they are on.
    let started = thread::Builder::new().spawn(move || {
        unfinished::remove_all();
        tell.send(())
    });
    if started.is_ok() {
        let (Ok(()) | Err(_)) = removed.recv_timeout(REMOVAL_MAX);
    }
    std::process::exit(128 + signal as i32)
}
