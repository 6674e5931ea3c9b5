//! What an ended process seems to hold for a moment.

use std::io::{self, ErrorKind};
use std::thread;

use crate::clock;
use crate::limits::{TAKEN_AGAIN_AFTER, TAKEN_FOR};

/// Does `bind`, and as long as its address or queue is taken does it again for a while: the kernel
/// ends a ring's sends, and takes a queue from an AF_XDP socket, in workers of its own after the
/// process is gone.
#[expect(
    clippy::disallowed_methods,
    reason = "nothing tells when an address or a queue is free"
)]
pub(super) fn bind_when_free(bind: impl Fn() -> libc::c_int) -> io::Result<()> {
    let until = clock::now() + TAKEN_FOR;
    while bind() != 0 {
        let error = io::Error::last_os_error();
        let taken = matches!(error.kind(), ErrorKind::AddrInUse | ErrorKind::ResourceBusy);
        if !taken || clock::now() >= until {
            return Err(error);
        }
        thread::sleep(TAKEN_AGAIN_AFTER);
    }
    Ok(())
}
