//! What an ended process seems to hold for a moment.

use std::io::{self, ErrorKind};
use std::thread;
use std::time::Duration;

use crate::clock;

/// How long a start waits for an address or a queue that is in use, and after what it tries again.
const RETRY_FOR: Duration = Duration::from_secs(1);
const RETRY_AFTER: Duration = Duration::from_millis(10);

/// Does `bind`, and as long as its address or queue is taken does it again for a while: the kernel
/// ends a ring's sends, and takes a queue from an AF_XDP socket, in workers of its own after the
/// process is gone.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when an address or a queue is free"
)]
pub(super) fn bind_when_free(bind: impl Fn() -> libc::c_int) -> io::Result<()> {
    let until = clock::now() + RETRY_FOR;
    while bind() != 0 {
        let error = io::Error::last_os_error();
        let taken = matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::ResourceBusy);
        if !taken || clock::now() >= until {
            return Err(error);
        }
        thread::sleep(RETRY_AFTER);
    }
    Ok(())
}
