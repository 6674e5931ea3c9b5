//! The only place of this crate that reads the clock or sleeps.

use std::thread;
use std::time::{Duration, Instant};

/// Short enough to go unnoticed, long enough to cost nothing.
const STEP: Duration = Duration::from_millis(5);

#[expect(
    clippy::disallowed_methods,
    reason = "a program that waits for others needs a clock"
)]
pub fn now() -> Instant {
    Instant::now()
}

#[expect(
    clippy::disallowed_methods,
    reason = "nothing to wait on when polling other processes"
)]
pub fn pause() {
    thread::sleep(STEP);
}

/// Polls until there is a result; `None` after this time.
pub fn poll<T>(patience: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = now() + patience;
    loop {
        if let Some(answer) = ask() {
            return Some(answer);
        }
        if now() >= deadline {
            return None;
        }
        pause();
    }
}
