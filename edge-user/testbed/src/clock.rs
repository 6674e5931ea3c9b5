//! The one place of this program that reads the clock or sleeps.

use std::thread;
use std::time::{Duration, Instant};

/// Short enough that nobody notices the wait, long enough that waiting costs nothing.
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

/// Asks again and again until there is an answer; `None` when the time is over.
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
