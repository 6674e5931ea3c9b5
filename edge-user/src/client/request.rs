//! A GET and what is still to come of it. Pure: time comes in.

use std::time::Duration;

use super::pace::Trips;

/// A GET that is not fully answered.
#[derive(Debug)]
pub(super) struct Request {
    /// Segments it is still to bring.
    pub(super) want: u128,
    pub(super) sent_at: Duration,
    /// When the first and the latest of its segments came.
    pub(super) began_at: Option<Duration>,
    pub(super) heard_at: Option<Duration>,
    /// Since when a later request is being answered.
    pub(super) overtaken_at: Option<Duration>,
    /// The edge asked for this much patience.
    pub(super) wait_until: Option<Duration>,
    /// What an answer to it measures.
    pub(super) measures: Measures,
    /// Whether it asks for something again, so that its answer may be that to an earlier one.
    pub(super) repeats: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Measures {
    /// The path, and the time the edge may need to get the chunk.
    First,
    /// The path alone: the chunk was there when this was asked.
    Path,
}

impl Request {
    pub(super) fn new(want: u128, sent_at: Duration, measures: Measures, repeats: bool) -> Self {
        Self {
            want,
            sent_at,
            began_at: None,
            heard_at: None,
            overtaken_at: None,
            wait_until: None,
            measures,
            repeats,
        }
    }

    /// When what is missing of it counts as lost, after this many vain waits for its chunk.
    pub(super) fn deadline(&self, vain: u32, trips: &Trips) -> Duration {
        if let Some(until) = self.wait_until {
            return until;
        }
        match (self.heard_at, self.measures, self.overtaken_at) {
            (Some(heard_at), _, Some(overtaken_at)) => heard_at.max(overtaken_at) + trips.pause(),
            // While anything comes, the rest may be behind it.
            (Some(heard_at), _, None) => heard_at.max(trips.last_arrival()) + trips.pause(),
            (None, Measures::Path, Some(overtaken_at)) => overtaken_at + trips.pause(),
            // A fetch may take longer than that of a later request.
            (None, Measures::First, Some(_)) => self.sent_at + trips.first_timeout(vain),
            (None, Measures::First, None) => self.queued_until(trips) + trips.first_timeout(vain),
            (None, Measures::Path, None) => self.queued_until(trips) + trips.path_timeout(),
        }
    }

    /// While answers to earlier requests come in, it waits its turn behind them.
    fn queued_until(&self, trips: &Trips) -> Duration {
        self.sent_at.max(trips.last_arrival())
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
            trips.first_sample(MS * 80);
            trips.path_sample(MS * 8);
            trips.answered(None, false, Duration::ZERO);
        }
        let mut first = Request::new(1, MS, Measures::First, false);
        let path = Request::new(1, MS, Measures::Path, false);
        assert!(first.deadline(0, &trips) > MS * 80 && path.deadline(0, &trips) < MS * 50);
        assert!(first.deadline(2, &trips) > MS * 320);
        first.wait_until = Some(MS * 500);
        assert_eq!(first.deadline(0, &trips), MS * 500);
    }

    #[test]
    fn what_has_begun_or_was_overtaken_is_only_given_a_pause() {
        let mut trips = Trips::default();
        trips.path_sample(MS * 200);
        let pause = trips.pause();
        let mut request = Request::new(3, MS, Measures::Path, false);
        request.overtaken_at = Some(MS * 40);
        assert_eq!(request.deadline(3, &trips), MS * 40 + pause);
        request.heard_at = Some(MS * 50);
        assert_eq!(request.deadline(3, &trips), MS * 50 + pause);
    }

    #[test]
    fn while_anything_comes_what_is_behind_it_in_the_queue_is_not_lost() {
        let mut trips = Trips::default();
        trips.path_sample(MS * 20);
        let request = Request::new(3, MS * 100, Measures::Path, false);
        let before = request.deadline(0, &trips);
        trips.answered(Some(MS * 90), false, MS * 5000);
        assert_eq!(request.deadline(0, &trips), before + MS * 4900);
    }
}
