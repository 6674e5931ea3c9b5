//! The clocks, read only by event loops and programs. All other code takes the time as a
//! parameter.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn now() -> Instant {
    Instant::now()
}

/// Seconds of the wall clock; 0 for a clock set before 1970.
#[expect(clippy::disallowed_methods, reason = "this is where the clock is read")]
pub fn unix_seconds() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs())
}
