//! How long to wait for an answer, and how much to ask for at once. Pure: time comes in.

use std::time::Duration;

/// Least wait before any DATA was measured: a path of 16 kbit/s takes this long for a segment
/// (RFC 6298, 2.1).
const RTO_START: Duration = Duration::from_secs(1);
/// Least pause until then.
const PAUSE_START: Duration = Duration::from_millis(500);
/// DATA counts as measured after this many segments: a shaper lets the first few pass at once.
const MEASURED_SEGMENTS: u32 = 16;
/// Least allowance above the round trip, and least pause in the middle of an answer that counts as
/// loss: on a busy host, scheduling alone takes this long.
const SLACK_MIN: Duration = Duration::from_millis(25);
/// It doubles up to this when what was given up comes after all.
const SLACK_MAX: Duration = Duration::from_millis(400);
/// It halves after this long without such a mistake.
const SLACK_MEMORY: Duration = Duration::from_secs(10);
/// A path that takes longer for a segment carries less than 10 kbit/s.
const GAP_MAX: Duration = Duration::from_secs(1);
/// Doubling ends at this or at four times the timeout, whichever is longer.
const BACKOFF_MAX: Duration = Duration::from_secs(2);

/// Smoothed round-trip time and its deviation (RFC 6298).
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
}

/// What is known of the way to the edge and back.
#[derive(Clone, Copy, Debug)]
pub struct Trips {
    /// To the first segment of a chunk, which the edge may have to fetch.
    first: RoundTrip,
    /// To a segment of a chunk that is at the edge: the path alone.
    path: RoundTrip,
    /// Segments that came.
    arrived: u32,
    /// Doublings of every timeout. They last until an answer is measured whose request was no
    /// repetition (Karn): else a path that got slower would be taken for a lossy one for ever.
    backoff: u32,
    backed_off_at: Duration,
    /// When the latest request was sent that has begun to be answered.
    newest_answered: Duration,
    /// When a segment last came.
    last_arrival: Duration,
    /// The longest pause between segments of one answer, lately: on a slow path, how long one
    /// takes.
    gap: Duration,
    slack: Duration,
    slack_changed_at: Duration,
}

impl Default for Trips {
    fn default() -> Self {
        Self {
            first: RoundTrip::default(),
            path: RoundTrip::default(),
            arrived: 0,
            backoff: 0,
            backed_off_at: Duration::ZERO,
            newest_answered: Duration::ZERO,
            last_arrival: Duration::ZERO,
            gap: Duration::ZERO,
            slack: SLACK_MIN,
            slack_changed_at: Duration::ZERO,
        }
    }
}

impl Trips {
    /// A WELCOME came; it is as long as a segment.
    pub fn welcomed(&mut self, rtt: Duration) {
        self.path.sample(rtt);
        self.backoff = 0;
    }

    /// The first segment of a chunk came.
    pub fn first_sample(&mut self, rtt: Duration) {
        self.first.sample(rtt);
    }

    /// The first segment came of an answer from a chunk that is at the edge.
    pub fn path_sample(&mut self, rtt: Duration) {
        self.path.sample(rtt);
    }

    /// The answer to a request that was no repetition: timeouts are as measured again.
    pub fn fresh(&mut self) {
        self.backoff = 0;
    }

    /// The round trip of the path, without the time of a fetch.
    pub fn smooth(&self) -> Option<Duration> {
        self.path.smooth
    }

    /// Whether the edge seems to fetch what it is asked for.
    pub fn cold(&self) -> bool {
        let path = self.path.smooth.unwrap_or_default();
        let first = self.first.smooth.unwrap_or_default();
        first > path * 2 + SLACK_MIN
    }

    /// How long to wait for the first segment of a chunk, after this many vain waits for it.
    pub fn first_timeout(&self, vain: u32) -> Duration {
        // Before a fetch was measured, the path is a better guess than nothing.
        let trip = if self.first.smooth.is_some() {
            &self.first
        } else {
            &self.path
        };
        self.timeout(trip, vain)
    }

    /// How long to wait for a segment of a chunk that is at the edge.
    pub fn path_timeout(&self) -> Duration {
        self.timeout(&self.path, 0)
    }

    /// How long an answer may be on its way.
    pub fn longest(&self) -> Duration {
        self.base(&self.path)
    }

    fn is_measured(&self) -> bool {
        self.arrived >= MEASURED_SEGMENTS
    }

