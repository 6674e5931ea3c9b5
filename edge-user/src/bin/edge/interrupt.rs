//! Ends a command cleanly on Ctrl-C, SIGTERM or the end of its terminal: it stops where it is and
//! removes what it began. A second such signal ends the process at once: a disk, a network file
//! system or a pipe that does not answer would hold the first one up for ever.

use std::fs;
use std::future::pending;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use edge_user::client::drive::Stop;
use edge_user::seal::unfinished;
use tokio::runtime;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::timeout;

use crate::failed::Failed;
use crate::said::complain;

/// A command that has not ended this long after it was asked to says how it can be made to.
const HINT_AFTER: Duration = Duration::from_secs(2);
/// What removing files may take when the process ends at once.
const REMOVAL_MAX: Duration = Duration::from_millis(300);

/// A stop that the first such signal sets. The thread that waits for it ends with the process.
pub(crate) fn stop_on_signal() -> Result<Arc<Stop>, Failed> {
    let failed = |error: std::io::Error| Failed::new(format!("cannot wait for signals: {error}"));
    let stop = Arc::new(Stop::new().map_err(failed)?);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let mut signals = {
        let _inside = runtime.enter();
        Signals::listen().map_err(failed)?
    };
    let stopped = Arc::clone(&stop);
    thread::spawn(move || {
        runtime.block_on(signals.next());
        stopped.stop();
        let second = runtime.block_on(async {
            if let Ok(second) = timeout(HINT_AFTER, signals.next()).await {
                return second;
            }
            // On a thread of its own: standard error may be what does not answer.
            drop(thread::spawn(|| {
                complain("edge: something does not answer; a second Ctrl-C ends edge at once");
            }));
            signals.next().await
        });
        end_now(second);
    });
    Ok(stop)
}

/// Those that this process was not told to ignore: `nohup` and a script's `&` mean what they say.
struct Signals {
    interrupt: Option<Signal>,
    terminate: Option<Signal>,
    hangup: Option<Signal>,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        let ignored = ignored();
        let listen = |kind: SignalKind| {
            let is_ignored = ignored >> (kind.as_raw_value() - 1) & 1 == 1;
            (!is_ignored).then(|| signal(kind)).transpose()
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
            hangup: listen(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            () = came(&mut self.interrupt) => SignalKind::interrupt(),
            () = came(&mut self.terminate) => SignalKind::terminate(),
            () = came(&mut self.hangup) => SignalKind::hangup(),
        }
    }
}

async fn came(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => pending().await,
    }
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
fn end_now(signal: SignalKind) -> ! {
    let (tell, removed) = channel();
    // On a thread of its own: what is stuck may be the very file system they are on.
    drop(thread::spawn(move || {
        unfinished::remove_all();
        tell.send(())
    }));
    let (Ok(()) | Err(_)) = removed.recv_timeout(REMOVAL_MAX);
    std::process::exit(128 + signal.as_raw_value())
}
