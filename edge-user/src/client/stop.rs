//! Stops a transfer from another thread.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::event_fd::EventFd;

pub struct Stop {
    requested: AtomicBool,
    wakeup: EventFd,
}

impl Stop {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            requested: AtomicBool::new(false),
            wakeup: EventFd::new()?,
        })
    }

    pub fn stop(&self) {
        self.requested.store(true, Ordering::Relaxed);
        self.wakeup.wake();
    }

    pub fn requested(&self) -> &AtomicBool {
        &self.requested
    }

    pub(super) fn wakeup(&self) -> &EventFd {
        &self.wakeup
    }
}
