//! The two clocks, read by loops and programs only; everything that decides is handed the time.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn now() -> Instant {
    Instant::now()
}

/// Of the wall clock; a clock before 1970 counts as 1970.
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
