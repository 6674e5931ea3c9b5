//! How many segments may be in flight. Pure: time is an argument.

use std::time::Duration;

use super::rtt::RTO_INITIAL;

/// Loss of a round up to this is not taken for congestion: radio links lose a few percent at any
/// rate.
const LOSS_TOLERATED: f64 = 0.10;
/// The same when delay has increased.
const LOSS_TOLERATED_DELAYED: f64 = 0.02;
/// Upper bound of what a probe may tolerate.
const LOSS_TOLERATED_MAX: f64 = 0.75;
/// How long the result of a probe is valid.
const TOLERANCE_FOR: Duration = Duration::from_secs(10);
/// If half the window delivers less than this share of the baseline rate, the loss was not due to
/// congestion.
const PROBE_RATE_MIN: f64 = 0.75;
/// Minimum segments of a round that is evaluated.
const ROUND_SEGMENTS_MIN: u32 = 16;
/// The same while probing.
const PROBE_SEGMENTS_MIN: u32 = 32;
/// Added delay above this means that a queue is filling.
const QUEUE_DELAY_MIN: Duration = Duration::from_millis(15);
/// RFC 6928; fits a path of 64 kbit/s with a queue of 16 kB.
const WINDOW_INITIAL: u32 = 10;
/// Without increased delay, so few segments do not congest a path.
const WINDOW_MIN: u32 = 8;
/// The minimum RTT covers one to two of these. A path that became longer looks like a queue until
/// then.
const MIN_RTT_WINDOW: Duration = Duration::from_secs(5);

/// Starts small, doubles each round trip, and shrinks when delay increases, or when a round loses
/// much and a smaller window loses less.
#[derive(Clone, Debug)]
pub struct CongestionWindow {
    segments: u32,
    /// Capacity of the receive buffer.
    limit: u32,
    slow_start: bool,
    round: Round,
    /// Loss up to this does not depend on the window.
    tolerated: f64,
    tolerated_until: Duration,
    probe: Probe,
    /// Minimum RTT of the current and of the previous `MIN_RTT_WINDOW`: the path without queues.
    min_rtt: Option<Duration>,
    previous_min_rtt: Option<Duration>,
    min_rtt_expires: Duration,
    lowest_rtt: Option<Duration>,
    latest_delay: Option<Duration>,
}

#[derive(Clone, Debug, Default)]
struct Round {
    started_at: Duration,
    ends_at: Duration,
    received: u32,
    lost: u32,
    min_rtt: Option<Duration>,
}

/// Halves the window to find out whether loss depends on it.
#[derive(Clone, Copy, Debug)]
enum Probe {
    None,
    /// Losses of the larger window still show.
    Draining(Baseline),
    Measuring(Baseline),
}

/// The round before a probe.
#[derive(Clone, Copy, Debug)]
struct Baseline {
    segments: u32,
    per_second: f64,
}

impl CongestionWindow {
    pub fn new(limit: u32) -> Self {
        let limit = limit.max(WINDOW_INITIAL);
        Self {
            segments: WINDOW_INITIAL,
            limit,
            slow_start: true,
            round: Round::default(),
            tolerated: LOSS_TOLERATED,
            tolerated_until: Duration::ZERO,
            probe: Probe::None,
            min_rtt: None,
            previous_min_rtt: None,
            min_rtt_expires: MIN_RTT_WINDOW,
            lowest_rtt: None,
            latest_delay: None,
        }
    }

    pub fn segments(&self) -> u32 {
        self.segments
    }

    pub fn limit(&self) -> u32 {
        self.limit
    }

    /// A segment arrived, this long after its request, if known.
    pub fn received(&mut self, delay: Option<Duration>) {
        self.round.received += 1;
        self.latest_delay = delay.or(self.latest_delay);
        // Losses show later than their cause: no growth meanwhile.
        let lossy = f64::from(self.round.lost) > self.tolerated * f64::from(self.round.received);
        if self.slow_start && !lossy && delay.is_some_and(|delay| !self.is_delayed(Some(delay))) {
            self.segments = (self.segments + 1).min(self.limit);
        }
    }

    pub fn lost(&mut self, segments: u32) {
        self.round.lost += segments;
    }

