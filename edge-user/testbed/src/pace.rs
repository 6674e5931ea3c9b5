//! Open and closed loops of requests.

use std::time::{Duration, Instant};

/// What determines the time of the next request.
#[derive(Clone, Copy, PartialEq, Debug)]
pub enum Pace {
    /// A closed loop: each reply makes room for a request.
    Closed,
    /// An open loop at this number of requests per second.
    Open(f64),
}

/// A pace from its start on.
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

    /// When the next request should be sent: latency counts from here, even if it is sent later. In
    /// a closed loop that is now.
    pub fn next_due(&self, now: Instant) -> Instant {
        match self.pace {
            Pace::Closed => now,
            #[expect(clippy::cast_precision_loss, reason = "far below 2^52 requests")]
            Pace::Open(rate) => self.begin + Duration::from_secs_f64(self.taken as f64 / rate),
        }
    }

    /// Counts a request as sent.
    pub fn take(&mut self) {
        self.taken += 1;
    }

    /// Number of requests due and not yet sent.
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
        // The fifth keeps its due time, though it was not sent then.
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
