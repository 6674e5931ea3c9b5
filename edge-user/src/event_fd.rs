//! Wakes a sleeping thread.

use std::io;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::time::Duration;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;

/// An eventfd. The woken thread sees what was pushed to a queue before [`Self::wake`].
#[derive(Clone, Debug)]
pub struct EventFd(Arc<OwnedFd>);

impl EventFd {
    pub fn new() -> io::Result<Self> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        Ok(Self(Arc::new(eventfd(0, flags)?)))
    }

    pub fn wake(&self) {
        // Any count wakes. Fails only if the counter is full, and then the thread wakes anyway.
        let (Ok(_) | Err(_)) = rustix::io::write(&*self.0, &[1; 8]);
    }

    pub fn clear(&self) {
        // Fails if the counter is already zero.
        let (Ok(_) | Err(_)) = rustix::io::read(&*self.0, &mut [0_u8; 8]);
    }

    /// Sleeps until woken, until one of the `others` is readable, or until the timeout expires.
    pub fn wait<'a>(
        &'a self,
        others: impl IntoIterator<Item = BorrowedFd<'a>>,
        timeout: Duration,
    ) -> io::Result<()> {
        let mut watched = vec![PollFd::new(&*self.0, PollFlags::IN)];
        let others = others.into_iter();
        watched.extend(others.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        // A timeout that does not fit never expires.
        match poll(&mut watched, Timespec::try_from(timeout).ok().as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        if !watched[0].revents().is_empty() {
            self.clear();
        }
        Ok(())
    }

    pub fn fd(&self) -> &OwnedFd {
        &self.0
    }
}
