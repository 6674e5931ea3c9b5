//! Stops a command on Ctrl-C, SIGTERM or SIGHUP and removes incomplete files. A second signal exits at
//! once, in case a disk, a network file system or a pipe blocks.

use std::fs;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use edge_user::client::stop::Stop;
use edge_user::seal::temp_file;
use edge_user::spawn;
use nix::sys::signal::{SigSet, Signal};

use crate::error::CommandError;
use crate::print::warn;

/// A command that still runs after this long prints a hint.
const HINT_AFTER: Duration = Duration::from_secs(2);
/// Time limit for removing files on an immediate exit.
const REMOVAL_MAX: Duration = Duration::from_millis(300);

/// A stop that the first signal sets.
///
/// Must be called before any thread starts: threads inherit the blocked signals.
pub(crate) fn stop_on_signal() -> Result<Arc<Stop>, CommandError> {
    let failed = |error: io::Error| CommandError::new(format!("cannot wait for signals: {error}"));
    let stop = Arc::new(Stop::new().map_err(failed)?);
    let ends = ends();
    // Blocked, so that a write beyond `ulimit -f` is an error.
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

/// The signals that stop a command, except those that are ignored, as under `nohup`.
fn ends() -> SigSet {
    let ignored = ignored();
    [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .filter(|signal| ignored >> (*signal as u32 - 1) & 1 == 0)
        .collect()
}

fn next(signals: &SigSet) -> Signal {
    loop {
        // Fails only for an invalid set.
        if let Ok(signal) = signals.wait() {
            return signal;
        }
    }
}

/// In a thread, as standard error may block. If it cannot start, there is no hint.
fn hint() {
    drop(thread::Builder::new().spawn(|| {
        let (_open, never) = channel::<()>();
        let (Ok(()) | Err(_)) = never.recv_timeout(HINT_AFTER);
        warn("edge: still waiting for a file or a pipe; press Ctrl-C again to exit at once");
    }));
}

/// The ignored signals, one bit each from signal 1 up; none if unknown.
fn ignored() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.unwrap_or(0)
}

/// With the exit code for this signal.
#[expect(
    clippy::exit,
    reason = "the second signal, and the main thread may block"
)]
fn end_now(signal: Signal) -> ! {
    let (tell, removed) = channel();
    // In a thread, as their file system may block.
    let started = thread::Builder::new().spawn(move || {
        temp_file::remove_all();
        tell.send(())
    });
    if started.is_ok() {
        let (Ok(()) | Err(_)) = removed.recv_timeout(REMOVAL_MAX);
    }
    std::process::exit(128 + signal as i32)
}
