//! How long to wait for an answer, and how much to ask for at once. Pure: time comes in.

use std::time::Duration;

/// Before the first round trip was measured.
const RTO_START: Duration = Duration::from_millis(300);
/// Least allowance above the round trip: on a busy host, scheduling alone takes this long.
const RTO_SLACK_MIN: Duration = Duration::from_millis(25);
/// Least pause in the middle of an answer that is taken for loss, for the same cause.
const PAUSE_MIN: Duration = Duration::from_millis(12);
const RTO_MAX: Duration = Duration::from_secs(2);
/// Doubling ends here.
const BACKOFF_MAX: u32 = 6;

/// Smoothed round-trip time and what follows from it (RFC 6298, with a floor for fast networks).
#[derive(Clone, Copy, Debug, Default)]
pub struct RoundTrip {
    smooth: Option<Duration>,
    deviation: Duration,
}

impl RoundTrip {
    pub fn sample(&mut self, rtt: Duration) {
        match self.smooth {
            None => {
                self.smooth = Some(rtt);
                self.deviation = rtt / 2;
            }
            Some(smooth) => {
                self.deviation = (self.deviation * 3 + smooth.abs_diff(rtt)) / 4;
                self.smooth = Some((smooth * 7 + rtt) / 8);
            }
        }
    }

    pub fn smooth(&self) -> Option<Duration> {
        self.smooth
    }

    /// How long to wait for the first segment of an answer, after this many vain waits.
    pub fn timeout(&self, vain: u32) -> Duration {
        let slack = (self.deviation * 4).max(RTO_SLACK_MIN);
        let base = self.smooth.map_or(RTO_START, |smooth| smooth + slack);
        (base * (1 << vain.min(BACKOFF_MAX))).min(RTO_MAX)
    }

    /// How long to wait for the next segment of an answer that has begun. Its segments leave the
    /// edge back to back, so a pause much longer than the path's jitter means loss.
    pub fn pause(&self) -> Duration {
        let smooth = self.smooth.unwrap_or(RTO_START);
        (smooth / 4)
            .max(self.deviation * 4)
            .clamp(PAUSE_MIN, RTO_MAX)
    }
}

/// What is known of the way to the edge and back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Trips {
    /// To the first segment of a chunk, which the edge may have to fetch.
    pub first: RoundTrip,
    /// To a segment of a chunk that is at the edge: the path alone.
    pub path: RoundTrip,
    /// When the latest request was sent that has begun to be answered.
    newest_answered: Duration,
    /// When a segment last came.
    last_arrival: Duration,
}

impl Trips {
    /// A segment came that was asked for at this moment.
    pub fn answered(&mut self, sent_at: Duration, now: Duration) {
        self.newest_answered = self.newest_answered.max(sent_at);
        self.last_arrival = now;
    }

    /// When a request counts as unanswered. While answers to earlier ones still come in, it waits
    /// its turn behind them; once a later one was answered, it was passed over.
    pub fn overdue_at(&self, sent_at: Duration, timeout: Duration) -> Duration {
        let waiting = sent_at > self.newest_answered;
        let since = if waiting {
            sent_at.max(self.last_arrival)
        } else {
            sent_at
        };
        since + timeout
    }
}

/// Loss below this share of a round is repaired, not taken for a full path: radio links lose a
/// few datagrams in a hundred whatever the sender does.
const LOSS_TOLERATED: f64 = 0.10;
/// What a round must have seen before it can be judged.
const ROUND_SEGMENTS_MIN: u32 = 16;
/// More added delay than this means that a queue is filling.
const QUEUE_DELAY_MIN: Duration = Duration::from_millis(15);
const WINDOW_START: u32 = 32;
const WINDOW_MIN: u32 = 8;
/// A path that got longer for good is taken for the new path after twice this long: until then its
/// delay looks like a queue.
const BASE_HALF_LIFE: Duration = Duration::from_secs(5);

/// How many segments may be under way. Starts small, doubles each round trip, and backs off when
/// a round loses much or its delay grows.
#[derive(Clone, Debug)]
pub struct Window {
    segments: u32,
    /// What the receive buffer really holds.
    most: u32,
    doubling: bool,
    round: Round,
    /// Shortest round trip of this half of the memory, and of the one before: the path without
    /// queues.
    base: Option<Duration>,
    base_before: Option<Duration>,
    base_turns: Duration,
}

#[derive(Clone, Debug, Default)]
struct Round {
    ends: Duration,
    arrived: u32,
    lost: u32,
    shortest: Option<Duration>,
}

impl Window {
    /// A window that never exceeds what the receiver can take.
    pub fn new(most: u32) -> Self {
        let most = most.max(WINDOW_MIN);
        Self {
            segments: WINDOW_START.min(most),
            most,
            doubling: true,
            round: Round::default(),
            base: None,
            base_before: None,
            base_turns: BASE_HALF_LIFE,
        }
    }

    pub fn segments(&self) -> u32 {
        self.segments
    }

    pub fn arrived(&mut self) {
        self.round.arrived += 1;
        if self.doubling {
            self.segments = (self.segments + 1).min(self.most);
        }
    }

    pub fn lost(&mut self, segments: u32) {
        self.round.lost += segments;
    }

    pub fn sample(&mut self, rtt: Duration) {
        self.base = Some(self.base.map_or(rtt, |base| base.min(rtt)));
        self.round.shortest = Some(
            self.round
                .shortest
                .map_or(rtt, |shortest| shortest.min(rtt)),
        );
    }

    /// The edge says that it is over a limit.
    pub fn refused(&mut self) {
        self.doubling = false;
        self.segments = (self.segments / 2).max(WINDOW_MIN);
    }

