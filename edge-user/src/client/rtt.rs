//! Round-trip estimation and retransmission timeouts (RFC 6298). Pure: time is an argument.

use std::time::Duration;

/// Minimum timeout until DATA has been measured (RFC 6298, 2.1): a path of 16 kbit/s takes this
/// long for one segment.
pub(super) const RTO_INITIAL: Duration = Duration::from_secs(1);
/// Minimum gap timeout until then.
const GAP_TIMEOUT_INITIAL: Duration = Duration::from_millis(500);
/// Segments after which DATA counts as measured: a traffic shaper lets the first few pass.
const MEASURED_SEGMENTS: u32 = 16;
/// Minimum margin above the round-trip time, and minimum gap within a response that counts as loss:
/// scheduling on a busy host takes this long.
const SLACK_MIN: Duration = Duration::from_millis(25);
/// The slack doubles up to this after spurious timeouts.
const SLACK_MAX: Duration = Duration::from_millis(400);
/// The slack halves after this long without one.
const SLACK_DECAY: Duration = Duration::from_secs(10);
/// A larger gap between segments means less than 10 kbit/s.
const GAP_MAX: Duration = Duration::from_secs(1);
/// Backoff ends at this or at four times the timeout, whichever is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Smoothed round-trip time and its variation (SRTT and RTTVAR).
#[derive(Clone, Copy, Debug, Default)]
pub struct RttEstimator {
    smoothed: Option<Duration>,
    variation: Duration,
}

impl RttEstimator {
    pub fn sample(&mut self, rtt: Duration) {
        match self.smoothed {
            None => {
                self.smoothed = Some(rtt);
                self.variation = rtt / 2;
            }
            Some(smoothed) => {
                self.variation = (self.variation * 3 + smoothed.abs_diff(rtt)) / 4;
                self.smoothed = Some((smoothed * 7 + rtt) / 8);
            }
        }
    }

    pub fn smoothed(&self) -> Option<Duration> {
        self.smoothed
    }
}

/// The estimators and timeouts of one path to an edge.
#[derive(Clone, Copy, Debug)]
pub struct RttEstimators {
    /// Until the first segment of a chunk, which the edge may have to fetch from its origin.
    fetch: RttEstimator,
    /// Until a segment of a chunk the edge already has.
    path: RttEstimator,
    segments_received: u32,
    /// Doublings of every timeout, until the response to an original request was measured (Karn's
    /// algorithm): otherwise a path that became slower would look lossy for ever.
    backoff: u32,
    backed_off_at: Duration,
    /// Send time of the newest request with a response.
    newest_answered_sent_at: Duration,
    last_arrival: Duration,
    /// Recent maximum gap between segments of one response: the transmission time of a segment on
    /// a slow path.
    gap: Duration,
    slack: Duration,
    slack_changed_at: Duration,
}

impl Default for RttEstimators {
    fn default() -> Self {
        Self {
            fetch: RttEstimator::default(),
            path: RttEstimator::default(),
            segments_received: 0,
            backoff: 0,
            backed_off_at: Duration::ZERO,
            newest_answered_sent_at: Duration::ZERO,
            last_arrival: Duration::ZERO,
            gap: Duration::ZERO,
            slack: SLACK_MIN,
            slack_changed_at: Duration::ZERO,
        }
    }
}

impl RttEstimators {
    /// A WELCOME has the size of a full segment.
    pub fn on_welcome(&mut self, rtt: Duration) {
        self.path.sample(rtt);
        self.backoff = 0;
    }

    /// Time until the first segment of a chunk.
    pub fn fetch_sample(&mut self, rtt: Duration) {
        self.fetch.sample(rtt);
    }

    /// Time until the first segment of a response, for a chunk the edge already had.
    pub fn path_sample(&mut self, rtt: Duration) {
        self.path.sample(rtt);
    }

    /// For the response to an original request.
    pub fn reset_backoff(&mut self) {
        self.backoff = 0;
    }

    /// Smoothed round-trip time of the path, without fetches.
    pub fn smoothed(&self) -> Option<Duration> {
        self.path.smoothed
    }

    /// Whether the edge appears to fetch chunks from its origin.
    pub fn is_cold(&self) -> bool {
        let path = self.path.smoothed.unwrap_or_default();
        let fetch = self.fetch.smoothed.unwrap_or_default();
        fetch > path * 2 + SLACK_MIN
    }

    /// Timeout for the first segment of a chunk.
    pub fn fetch_timeout(&self, consecutive_timeouts: u32) -> Duration {
        // Until a fetch was measured, the path is the best estimate.
        let estimator = if self.fetch.smoothed.is_some() {
            &self.fetch
        } else {
            &self.path
        };
        self.timeout(estimator, consecutive_timeouts)
    }

    /// Timeout for a segment of a chunk the edge already has.
    pub fn path_timeout(&self) -> Duration {
        self.timeout(&self.path, 0)
    }

    /// Timeout of the path, before backoff.
    pub fn rto(&self) -> Duration {
        self.base(&self.path)
    }

    fn is_measured(&self) -> bool {
        self.segments_received >= MEASURED_SEGMENTS
    }

    fn base(&self, estimator: &RttEstimator) -> Duration {
        let slack = (estimator.variation * 4).max(self.slack);
        let base = estimator
            .smoothed
            .map_or(RTO_INITIAL, |smoothed| smoothed + slack);
        if self.is_measured() {
            base
        } else {
            base.max(RTO_INITIAL)
        }
    }

    fn timeout(&self, estimator: &RttEstimator, consecutive_timeouts: u32) -> Duration {
        // On a slow path the transmission time of a segment dominates.
        let base = self.base(estimator).max(self.gap * 3);
        backed_off(base, consecutive_timeouts.max(self.backoff))
    }

