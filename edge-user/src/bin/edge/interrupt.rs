//! Ends a command cleanly on Ctrl-C, SIGTERM or the end of its terminal: it stops where it is and removes what it began.

use std::sync::Arc;
use std::thread;

use edge_user::client::drive::Stop;
use tokio::runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::failed::Failed;

/// A stop that the first such signal sets. The thread that waits for it ends with the process.
pub(crate) fn stop_on_signal() -> Result<Arc<Stop>, Failed> {
    let failed = |error: std::io::Error| Failed::new(format!("cannot wait for signals: {error}"));
    let stop = Arc::new(Stop::new().map_err(failed)?);
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(failed)?;
    let (mut interrupt, mut terminate, mut hangup) = {
        let _inside = runtime.enter();
        let listen = |kind| signal(kind).map_err(failed);
        (
            listen(SignalKind::interrupt())?,
            listen(SignalKind::terminate())?,
            listen(SignalKind::hangup())?,
        )
    };
    let stopped = Arc::clone(&stop);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
                _ = hangup.recv() => {}
            }
        });
        stopped.stop();
    });
    Ok(stop)
}