    /// Judges the round if it is over.
    pub fn turn(&mut self, now: Duration, round_trip: &RoundTrip) {
        let seen = self.round.arrived + self.round.lost;
        if now < self.round.ends || seen < ROUND_SEGMENTS_MIN {
            return;
        }
        let lossy = f64::from(self.round.lost) > LOSS_TOLERATED * f64::from(seen);
        let base = self.base.into_iter().chain(self.base_before).min();
        let slow = match (base, self.round.shortest) {
            (Some(base), Some(shortest)) => shortest > base + base.max(QUEUE_DELAY_MIN),
            (None, _) | (_, None) => false,
        };
        if lossy {
            self.shrink(7, WINDOW_MIN);
        } else if slow {
            // Delay alone never takes more than the start: it may be no queue of ours.
            self.shrink(8, WINDOW_START.min(self.segments));
        } else if !self.doubling {
            self.segments = (self.segments + self.segments / 16 + 1).min(self.most);
        }
        if now >= self.base_turns {
            self.base_before = self.base.take();
            self.base_turns = now + BASE_HALF_LIFE;
        }
        let length = round_trip
            .smooth()
            .unwrap_or(RTO_START)
            .max(Duration::from_millis(1));
        self.round = Round {
            ends: now + length,
            ..Round::default()
        };
    }

    fn shrink(&mut self, tenths: u32, least: u32) {
        self.doubling = false;
        self.segments = (self.segments * tenths / 10).max(least);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn the_timeout_follows_the_path_and_has_a_floor_a_backoff_and_a_cap() {
        let mut trip = RoundTrip::default();
        assert_eq!(trip.timeout(0), RTO_START);
        for _ in 0..50 {
            trip.sample(MS);
        }
        let least = MS + RTO_SLACK_MIN;
        assert_eq!(trip.timeout(0), least);
        assert_eq!(trip.timeout(2), least * 4);
        assert_eq!(trip.timeout(u32::MAX), least * 64);
        for _ in 0..200 {
            trip.sample(MS * 200);
        }
        assert!(trip.timeout(0) >= MS * 200 && trip.timeout(0) < MS * 230);
        assert_eq!(trip.timeout(30), RTO_MAX);
    }

    #[test]
    fn a_request_waits_its_turn_behind_earlier_ones_and_not_behind_later_ones() {
        let mut trips = Trips::default();
        assert_eq!(trips.overdue_at(MS * 5, MS * 10), MS * 15);
        trips.answered(MS * 4, MS * 12);
        assert_eq!(trips.overdue_at(MS * 5, MS * 10), MS * 22);
        trips.answered(MS * 6, MS * 13);
        assert_eq!(trips.overdue_at(MS * 5, MS * 10), MS * 15);
    }

    /// Runs rounds of one round trip each; gives the window after them.
    fn after(window: &mut Window, rounds: u32, loss_share: f64, rtt: Duration) -> u32 {
        let mut trip = RoundTrip::default();
        trip.sample(MS);
        for _ in 0..rounds {
            let segments = window.segments();
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "small"
            )]
            let lost = (f64::from(segments) * loss_share) as u32;
            for _ in lost..segments {
                window.arrived();
            }
            window.lost(lost);
            window.sample(rtt);
            window.turn(window.round.ends + MS, &trip);
        }
        window.segments()
    }

    #[test]
    fn the_window_doubles_up_to_what_the_receiver_holds() {
        let mut window = Window::new(1000);
        assert_eq!(window.segments(), WINDOW_START);
        assert_eq!(after(&mut window, 2, 0.0, MS), WINDOW_START * 4);
        assert_eq!(after(&mut window, 20, 0.0, MS), 1000);
        assert_eq!(Window::new(1).segments(), WINDOW_MIN);
    }

    #[test]
    fn five_percent_loss_is_no_reason_to_slow_down_and_thirty_is() {
        let mut window = Window::new(1000);
        assert_eq!(after(&mut window, 20, 0.05, MS), 1000);
        assert!(after(&mut window, 5, 0.30, MS) < 200);
        assert!(after(&mut window, 50, 0.30, MS) >= WINDOW_MIN);
    }

    #[test]
    fn a_growing_delay_shrinks_the_window_and_it_comes_back_slowly() {
        let mut window = Window::new(1000);
        after(&mut window, 20, 0.0, MS);
        let shrunk = after(&mut window, 3, 0.0, MS * 100);
        assert!(shrunk < 600);
        let grown = after(&mut window, 3, 0.0, MS);
        assert!(grown > shrunk && grown < shrunk * 2);
    }

    #[test]
    fn a_refusal_halves_the_window() {
        let mut window = Window::new(1000);
        after(&mut window, 20, 0.0, MS);
        window.refused();
        assert_eq!(window.segments(), 500);
    }

    #[test]
    fn a_path_that_got_longer_for_good_is_used_in_full_again() {
        let mut window = Window::new(2000);
        let mut trip = RoundTrip::default();
        let mut now = Duration::ZERO;
        let mut run = |window: &mut Window, rtt: Duration, rounds: u32| {
            for _ in 0..rounds {
                now += rtt;
                trip.sample(rtt);
                window.sample(rtt);
                for _ in 0..window.segments() {
                    window.arrived();
                }
                window.turn(now, &trip);
            }
        };
        run(&mut window, MS * 5, 200);
        let before = window.segments();
        // A queue would look the same at first.
        run(&mut window, MS * 25, 100);
        assert!((WINDOW_START..before).contains(&window.segments()));
        run(&mut window, MS * 25, 600);
        assert!(window.segments() > before / 2, "{}", window.segments());
    }
}
