//! An `io_uring` for one thread.

use std::io;
use std::os::fd::RawFd;

use io_uring::IoUring;

/// Created by any thread, and then used by the first that calls [`Self::of_this_thread`]. The
/// kernel takes no lock for other submitters, and runs completions when that thread waits for them
/// instead of interrupting it (`SINGLE_ISSUER`, `DEFER_TASKRUN`: Linux 6.1).
pub(super) struct ThreadRing {
    ring: IoUring,
    enabled: bool,
}

impl ThreadRing {
    /// Registers `files`, which operations refer to by index (`types::Fixed`) and which the ring
    /// keeps open. This saves taking a reference for each operation.
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

    /// The ring, for submitting. From any thread but the first, submissions fail.
    pub(super) fn of_this_thread(&mut self) -> io::Result<&mut IoUring> {
        if !self.enabled {
            self.ring.submitter().register_enable_rings()?;
            self.enabled = true;
        }
        Ok(&mut self.ring)
    }

    /// The ring, for queueing entries, taking completions and registering memory.
    pub(super) const fn get(&mut self) -> &mut IoUring {
        &mut self.ring
    }
}
