//! A GET and what is still to come of it. Pure: time comes in.

use std::time::Duration;

use super::pace::Trips;

/// A GET that is not fully answered.
#[derive(Debug)]
pub(super) struct Request {
    /// Segments it is still to bring.
    pub(super) want: u128,
    pub(super) sent_at: Duration,
    /// When the latest of its segments came.
    pub(super) heard_at: Option<Duration>,
    /// The edge asked for this much patience.
    pub(super) wait_until: Option<Duration>,
    /// What an answer to it measures.
    pub(super) measures: Measures,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Measures {
    /// The path, and the time the edge may need to get the chunk.
    First,
    /// The path alone: the chunk was there when this was asked.
    Path,
    /// Nothing: it may be the answer to an earlier request.
    Nothing,
}

impl Request {
    pub(super) fn new(want: u128, sent_at: Duration, measures: Measures) -> Self {
        Self {
            want,
            sent_at,
            heard_at: None,
            wait_until: None,
            measures,
        }
    }

    /// When what is missing of it counts as lost, after this many vain waits for its chunk.
    pub(super) fn deadline(&self, vain: u32, trips: &Trips) -> Duration {
        if let Some(until) = self.wait_until {
            return until;
        }
        let timeout = match (self.heard_at, self.measures) {
            (Some(heard_at), _) => return heard_at + trips.path.pause(),
            (None, Measures::First) => trips.first.timeout(vain),
            (None, Measures::Path | Measures::Nothing) => trips.path.timeout(vain),
        };
        trips.overdue_at(self.sent_at, timeout)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_fetch_is_given_more_time_than_the_path_and_what_the_edge_asks_for_comes_first() {
        let mut trips = Trips::default();
        for _ in 0..50 {
            trips.first.sample(MS * 80);
            trips.path.sample(MS * 8);
        }
        let mut first = Request::new(1, MS, Measures::First);
        let path = Request::new(1, MS, Measures::Path);
        assert!(first.deadline(0, &trips) > MS * 80 && path.deadline(0, &trips) < MS * 50);
        assert!(path.deadline(2, &trips) > MS * 100);
        first.wait_until = Some(MS * 500);
        assert_eq!(first.deadline(0, &trips), MS * 500);
    }

    #[test]
    fn an_answer_that_has_begun_is_only_given_a_pause() {
        let mut trips = Trips::default();
        trips.path.sample(MS * 20);
        let mut request = Request::new(3, MS, Measures::First);
        request.heard_at = Some(MS * 50);
        assert_eq!(request.deadline(3, &trips), MS * 50 + trips.path.pause());
    }
}
