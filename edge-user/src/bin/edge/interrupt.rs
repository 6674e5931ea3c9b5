//! Ends a command cleanly on Ctrl-C or SIGTERM: it stops where it is and removes what it began.

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
    let (mut interrupt, mut terminate) = {
        let _inside = runtime.enter();
        let interrupt = signal(SignalKind::interrupt()).map_err(failed)?;
        (interrupt, signal(SignalKind::terminate()).map_err(failed)?)
    };
    let stopped = Arc::clone(&stop);
    thread::spawn(move || {
        runtime.block_on(async {
            tokio::select! {
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
        });
        stopped.stop();
    });
    Ok(stop)
}