    pub fn sample(&mut self, rtt: Duration) {
        let lower = |than: Option<Duration>| Some(than.map_or(rtt, |than| than.min(rtt)));
        self.min_rtt = lower(self.min_rtt);
        self.round.min_rtt = lower(self.round.min_rtt);
        self.lowest_rtt = lower(self.lowest_rtt);
    }

    /// The edge refused a request as BUSY, or a request timed out.
    pub fn halve(&mut self) {
        self.slow_start = false;
        self.probe = Probe::None;
        self.segments = (self.segments / 2).max(self.minimum());
    }

    /// The minimum, whatever is lost: one segment where a queue is filling, otherwise a few.
    fn minimum(&self) -> u32 {
        let minimum =
            if self.latest_delay.is_none() || is_longer(self.latest_delay, self.lowest_rtt) {
                1
            } else {
                WINDOW_MIN
            };
        minimum.min(self.segments)
    }

    fn is_delayed(&self, delay: Option<Duration>) -> bool {
        let min_rtt = self.min_rtt.into_iter().chain(self.previous_min_rtt).min();
        is_longer(delay, min_rtt)
    }

    /// Evaluates the round if it is over.
    pub fn update(&mut self, now: Duration, smoothed: Option<Duration>) {
        let seen = self.round.received + self.round.lost;
        let enough = match self.probe {
            Probe::None => ROUND_SEGMENTS_MIN,
            Probe::Draining(_) | Probe::Measuring(_) => PROBE_SEGMENTS_MIN.min(self.segments * 4),
        };
        // Slow start far beyond the path ends at once.
        let flood = self.slow_start && self.round.lost > self.round.received.max(enough) / 2;
        if (now < self.round.ends_at || seen < enough) && !flood {
            return;
        }
        self.evaluate(now, f64::from(self.round.lost) / f64::from(seen));
        if now >= self.min_rtt_expires {
            self.previous_min_rtt = self.min_rtt.take();
            self.min_rtt_expires = now + MIN_RTT_WINDOW;
        }
        let length = smoothed
            .unwrap_or(RTO_INITIAL)
            .max(Duration::from_millis(1));
        self.round = Round {
            started_at: now,
            ends_at: now + length,
            ..Round::default()
        };
    }

    /// Loss of this share does not depend on the window.
    fn tolerate(&mut self, now: Duration, loss: f64) {
        self.tolerated = (loss * 1.5).clamp(LOSS_TOLERATED, LOSS_TOLERATED_MAX);
        self.tolerated_until = now + TOLERANCE_FOR;
    }

    fn evaluate(&mut self, now: Duration, loss: f64) {
        let took = now.saturating_sub(self.round.started_at);
        let per_second = f64::from(self.round.received) / took.as_secs_f64().max(1e-6);
        if now >= self.tolerated_until {
            self.tolerated = LOSS_TOLERATED;
        }
        match self.probe {
            Probe::Draining(baseline) => {
                self.probe = Probe::Measuring(baseline);
                return;
            }
            Probe::Measuring(baseline) if per_second < baseline.per_second * PROBE_RATE_MIN => {
                // Half the window, half the rate: the loss does not depend on it.
                self.probe = Probe::None;
                self.segments = baseline.segments;
                self.tolerate(now, loss);
                return;
            }
            Probe::Measuring(_) => self.probe = Probe::None,
            Probe::None => {}
        }
        // A queue of our own that outlasted the minimum RTT window shows by its losses.
        let queued =
            self.tolerated <= LOSS_TOLERATED && is_longer(self.round.min_rtt, self.lowest_rtt);
        let tolerated = if queued {
            LOSS_TOLERATED_DELAYED
        } else {
            self.tolerated
        };
        let minimum = self.minimum();
        if loss > tolerated && self.segments > minimum {
            self.probe = Probe::Draining(Baseline {
                segments: self.segments,
                per_second,
            });
            self.slow_start = false;
            self.segments = (self.segments / 2).max(minimum);
        } else if loss > tolerated && minimum > 1 {
            self.tolerate(now, loss);
        } else if self.is_delayed(self.round.min_rtt) {
            // Delay alone never shrinks it below the initial window: the queue may not be ours.
            self.slow_start = false;
            let minimum = WINDOW_INITIAL.min(self.segments);
            self.segments = (self.segments * 8 / 10).max(minimum);
        } else if !self.slow_start {
            self.segments = (self.segments + self.segments / 16 + 1).min(self.limit);
        }
    }
}