    fn base(&self, trip: &RoundTrip) -> Duration {
        let slack = (trip.deviation * 4).max(self.slack);
        let base = trip.smooth.map_or(RTO_START, |smooth| smooth + slack);
        if self.is_measured() {
            base
        } else {
            base.max(RTO_START)
        }
    }

    fn timeout(&self, trip: &RoundTrip, vain: u32) -> Duration {
        // On a slow path a segment takes longer than its first bytes.
        let base = self.base(trip).max(self.gap * 3);
        doubled(base, vain.max(self.backoff))
    }

    /// How long to wait for the next segment of an answer that has begun, or for an answer when a
    /// later request was answered. Segments leave the edge back to back and in order, so a pause
    /// much longer than the path's jitter, or than a segment takes, means loss.
    pub fn pause(&self) -> Duration {
        let smooth = self.path.smooth.unwrap_or(RTO_START);
        let pause = (smooth / 4).max(self.path.deviation * 4).max(self.gap * 3);
        let least = if self.is_measured() {
            self.slack
        } else {
            PAUSE_START
        };
        pause.max(least)
    }

    /// A segment came; whether behind another one of the same answer, and when it was asked for,
    /// unless it may be the answer to an earlier request.
    pub fn answered(&mut self, sent_at: Option<Duration>, behind: bool, now: Duration) {
        self.newest_answered = self.newest_answered.max(sent_at.unwrap_or_default());
        if behind {
            self.arrived_behind(now);
        }
        self.arrived = self.arrived.saturating_add(1);
        self.last_arrival = now;
        if self.slack > SLACK_MIN && now > self.slack_changed_at + SLACK_MEMORY {
            self.slack = (self.slack / 2).max(SLACK_MIN);
            self.slack_changed_at = now;
        }
    }

    /// A segment came behind another one.
    fn arrived_behind(&mut self, now: Duration) {
        let gap = now.saturating_sub(self.last_arrival).min(GAP_MAX);
        self.gap = gap.max(self.gap * 15 / 16);
    }

    /// When a segment last came.
    pub fn last_arrival(&self) -> Duration {
        self.last_arrival
    }

    /// Whether a later request was answered than the one sent then.
    pub fn overtaken(&self, sent_at: Duration) -> bool {
        sent_at < self.newest_answered
    }

    /// DATA came that is of no use, as an answer to a needless repetition: what is behind it in a
    /// queue is not lost.
    pub fn useless(&mut self, now: Duration) {
        self.arrived_behind(now);
        self.last_arrival = now;
    }

    /// What was given up has come after all: it was not lost, and the wait was too short.
    pub fn mistaken(&mut self, now: Duration) {
        self.useless(now);
        if self.slack < SLACK_MAX && now >= self.slack_changed_at + self.slack {
            self.slack = (self.slack * 2).min(SLACK_MAX);
            self.slack_changed_at = now;
        }
    }

    /// Nothing at all came in answer to a request sent then; whether timeouts are longer now.
    pub fn silent(&mut self, sent_at: Duration, now: Duration) -> bool {
        // Requests that were under way together are one event.
        if self.backoff > 0 && sent_at < self.backed_off_at {
            return false;
        }
        self.backoff += 1;
        self.backed_off_at = now;
        true
    }
}

fn doubled(base: Duration, times: u32) -> Duration {
    let doubled = base.saturating_mul(1 << times.min(16));
    doubled.min(BACKOFF_MAX.max(base * 4))
}

/// Loss below this share of a round is repaired, not taken for a full path: radio links lose a
/// few datagrams in a hundred whatever the sender does.
const LOSS_TOLERATED: f64 = 0.10;
/// The same where the delay has grown too.
const LOSS_TOLERATED_SLOW: f64 = 0.02;
/// More is never tolerated.
const LOSS_TOLERATED_MAX: f64 = 0.75;
/// How long a path is taken for a lossy one before that is tried again.
const LOSS_MEMORY: Duration = Duration::from_secs(10);
/// Half as much under way must bring less than this share of before, or it was the path that was
/// full.
const LOSS_FOLLOWS: f64 = 0.75;
/// What a round must have seen before it can be judged.
const ROUND_SEGMENTS_MIN: u32 = 16;
/// The same for the rounds that are compared to find out what loss depends on.
const PROBE_SEGMENTS_MIN: u32 = 32;
/// More added delay than this means that a queue is filling.
const QUEUE_DELAY_MIN: Duration = Duration::from_millis(15);
/// As RFC 6928 has it: a path of 64 kbit/s with a queue of 16 kB carries it.
const WINDOW_START: u32 = 10;
/// So few are not what fills a path whose delay does not grow.
const WINDOW_FEW: u32 = 8;
/// A path that got longer for good is taken for the new path after twice this long: until then its
/// delay looks like a queue.
const BASE_HALF_LIFE: Duration = Duration::from_secs(5);

