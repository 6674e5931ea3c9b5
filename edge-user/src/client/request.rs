//! One GET and its outstanding segments. Pure: time is an argument.

use std::time::Duration;

use super::rtt::RttEstimators;

/// A GET with outstanding segments.
#[derive(Debug)]
pub(super) struct Request {
    /// Outstanding segments.
    pub(super) want: u128,
    pub(super) sent_at: Duration,
    pub(super) first_segment_at: Option<Duration>,
    pub(super) last_segment_at: Option<Duration>,
    /// Since when a later request has a response.
    pub(super) overtaken_at: Option<Duration>,
    /// The retry time of a PENDING.
    pub(super) wait_until: Option<Duration>,
    /// What its response measures.
    pub(super) measures: Measures,
    /// Then a response may belong to an earlier request, and measures nothing (Karn's algorithm).
    pub(super) is_retransmission: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Measures {
    /// The path, and a fetch by the edge if there was one.
    Fetch,
    /// The path alone: the edge had the chunk.
    Path,
}

impl Request {
    pub(super) fn new(
        want: u128,
        sent_at: Duration,
        measures: Measures,
        is_retransmission: bool,
    ) -> Self {
        Self {
            want,
            sent_at,
            first_segment_at: None,
            last_segment_at: None,
            overtaken_at: None,
            wait_until: None,
            measures,
            is_retransmission,
        }
    }

    /// When its outstanding segments count as lost.
    pub(super) fn deadline(&self, consecutive_timeouts: u32, rtts: &RttEstimators) -> Duration {
        if let Some(until) = self.wait_until {
            return until;
        }
        match (self.last_segment_at, self.measures, self.overtaken_at) {
            (Some(last_segment_at), _, Some(overtaken_at)) => {
                last_segment_at.max(overtaken_at) + rtts.gap_timeout()
            }
            // While anything arrives, the rest may be queued behind it.
            (Some(last_segment_at), _, None) => {
                last_segment_at.max(rtts.last_arrival()) + rtts.gap_timeout()
            }
            (None, Measures::Path, Some(overtaken_at)) => overtaken_at + rtts.gap_timeout(),
            // The fetch may take longer than that of a later request.
            (None, Measures::Fetch, Some(_)) => {
                self.sent_at + rtts.fetch_timeout(consecutive_timeouts)
            }
            (None, Measures::Fetch, None) => {
                self.queued_until(rtts) + rtts.fetch_timeout(consecutive_timeouts)
            }
            (None, Measures::Path, None) => self.queued_until(rtts) + rtts.path_timeout(),
        }
    }

    /// Its response is queued behind those to earlier requests.
    fn queued_until(&self, rtts: &RttEstimators) -> Duration {
        self.sent_at.max(rtts.last_arrival())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_fetch_has_a_longer_timeout_than_the_path_and_the_retry_time_of_the_edge_overrides_both() {
        let mut rtts = RttEstimators::default();
        for _ in 0..50 {
            rtts.fetch_sample(MS * 80);
            rtts.path_sample(MS * 8);
            rtts.on_segment(None, false, Duration::ZERO);
        }
        let mut first = Request::new(1, MS, Measures::Fetch, false);
        let path = Request::new(1, MS, Measures::Path, false);
        assert!(first.deadline(0, &rtts) > MS * 80 && path.deadline(0, &rtts) < MS * 50);
        assert!(first.deadline(2, &rtts) > MS * 320);
        first.wait_until = Some(MS * 500);
        assert_eq!(first.deadline(0, &rtts), MS * 500);
    }

    #[test]
    fn a_request_that_was_overtaken_or_has_a_response_expires_after_the_gap_timeout() {
        let mut rtts = RttEstimators::default();
        rtts.path_sample(MS * 200);
        let gap_timeout = rtts.gap_timeout();
        let mut request = Request::new(3, MS, Measures::Path, false);
        request.overtaken_at = Some(MS * 40);
        assert_eq!(request.deadline(3, &rtts), MS * 40 + gap_timeout);
        request.last_segment_at = Some(MS * 50);
        assert_eq!(request.deadline(3, &rtts), MS * 50 + gap_timeout);
    }

    #[test]
    fn while_anything_arrives_what_is_queued_behind_it_is_not_lost() {
        let mut rtts = RttEstimators::default();
        rtts.path_sample(MS * 20);
        let request = Request::new(3, MS * 100, Measures::Path, false);
        let before = request.deadline(0, &rtts);
        rtts.on_segment(Some(MS * 90), false, MS * 5000);
        assert_eq!(request.deadline(0, &rtts), before + MS * 4900);
    }
}