/// Whether a delay is so much longer than the base that a queue is filling.
fn is_longer(delay: Option<Duration>, base: Option<Duration>) -> bool {
    let both = delay.zip(base);
    both.is_some_and(|(delay, base)| delay > base + base.max(QUEUE_DELAY_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    /// Runs rounds over a path that carries `full` segments a round and loses a share of them.
    fn after(
        window: &mut CongestionWindow,
        rounds: u32,
        full: u32,
        loss: f64,
        rtt: Duration,
    ) -> u32 {
        let mut now = window.round.ends_at;
        for _ in 0..rounds {
            let sent = window.segments();
            let carried = f64::from(sent.min(full)) * (1.0 - loss);
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "small"
            )]
            let carried = carried as u32;
            for _ in 0..carried {
                window.received(Some(rtt));
            }
            window.lost(sent - carried);
            window.sample(rtt);
            now += rtt;
            window.update(now, Some(rtt));
        }
        window.segments()
    }

    #[test]
    fn the_window_doubles_up_to_the_capacity_of_the_receive_buffer() {
        let mut window = CongestionWindow::new(1000);
        assert_eq!(window.segments(), WINDOW_INITIAL);
        assert_eq!(after(&mut window, 2, 5000, 0.0, MS), WINDOW_INITIAL * 4);
        assert_eq!(after(&mut window, 20, 5000, 0.0, MS), 1000);
        assert_eq!(CongestionWindow::new(1).segments(), WINDOW_INITIAL);
    }

    #[test]
    fn loss_that_does_not_depend_on_the_window_does_not_shrink_it() {
        for loss in [0.05, 0.2, 0.4] {
            let mut window = CongestionWindow::new(1000);
            let segments = after(&mut window, 100, 5000, loss, MS);
            assert!(segments > 400, "{segments} at {loss}");
        }
    }

    #[test]
    fn without_a_queue_the_window_stops_growing_at_the_capacity_of_the_path() {
        let mut window = CongestionWindow::new(4000);
        after(&mut window, 50, 100, 0.0, MS);
        let mut most = 0;
        for _ in 0..200 {
            most = most.max(after(&mut window, 1, 100, 0.0, MS));
        }
        assert!(most < 200, "{most} where 100 get through");
    }

    #[test]
    fn increased_delay_shrinks_the_window_and_it_recovers_slowly() {
        let mut window = CongestionWindow::new(1000);
        after(&mut window, 20, 5000, 0.0, MS);
        let shrunk = after(&mut window, 3, 5000, 0.0, MS * 100);
        assert!(shrunk < 600);
        let grown = after(&mut window, 3, 5000, 0.0, MS);
        assert!(grown > shrunk && grown < shrunk * 2);
    }

    #[test]
    fn timeouts_and_refusals_shrink_the_window_to_one_segment_if_delay_has_increased() {
        let mut window = CongestionWindow::new(1000);
        after(&mut window, 20, 5000, 0.0, MS);
        window.halve();
        assert_eq!(window.segments(), 500);
        let mut slow = window.clone();
        slow.received(Some(MS * 200));
        for _ in 0..20 {
            window.halve();
            slow.halve();
        }
        assert_eq!((window.segments(), slow.segments()), (WINDOW_MIN, 1));
    }

    #[test]
    fn a_path_that_became_longer_is_used_in_full_again() {
        let mut window = CongestionWindow::new(2000);
        after(&mut window, 200, 5000, 0.0, MS * 5);
        let before = window.segments();
        // A queue would look the same at first.
        let shrunk = after(&mut window, 100, 5000, 0.0, MS * 25);
        assert!((WINDOW_INITIAL..before).contains(&shrunk));
        let grown = after(&mut window, 600, 5000, 0.0, MS * 25);
        assert!(grown > before / 2, "{grown}");
    }
}
