//! Retries a bind while the address or queue is in use.

use std::io::{self, ErrorKind};
use std::thread;
use std::time::Duration;

use crate::clock;

const RETRY_TIMEOUT: Duration = Duration::from_secs(1);
const RETRY_INTERVAL: Duration = Duration::from_millis(10);

/// Calls `bind`, and retries for a while if the address or queue is in use: after a process exits,
/// kernel workers may still be completing its sends or releasing the queue of its AF_XDP socket.
#[expect(
    clippy::disallowed_methods,
    reason = "the kernel sends no event when an address or a queue becomes free"
)]
pub(super) fn bind_when_free(bind: impl Fn() -> libc::c_int) -> io::Result<()> {
    let until = clock::now() + RETRY_TIMEOUT;
    while bind() != 0 {
        let error = io::Error::last_os_error();
        let in_use = matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::ResourceBusy);
        if !in_use || clock::now() >= until {
            return Err(error);
        }
        thread::sleep(RETRY_INTERVAL);
    }
    Ok(())
}