/// How many segments may be under way. Starts small, doubles each round trip, and backs off when
/// delay grows, and when a round loses much and less under way loses less.
#[derive(Clone, Debug)]
pub struct Window {
    segments: u32,
    /// What the receive buffer really holds.
    most: u32,
    doubling: bool,
    round: Round,
    /// Loss of a share up to this does not depend on what is under way.
    tolerated: f64,
    tolerated_until: Duration,
    trial: Trial,
    /// Shortest round trip of this half of the memory, and of the one before: the path without
    /// queues.
    base: Option<Duration>,
    base_before: Option<Duration>,
    base_turns: Duration,
    /// Shortest round trip ever, and how long the latest segment was on its way.
    shortest: Option<Duration>,
    latest: Option<Duration>,
}

#[derive(Clone, Debug, Default)]
struct Round {
    began: Duration,
    ends: Duration,
    arrived: u32,
    lost: u32,
    shortest: Option<Duration>,
}

/// Finds out whether loss depends on what is under way: half of it, and what does that bring?
#[derive(Clone, Copy, Debug)]
enum Trial {
    None,
    /// Losses of the larger window are still being found out.
    Settles(Before),
    Runs(Before),
}

/// A round that lost much.
#[derive(Clone, Copy, Debug)]
struct Before {
    segments: u32,
    per_second: f64,
}

impl Window {
    /// A window that never exceeds what the receiver can take.
    pub fn new(most: u32) -> Self {
        let most = most.max(WINDOW_START);
        Self {
            segments: WINDOW_START,
            most,
            doubling: true,
            round: Round::default(),
            tolerated: LOSS_TOLERATED,
            tolerated_until: Duration::ZERO,
            trial: Trial::None,
            base: None,
            base_before: None,
            base_turns: BASE_HALF_LIFE,
            shortest: None,
            latest: None,
        }
    }

    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// What the receiver can take.
    pub fn most(&self) -> u32 {
        self.most
    }

    /// A segment came, this long after it was asked for, if that can be said.
    pub fn arrived(&mut self, delay: Option<Duration>) {
        self.round.arrived += 1;
        self.latest = delay.or(self.latest);
        // Losses are seen a while after what caused them: no growth meanwhile.
        let lossy = f64::from(self.round.lost) > self.tolerated * f64::from(self.round.arrived);
        if self.doubling && !lossy && delay.is_some_and(|delay| !self.is_slow(Some(delay))) {
            self.segments = (self.segments + 1).min(self.most);
        }
    }

    pub fn lost(&mut self, segments: u32) {
        self.round.lost += segments;
    }

    pub fn sample(&mut self, rtt: Duration) {
        let shorter = |than: Option<Duration>| Some(than.map_or(rtt, |than| than.min(rtt)));
        self.base = shorter(self.base);
        self.round.shortest = shorter(self.round.shortest);
        self.shortest = shorter(self.shortest);
    }

    /// The edge says that it is over a limit, or nothing comes any more.
    pub fn halve(&mut self) {
        self.doubling = false;
        self.trial = Trial::None;
        self.segments = (self.segments / 2).max(self.least());
    }

    /// What may be under way whatever is lost: one segment where a queue is filling; where none
    /// is, a few are not what fills the path.
    fn least(&self) -> u32 {
        let few = if self.latest.is_none() || is_longer(self.latest, self.shortest) {
            1
        } else {
            WINDOW_FEW
        };
        few.min(self.segments)
    }

    fn is_slow(&self, delay: Option<Duration>) -> bool {
        let base = self.base.into_iter().chain(self.base_before).min();
        is_longer(delay, base)
    }

