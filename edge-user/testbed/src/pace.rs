//! How requests are spread over time.

use std::time::{Duration, Instant};

/// What decides when the next request leaves.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// What came back makes room for the next.
    Closed,
    /// So many a second, whatever comes back.
    Open(f64),
}

/// A pace, from a beginning on.
#[derive(Clone, Copy, Debug)]
pub struct Schedule {
    pace: Pace,
    begin: Instant,
    taken: u64,
}

impl Schedule {
    pub fn new(pace: Pace, begin: Instant) -> Self {
        Self {
            pace,
            begin,
            taken: 0,
        }
    }

    /// When the next request should leave: latency counts from here, however long it then has to
    /// wait for its turn. In a closed loop that is now.
    pub fn next_due(&self, now: Instant) -> Instant {
        match self.pace {
            Pace::Closed => now,
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
            Pace::Open(rate) => self.begin + Duration::from_secs_f64(self.taken as f64 / rate),
        }
    }

    /// The next request leaves.
    pub fn take(&mut self) {
        self.taken += 1;
    }

    /// How many should have left by now and have not.
    pub fn behind(&self, now: Instant) -> u64 {
        match self.pace {
            Pace::Closed => 0,
            Pace::Open(rate) => {
                let due = now.saturating_duration_since(self.begin).as_secs_f64() * rate;
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "a count of requests"
                )]
                let due = due as u64;
                due.saturating_sub(self.taken)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_fall_due_at_the_rate_whatever_was_taken() {
        let begin = crate::clock::now();
        let mut schedule = Schedule::new(Pace::Open(100.0), begin);
        let late = begin + Duration::from_millis(105);
        assert_eq!(schedule.next_due(late), begin);
        assert_eq!(schedule.behind(late), 10);
        for _ in 0..4 {
            schedule.take();
        }
        // The fifth keeps the time it was due, though nobody took it then.
        assert_eq!(schedule.next_due(late), begin + Duration::from_millis(40));
        assert_eq!(schedule.behind(late), 6);
        assert_eq!(schedule.behind(begin), 0);
    }

    #[test]
    fn a_closed_loop_is_never_behind() {
        let begin = crate::clock::now();
        let mut schedule = Schedule::new(Pace::Closed, begin);
        let later = begin + Duration::from_secs(1);
        assert_eq!(schedule.next_due(later), later);
        schedule.take();
        assert_eq!(
            (schedule.next_due(later), schedule.behind(later)),
            (later, 0)
        );
    }
}
