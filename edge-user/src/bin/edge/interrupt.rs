//! Ends a command cleanly on Ctrl-C, SIGTERM or the end of its terminal: it stops where it is and
//! removes what it began. A second such signal ends the process at once: a disk, a network file
//! system or a pipe that does not answer would hold the first one up for ever.

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

struct Signals {
    interrupt: Signal,
    terminate: Signal,
    hangup: Signal,
}

impl Signals {
    fn listen() -> std::io::Result<Self> {
        Ok(Self {
            interrupt: signal(SignalKind::interrupt())?,
            terminate: signal(SignalKind::terminate())?,
            hangup: signal(SignalKind::hangup())?,
        })
    }

    async fn next(&mut self) -> SignalKind {
        tokio::select! {
            _ = self.interrupt.recv() => SignalKind::interrupt(),
            _ = self.terminate.recv() => SignalKind::terminate(),
            _ = self.hangup.recv() => SignalKind::hangup(),
        }
    }
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