    /// Judges the round if it is over.
    pub fn turn(&mut self, now: Duration, smooth: Option<Duration>) {
        let seen = self.round.arrived + self.round.lost;
        let least = match self.trial {
            Trial::None => ROUND_SEGMENTS_MIN,
            Trial::Settles(_) | Trial::Runs(_) => PROBE_SEGMENTS_MIN.min(self.segments * 4),
        };
        // A start that is far too fast ends at once.
        let flood = self.doubling && self.round.lost > self.round.arrived.max(least) / 2;
        if (now < self.round.ends || seen < least) && !flood {
            return;
        }
        self.judge(now, f64::from(self.round.lost) / f64::from(seen));
        if now >= self.base_turns {
            self.base_before = self.base.take();
            self.base_turns = now + BASE_HALF_LIFE;
        }
        let length = smooth.unwrap_or(RTO_START).max(Duration::from_millis(1));
        self.round = Round {
            began: now,
            ends: now + length,
            ..Round::default()
        };
    }

    /// Loss of this share does not depend on what is under way.
    fn tolerate(&mut self, now: Duration, loss: f64) {
        self.tolerated = (loss * 1.5).clamp(LOSS_TOLERATED, LOSS_TOLERATED_MAX);
        self.tolerated_until = now + LOSS_MEMORY;
    }

    fn judge(&mut self, now: Duration, loss: f64) {
        let took = now.saturating_sub(self.round.began);
        let per_second = f64::from(self.round.arrived) / took.as_secs_f64().max(1e-6);
        if now >= self.tolerated_until {
            self.tolerated = LOSS_TOLERATED;
        }
        match self.trial {
            Trial::Settles(before) => {
                self.trial = Trial::Runs(before);
                return;
            }
            Trial::Runs(before) if per_second < before.per_second * LOSS_FOLLOWS => {
                // Half as much brought half as much: datagrams are lost whatever we do.
                self.trial = Trial::None;
                self.segments = before.segments;
                self.tolerate(now, loss);
                return;
            }
            Trial::Runs(_) => self.trial = Trial::None,
            Trial::None => {}
        }
        // A queue of our own that outlasted the memory is told by what it loses.
        let filled =
            self.tolerated <= LOSS_TOLERATED && is_longer(self.round.shortest, self.shortest);
        let tolerated = if filled {
            LOSS_TOLERATED_SLOW
        } else {
            self.tolerated
        };
        let least = self.least();
        if loss > tolerated && self.segments > least {
            self.trial = Trial::Settles(Before {
                segments: self.segments,
                per_second,
            });
            self.doubling = false;
            self.segments = (self.segments / 2).max(least);
        } else if loss > tolerated && least > 1 {
            self.tolerate(now, loss);
        } else if self.is_slow(self.round.shortest) {
            // Delay alone never takes more than the start: it may be no queue of ours.
            self.doubling = false;
            let least = WINDOW_START.min(self.segments);
            self.segments = (self.segments * 8 / 10).max(least);
        } else if !self.doubling {
            self.segments = (self.segments + self.segments / 16 + 1).min(self.most);
        }
    }
}

