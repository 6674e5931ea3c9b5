//! Wakes a sleeping thread.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// An eventfd. The woken thread sees what was pushed to a queue before [`Self::wake`].
#[derive(Clone, Debug)]
pub struct Wake(Arc<OwnedFd>);

impl Wake {
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Arc::new(eventfd(0, flags)?)))
    }

    pub fn wake(&self) {
        // Fails only if the counter is full, and then the thread wakes anyway.
        let (Ok(_) | Err(_)) = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    pub fn clear(&self) {
        // Fails if the counter is already zero.
        let (Ok(_) | Err(_)) = rustix::io::read(&*self.0, &mut [0_u8; 8]);
    }

    /// Sleeps until woken or until the timeout expires.
    pub fn wait(&self, timeout: Duration) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        match poll(&mut [PollFd::new(&*self.0, PollFlags::IN)], Some(&timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.clear();
        Ok(())
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }
}
