//! Wakes a sleeping thread from any other.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// An eventfd. What was put into a queue before [`Self::wake`] is seen by the thread that wakes.
#[derive(Clone, Debug)]
pub struct Wake(Arc<OwnedFd>);

impl Wake {
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Arc::new(eventfd(0, flags)?)))
    }

    pub fn wake(&self) {
        // A full counter means that the thread is about to wake anyway.
        let (Ok(_) | Err(_)) = rustix::io::write(&*self.0, &1_u64.to_ne_bytes());
    }

    pub fn clear(&self) {
        // Nothing to read means that it is clear already.
        let (Ok(_) | Err(_)) = rustix::io::read(&*self.0, &mut [0_u8; 8]);
    }

    /// Sleeps until woken, for at most this long.
    pub fn wait(&self, at_most: Duration) -> io::Result<()> {
        let timeout = Timespec {
            tv_sec: i64::try_from(at_most.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: at_most.subsec_nanos().into(),
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