/// Whether a delay is so much longer than the path's that a queue is filling.
fn is_longer(delay: Option<Duration>, base: Option<Duration>) -> bool {
    let both = delay.zip(base);
    both.is_some_and(|(delay, base)| delay > base + base.max(QUEUE_DELAY_MIN))
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    fn measured() -> Trips {
        Trips {
            arrived: MEASURED_SEGMENTS,
            ..Trips::default()
        }
    }

    #[test]
    fn the_timeout_is_a_second_until_data_was_measured_and_follows_the_path_then() {
        let mut trips = Trips::default();
        assert_eq!(trips.path_timeout(), RTO_START);
        trips.welcomed(MS);
        for _ in 0..50 {
            assert_eq!(trips.path_timeout(), RTO_START);
            trips.path_sample(MS);
        }
        trips.arrived = MEASURED_SEGMENTS;
        assert_eq!(trips.path_timeout(), MS + SLACK_MIN);
        for _ in 0..200 {
            trips.path_sample(MS * 200);
        }
        assert!((MS * 200..MS * 230).contains(&trips.path_timeout()));
    }

    #[test]
    fn timeouts_double_for_each_silence_and_until_an_answer_is_measured() {
        let mut trips = measured();
        for _ in 0..50 {
            trips.path_sample(MS * 75);
        }
        let once = trips.path_timeout();
        assert!(trips.silent(MS, MS * 100));
        // What was under way with it is no silence of its own.
        assert!(!trips.silent(MS * 99, MS * 101));
        assert_eq!(trips.path_timeout(), once * 2);
        assert!(trips.silent(MS * 100, MS * 300));
        trips.answered(None, false, MS * 310);
        assert_eq!(trips.path_timeout(), once * 4);
        for at in 4..60 {
            trips.silent(MS * 100 * at, MS * 100 * at);
        }
        assert_eq!(trips.path_timeout(), BACKOFF_MAX);
        trips.fresh();
        assert_eq!(trips.path_timeout(), once);
    }

    #[test]
    fn on_a_slow_path_the_pause_is_longer_than_a_segment_takes() {
        let mut trips = measured();
        trips.path_sample(MS * 180);
        trips.answered(Some(MS), false, MS * 1000);
        trips.answered(Some(MS), true, MS * 1160);
        assert!(trips.pause() >= MS * 480);
    }

    #[test]
    fn what_comes_after_it_was_given_up_makes_the_wait_longer_for_a_while() {
        let mut trips = measured();
        for _ in 0..50 {
            trips.path_sample(MS);
        }
        let before = trips.slack;
        trips.mistaken(MS * 100);
        trips.mistaken(MS * 101);
        assert_eq!(trips.slack, before * 2);
        for at in 2..20 {
            trips.mistaken(MS * 1000 * at);
        }
        assert_eq!(trips.slack, SLACK_MAX);
        for at in 3..20 {
            trips.answered(None, false, SLACK_MEMORY * at);
        }
        assert_eq!(trips.slack, before);
    }

    /// Rounds over a path that carries `full` segments a round and loses a share of them.
    fn after(window: &mut Window, rounds: u32, full: u32, loss: f64, rtt: Duration) -> u32 {
        let mut now = window.round.ends;
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
                window.arrived(Some(rtt));
            }
            window.lost(sent - carried);
            window.sample(rtt);
            now += rtt;
            window.turn(now, Some(rtt));
        }
        window.segments()
    }

    #[test]
    fn the_window_doubles_up_to_what_the_receiver_holds() {
        let mut window = Window::new(1000);
        assert_eq!(window.segments(), WINDOW_START);
        assert_eq!(after(&mut window, 2, 5000, 0.0, MS), WINDOW_START * 4);
        assert_eq!(after(&mut window, 20, 5000, 0.0, MS), 1000);
        assert_eq!(Window::new(1).segments(), WINDOW_START);
    }

    #[test]
    fn loss_that_does_not_depend_on_us_is_no_reason_to_slow_down() {
        for loss in [0.05, 0.2, 0.4] {
            let mut window = Window::new(1000);
            let segments = after(&mut window, 100, 5000, loss, MS);
            assert!(segments > 400, "{segments} at {loss}");
        }
    }

    #[test]
    fn a_path_that_carries_no_more_is_not_filled_further_without_a_queue_either() {
        let mut window = Window::new(4000);
        after(&mut window, 50, 100, 0.0, MS);
        let mut most = 0;
        for _ in 0..200 {
            most = most.max(after(&mut window, 1, 100, 0.0, MS));
        }
        assert!(most < 200, "{most} where 100 get through");
    }

    #[test]
    fn a_growing_delay_shrinks_the_window_and_it_comes_back_slowly() {
        let mut window = Window::new(1000);
        after(&mut window, 20, 5000, 0.0, MS);
        let shrunk = after(&mut window, 3, 5000, 0.0, MS * 100);
        assert!(shrunk < 600);
        let grown = after(&mut window, 3, 5000, 0.0, MS);
        assert!(grown > shrunk && grown < shrunk * 2);
    }

    #[test]
    fn silence_and_refusals_take_the_window_down_to_one_segment_where_the_delay_has_grown() {
        let mut window = Window::new(1000);
        after(&mut window, 20, 5000, 0.0, MS);
        window.halve();
        assert_eq!(window.segments(), 500);
        let mut slow = window.clone();
        slow.arrived(Some(MS * 200));
        for _ in 0..20 {
            window.halve();
            slow.halve();
        }
        assert_eq!((window.segments(), slow.segments()), (WINDOW_FEW, 1));
    }

    #[test]
    fn a_path_that_got_longer_for_good_is_used_in_full_again() {
        let mut window = Window::new(2000);
        after(&mut window, 200, 5000, 0.0, MS * 5);
        let before = window.segments();
        // A queue would look the same at first.
        let shrunk = after(&mut window, 100, 5000, 0.0, MS * 25);
        assert!((WINDOW_START..before).contains(&shrunk));
        let grown = after(&mut window, 600, 5000, 0.0, MS * 25);
        assert!(grown > before / 2, "{grown}");
    }
}
