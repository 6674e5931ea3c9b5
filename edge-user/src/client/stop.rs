//! The end of a transfer, from another thread.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};

use super::socket::Bell;

/// Ends a running transfer from another thread.
pub struct Stop {
    asked: AtomicBool,
    bell: Bell,
}

impl Stop {
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            asked: AtomicBool::new(false),
            bell: Bell::new()?,
        })
    }

    pub fn stop(&self) {
        self.asked.store(true, Ordering::Relaxed);
        self.bell.ring();
    }

    pub fn asked(&self) -> &AtomicBool {
        &self.asked
    }

    pub(super) fn bell(&self) -> &Bell {
        &self.bell
    }
}