    /// Timeout for the next segment of a response that has begun, and for the response to an
    /// overtaken request. An edge sends segments back to back and in order, so a gap much longer
    /// than the jitter or the transmission time means loss.
    pub fn gap_timeout(&self) -> Duration {
        let smoothed = self.path.smoothed.unwrap_or(RTO_INITIAL);
        let timeout = (smoothed / 4)
            .max(self.path.variation * 4)
            .max(self.gap * 3);
        let minimum = if self.is_measured() {
            self.slack
        } else {
            GAP_TIMEOUT_INITIAL
        };
        timeout.max(minimum)
    }

    /// A segment arrived. `follows`: after another of the same response. `sent_at`: send time of its
    /// request, unless it may answer an earlier one.
    pub fn on_segment(&mut self, sent_at: Option<Duration>, follows: bool, now: Duration) {
        self.newest_answered_sent_at = self
            .newest_answered_sent_at
            .max(sent_at.unwrap_or_default());
        if follows {
            self.update_gap(now);
        }
        self.segments_received = self.segments_received.saturating_add(1);
        self.last_arrival = now;
        if self.slack > SLACK_MIN && now > self.slack_changed_at + SLACK_DECAY {
            self.slack = (self.slack / 2).max(SLACK_MIN);
            self.slack_changed_at = now;
        }
    }

    fn update_gap(&mut self, now: Duration) {
        let gap = now.saturating_sub(self.last_arrival).min(GAP_MAX);
        self.gap = gap.max(self.gap * 15 / 16);
    }

    pub fn last_arrival(&self) -> Duration {
        self.last_arrival
    }

    /// Whether a request sent later has a response.
    pub fn overtaken(&self, sent_at: Duration) -> bool {
        sent_at < self.newest_answered_sent_at
    }

    /// DATA arrived that was not needed, as after a needless retransmission: what is queued behind
    /// it is not lost.
    pub fn on_unwanted(&mut self, now: Duration) {
        self.update_gap(now);
        self.last_arrival = now;
    }

    /// A segment arrived after its request timed out.
    pub fn spurious_timeout(&mut self, now: Duration) {
        self.on_unwanted(now);
        if self.slack < SLACK_MAX && now >= self.slack_changed_at + self.slack {
            self.slack = (self.slack * 2).min(SLACK_MAX);
            self.slack_changed_at = now;
        }
    }

    /// A request timed out without any response. Returns whether this extends the timeouts.
    pub fn back_off(&mut self, sent_at: Duration, now: Duration) -> bool {
        // Requests in flight together are one event.
        if self.backoff > 0 && sent_at < self.backed_off_at {
            return false;
        }
        self.backoff += 1;
        self.backed_off_at = now;
        true
    }
}

fn backed_off(base: Duration, times: u32) -> Duration {
    let timeout = base.saturating_mul(1 << times.min(16));
    timeout.min(BACKOFF_MAX.max(base * 4))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn measured() -> RttEstimators {
        RttEstimators {
            segments_received: MEASURED_SEGMENTS,
            ..RttEstimators::default()
        }
    }

    #[test]
    fn the_timeout_is_one_second_until_data_was_measured_and_then_follows_the_path() {
        let mut rtts = RttEstimators::default();
        assert_eq!(rtts.path_timeout(), RTO_INITIAL);
        rtts.on_welcome(MS);
        for _ in 0..50 {
            assert_eq!(rtts.path_timeout(), RTO_INITIAL);
            rtts.path_sample(MS);
        }
        rtts.segments_received = MEASURED_SEGMENTS;
        assert_eq!(rtts.path_timeout(), MS + SLACK_MIN);
        for _ in 0..200 {
            rtts.path_sample(MS * 200);
        }
        assert!((MS * 200..MS * 230).contains(&rtts.path_timeout()));
    }

    #[test]
    fn timeouts_double_until_the_response_to_an_original_request_is_measured() {
        let mut rtts = measured();
        for _ in 0..50 {
            rtts.path_sample(MS * 75);
        }
        let once = rtts.path_timeout();
        assert!(rtts.back_off(MS, MS * 100));
        // It was in flight with the first.
        assert!(!rtts.back_off(MS * 99, MS * 101));
        assert_eq!(rtts.path_timeout(), once * 2);
        assert!(rtts.back_off(MS * 100, MS * 300));
        rtts.on_segment(None, false, MS * 310);
        assert_eq!(rtts.path_timeout(), once * 4);
        for at in 4..60 {
            rtts.back_off(MS * 100 * at, MS * 100 * at);
        }
        assert_eq!(rtts.path_timeout(), BACKOFF_MAX);
        rtts.reset_backoff();
        assert_eq!(rtts.path_timeout(), once);
    }

    #[test]
    fn on_a_slow_path_the_gap_timeout_exceeds_the_transmission_time_of_a_segment() {
        let mut rtts = measured();
        rtts.path_sample(MS * 180);
        rtts.on_segment(Some(MS), false, MS * 1000);
        rtts.on_segment(Some(MS), true, MS * 1160);
        assert!(rtts.gap_timeout() >= MS * 480);
    }

    #[test]
    fn spurious_timeouts_extend_the_slack_for_a_while() {
        let mut rtts = measured();
        for _ in 0..50 {
            rtts.path_sample(MS);
        }
        let before = rtts.slack;
        rtts.spurious_timeout(MS * 100);
        rtts.spurious_timeout(MS * 101);
        assert_eq!(rtts.slack, before * 2);
        for at in 2..20 {
            rtts.spurious_timeout(MS * 1000 * at);
        }
        assert_eq!(rtts.slack, SLACK_MAX);
        for at in 3..20 {
            rtts.on_segment(None, false, SLACK_DECAY * at);
        }
        assert_eq!(rtts.slack, before);
    }
}
