//! An `io_uring` of one thread.

use std::io;
use std::os::fd::RawFd;

use io_uring::IoUring;

/// Made by any thread, and used by the first that asks for [`Self::of_this_thread`]. The kernel
/// then takes no lock for other submitters, and runs completions when that thread asks for them
/// instead of interrupting it (`SINGLE_ISSUER`, `DEFER_TASKRUN`: Linux 6.1).
pub(super) struct ThreadRing {
    ring: IoUring,
    enabled: bool,
}

impl ThreadRing {
    /// These files can be named by their index (`types::Fixed`), without a reference counted for
    /// each operation. The ring keeps them open.
    pub(super) fn new(depth: u32, files: &[RawFd]) -> io::Result<Self> {
        let ring = IoUring::builder()
            .setup_r_disabled()
            .setup_single_issuer()
            .setup_defer_taskrun()
            .setup_submit_all()
            .build(depth)?;
        ring.submitter().register_files(files)?;
        Ok(Self {
            ring,
            enabled: false,
        })
    }

    /// To submit with. Another thread than the first gets an error from the kernel.
    pub(super) fn of_this_thread(&mut self) -> io::Result<&mut IoUring> {
        if !self.enabled {
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        Ok(&mut self.ring)
    }

    /// To queue entries, take completions and register memory with.
    pub(super) const fn get(&mut self) -> &mut IoUring {
        &mut self.ring
    }
}
