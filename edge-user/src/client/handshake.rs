//! HELLO and WELCOME: validates that the path carries full datagrams both ways, and obtains and
//! renews a cookie. Pure: time, randomness and datagrams are arguments.

use std::time::Duration;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{
    Cookie, HELLO_BYTES_MAX, HELLO_BYTES_MIN, HELLO_HEADER_BYTES, Hello, Kind, MAGIC,
    SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_MAX,
    WELCOME_HEADER_BYTES, Welcome,
};

use super::failure::{Failure, Unexpected};

/// Longest datagram either side sends.
pub const DATAGRAM_BYTES_MAX: usize = HELLO_BYTES_MAX;
/// The first HELLO is as long as a full DATA datagram of the default segment size.
pub const HELLO_BYTES_DEFAULT: usize = HELLO_HEADER_BYTES + SEGMENT_BYTES_DEFAULT as usize;
/// Unanswered HELLOs before the edge counts as unreachable.
const ATTEMPTS: u8 = 3;
const TIMEOUT_INITIAL: Duration = Duration::from_millis(500);
/// Bound of the doubling timeout while an edge that answered before is waited for.
const TIMEOUT_MAX: Duration = Duration::from_secs(10);
/// A local error costs no round trip, so the retry comes sooner than after loss.
const BLOCKED_RETRY: Duration = Duration::from_millis(100);
/// As long as three HELLOs take to time out.
const BLOCKED_TIMEOUT: Duration = Duration::from_millis(3500);

/// What the handshake needs next.
#[derive(Debug)]
pub enum Step {
    /// Open a socket on a new port, then call `step` again.
    Open,
    /// Send the HELLO in the buffer.
    Send(usize),
    /// Nothing until then. A session may be valid meanwhile.
    Wait(Duration),
    Failed(Failure),
}

/// What a datagram changed.
#[derive(Debug)]
pub enum Event {
    /// It is no answer to our HELLO.
    Ignored,
    /// Another HELLO is needed before the first GET.
    Continue,
    /// There is a new cookie.
    Completed {
        /// Unless the HELLO was retransmitted.
        rtt: Option<Duration>,
    },
    Failed(Failure),
}

/// Parameters and cookie of the last WELCOME.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub segment_bytes: u16,
    pub max_burst: u8,
    pub cookie: Cookie,
    renew_at: Duration,
}

#[derive(Debug)]
struct PendingHello {
    nonce: [u8; 8],
    len_bytes: usize,
    sent_at: Duration,
    /// Then the answer measures no round trip (Karn's algorithm).
    retransmitted: bool,
}

/// The local network stack refuses to send.
#[derive(Clone, Copy, Debug)]
struct Blocked {
    since: Duration,
    retry_at: Duration,
}

#[derive(Debug)]
pub struct Handshake {
    socket_open: bool,
    pending: Option<PendingHello>,
    session: Option<Session>,
    unanswered: u8,
    blocked: Option<Blocked>,
    /// HELLO length that must be validated before the first GET.
    len_bytes: usize,
    /// Longest HELLO answered so far, or 0.
    validated_bytes: usize,
    /// The last datagram that was no valid WELCOME, to explain a failure.
    unexpected: Option<Unexpected>,
    /// The last WELCOME had invalid values. One datagram may be damaged; a second one ends the
    /// handshake.
    invalid_welcome: bool,
}

impl Default for Handshake {
    fn default() -> Self {
        Self {
            socket_open: false,
            pending: None,
            session: None,
            unanswered: 0,
            blocked: None,
            len_bytes: HELLO_BYTES_DEFAULT,
            validated_bytes: 0,
            unexpected: None,
            invalid_welcome: false,
        }
    }
}

impl Handshake {
    /// Nothing until a handshake has completed.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// Drops the cookie: handshake again, on the same port.
    pub fn renew(&mut self) {
        if self.session.take().is_some() {
            self.pending = None;
            self.unanswered = 0;
        }
    }

    /// The edge may have changed: renew the cookie now, and use the old one meanwhile.
    pub fn refresh(&mut self, now: Duration) {
        if let Some(session) = &mut self.session {
            session.renew_at = session.renew_at.min(now);
        }
    }

    /// Starts over on a new port.
    pub fn reopen(&mut self) {
        *self = Self {
            len_bytes: self.len_bytes,
            validated_bytes: self.validated_bytes,
            unexpected: self.unexpected,
            invalid_welcome: self.invalid_welcome,
            ..Self::default()
        };
    }

    /// The socket on a new port is open.
    pub fn opened(&mut self) {
        self.socket_open = true;
    }

    /// Opening the socket or sending failed. Without a session the HELLO is sent again from another
    /// port; with one it counts as lost.
    pub fn send_failed(&mut self, now: Duration) {
        if self.session.is_some() {
            return;
        }
        self.blocked = Some(Blocked {
            since: self.blocked.map_or(now, |blocked| blocked.since),
            retry_at: now + BLOCKED_RETRY,
        });
        self.socket_open = false;
        self.pending = None;
    }

    /// Returns what to do now. Writes a HELLO to `out` with a nonce from `random`.
    ///
    /// Fails after three attempts, but not before `until`. With a session, the timeout is at least
    /// `rto`.
    pub fn step(
        &mut self,
        now: Duration,
        until: Duration,
        rto: Duration,
        out: &mut [u8; DATAGRAM_BYTES_MAX],
        random: &mut dyn FnMut() -> [u8; 8],
    ) -> Step {
        if self.pending.is_some() {
            self.blocked = None;
        }
        if let Some(blocked) = self.blocked {
            if now < blocked.retry_at {
                return Step::Wait(blocked.retry_at);
            }
            if now >= until.max(blocked.since + BLOCKED_TIMEOUT) {
                // The channel knows the local error.
                return Step::Failed(match self.validated_bytes {
                    0 => Failure::Unanswered,
                    _ => Failure::Lost,
                });
            }
        }
        if !self.socket_open {
            return Step::Open;
        }
        if let Some(session) = &self.session
            && self.pending.is_none()
            && now < session.renew_at
        {
            return Step::Wait(session.renew_at);
        }
        let initial = if self.session.is_some() {
            TIMEOUT_INITIAL.max(rto)
        } else {
            TIMEOUT_INITIAL
        };
        let wait = (initial * (1 << self.unanswered.min(5))).min(TIMEOUT_MAX);
        let (nonce, retransmitted) = match &self.pending {
            Some(pending) if now < pending.sent_at + wait => {
                return Step::Wait(pending.sent_at + wait);
            }
            Some(pending) => {
                let nonce = pending.nonce;
                self.unanswered = self.unanswered.saturating_add(1);
                if self.unanswered >= ATTEMPTS && (self.session.is_some() || now >= until) {
                    return self.give_up();
                }
                if self.session.is_none() {
                    // With ECMP, another port may be another path.
                    self.socket_open = false;
                    self.pending = None;
                    return Step::Open;
                }
                (nonce, true)
            }
            None => (random(), false),
        };
        let len_bytes = self.len_bytes;
        out.fill(0);
        out[..HELLO_HEADER_BYTES].copy_from_slice(&Hello { nonce }.encode());
        self.pending = Some(PendingHello {
            nonce,
            len_bytes,
            sent_at: now,
            retransmitted,
        });
        Step::Send(len_bytes)
    }

    fn give_up(&mut self) -> Step {
        if self.session.is_some() {
            // The cookie could not be renewed on this port.
            self.reopen();
            return Step::Open;
        }
        Step::Failed(self.failure())
    }

    /// Why the handshake fails.
    pub fn failure(&self) -> Failure {
        match (self.validated_bytes, self.unexpected) {
            (0, None) => Failure::Unanswered,
            (0, Some(unexpected)) => Failure::Unexpected(unexpected),
            (validated, _) if validated < self.len_bytes => Failure::PathTooNarrow(self.len_bytes),
            (_, _) => Failure::Lost,
        }
    }

    /// Handles a datagram that is neither DATA nor NACK.
    pub fn on_datagram(&mut self, now: Duration, datagram: &[u8]) -> Event {
        let Some(pending) = &self.pending else {
            return Event::Ignored;
        };
        let (sent_at, sent) = (pending.sent_at, pending.len_bytes);
        let received = datagram.len();
        let Some(header) = datagram
            .first_chunk::<WELCOME_HEADER_BYTES>()
            .filter(|_| is_welcome(datagram))
        else {
            return self.ignore(Unexpected::NotWelcome { bytes: received });
        };
        if received != sent {
            return self.ignore(Unexpected::LengthMismatch { sent, received });
        }
        let welcome = match Welcome::decode(header) {
            Ok(welcome) => welcome,
            Err(Reason::BadVersion) if header[8..16] == pending.nonce => {
                return self.on_invalid(Failure::Version(header[1] >> 4));
            }
            Err(_) => return self.ignore(Unexpected::Malformed),
        };
        if welcome.nonce != pending.nonce {
            return self.ignore(Unexpected::NonceMismatch);
        }
        if let Err(failure) = check(&welcome) {
            return self.on_invalid(failure);
        }
        self.invalid_welcome = false;
        let rtt = (!pending.retransmitted).then(|| now.saturating_sub(sent_at));
        self.pending = None;
        self.unanswered = 0;
        self.validated_bytes = self.validated_bytes.max(sent);
        let full = HELLO_HEADER_BYTES + usize::from(welcome.segment_bytes);
        self.len_bytes = full.max(HELLO_BYTES_MIN);
        if full > sent {
            self.session = None;
            return Event::Continue;
        }
        self.session = Some(Session {
            segment_bytes: welcome.segment_bytes,
            max_burst: welcome.max_burst,
            cookie: welcome.cookie,
            renew_at: now + Duration::from_secs(u64::from(welcome.lifetime_seconds)) / 2,
        });
        Event::Completed { rtt }
    }

    /// After a first invalid WELCOME, tries again from another port.
    fn on_invalid(&mut self, failure: Failure) -> Event {
        if self.invalid_welcome {
            return Event::Failed(failure);
        }
        self.reopen();
        self.invalid_welcome = true;
        Event::Continue
    }

    fn ignore(&mut self, unexpected: Unexpected) -> Event {
        self.unexpected = Some(unexpected);
        Event::Ignored
    }
}

/// Whether a datagram is a WELCOME of any version.
pub(super) fn is_welcome(datagram: &[u8]) -> bool {
    matches!(datagram, [MAGIC, kind, ..] if kind & 0x0f == Kind::Welcome as u8)
}

fn check(welcome: &Welcome) -> Result<(), Failure> {
    let bad = |field, value, allowed| {
        Err(Failure::BadWelcome {
            field,
            value,
            allowed,
        })
    };
    if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&welcome.segment_bytes) {
        return bad(
            "segment_bytes",
            welcome.segment_bytes.into(),
            "1024 to 1440",
        );
    }
    if welcome.max_burst == 0 || u32::from(welcome.max_burst) > SEGMENTS_MAX {
        return bad("max_burst", welcome.max_burst.into(), "1 to 128");
    }
    if welcome.lifetime_seconds < 2 {
        let lifetime = welcome.lifetime_seconds.into();
        return bad("cookie lifetime", lifetime, "2 seconds or more");
    }
    if welcome.cookie.value == [0; 8] {
        // As in an answer to an unknown version.
        return bad("cookie", 0, "any other value");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONCE: [u8; 8] = *b"a nonce!";
    const COOKIE: Cookie = Cookie {
        epoch: 5,
        value: *b"a cookie",
    };

    fn welcome(len_bytes: usize, change: impl FnOnce(&mut Welcome)) -> Vec<u8> {
        let mut welcome = Welcome {
            segment_bytes: 1216,
            max_burst: 53,
            lifetime_seconds: 240,
            nonce: NONCE,
            cookie: COOKIE,
        };
        change(&mut welcome);
        let mut out = vec![0; len_bytes];
        out[..WELCOME_HEADER_BYTES].copy_from_slice(&welcome.encode());
        out
    }

    fn step(handshake: &mut Handshake, now_ms: u64) -> Step {
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let (now, none) = (Duration::from_millis(now_ms), Duration::ZERO);
        handshake.step(now, none, none, &mut out, &mut || NONCE)
    }

    fn on_datagram(handshake: &mut Handshake, now_ms: u64, datagram: &[u8]) -> Event {
        handshake.on_datagram(Duration::from_millis(now_ms), datagram)
    }

    /// Whose first HELLO is in flight.
    fn pending() -> Handshake {
        let mut handshake = Handshake::default();
        assert!(matches!(step(&mut handshake, 0), Step::Open));
        handshake.opened();
        assert!(matches!(
            step(&mut handshake, 0),
            Step::Send(HELLO_BYTES_DEFAULT)
        ));
        handshake
    }

    #[test]
    fn one_exchange_gives_a_session_and_a_round_trip_time() {
        let mut handshake = pending();
        assert!(handshake.session().is_none());
        let event = on_datagram(&mut handshake, 7, &welcome(1232, |_| {}));
        assert!(matches!(event, Event::Completed { rtt: Some(rtt) } if rtt.as_millis() == 7));
        let session = handshake.session().unwrap();
        assert_eq!((session.segment_bytes, session.cookie), (1216, COOKIE));
    }

    #[test]
    fn answers_to_other_nonces_or_of_other_lengths_are_ignored() {
        let mut handshake = pending();
        for wrong in [
            welcome(1232, |welcome| welcome.nonce = *b"another!"),
            welcome(1231, |_| {}),
            welcome(1233, |_| {}),
            welcome(1232, |_| {})[..20].to_vec(),
        ] {
            assert!(matches!(
                on_datagram(&mut handshake, 1, &wrong),
                Event::Ignored
            ));
        }
        assert!(handshake.session().is_none());
    }

    #[test]
    fn a_larger_segment_size_is_validated_by_a_larger_hello_before_any_get() {
        let mut handshake = pending();
        let larger = |len| welcome(len, |welcome| welcome.segment_bytes = 1400);
        assert!(matches!(
            on_datagram(&mut handshake, 1, &larger(1232)),
            Event::Continue
        ));
        assert!(handshake.session().is_none());
        assert!(matches!(step(&mut handshake, 1), Step::Send(1416)));
        assert!(matches!(
            on_datagram(&mut handshake, 2, &larger(1416)),
            Event::Completed { .. }
        ));
        assert_eq!(handshake.session().unwrap().segment_bytes, 1400);
    }

    #[test]
    fn a_path_too_narrow_for_the_larger_hello_is_reported() {
        let mut handshake = pending();
        let larger = welcome(1232, |welcome| welcome.segment_bytes = 1400);
        assert!(matches!(
            on_datagram(&mut handshake, 1, &larger),
            Event::Continue
        ));
        let mut now = 1;
        loop {
            now += 100;
            match step(&mut handshake, now) {
                Step::Open => handshake.opened(),
                Step::Send(len) => assert_eq!(len, 1416),
                Step::Wait(_) => {}
                Step::Failed(Failure::PathTooNarrow(1416)) => break,
                Step::Failed(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn local_errors_are_retried_soon_and_end_the_handshake_after_a_while() {
        let mut handshake = pending();
        let larger = welcome(1232, |welcome| welcome.segment_bytes = 1400);
        assert!(matches!(
            on_datagram(&mut handshake, 0, &larger),
            Event::Continue
        ));
        let (mut tries, mut now) = (0, 0);
        loop {
            match step(&mut handshake, now) {
                // First sending fails, then each new socket.
                Step::Send(1416) if tries == 0 => handshake.send_failed(Duration::ZERO),
                Step::Open => handshake.send_failed(Duration::from_millis(now)),
                Step::Wait(until) => now = u64::try_from(until.as_millis()).unwrap(),
                Step::Failed(failure) => break assert!(matches!(failure, Failure::Lost)),
                Step::Send(len) => panic!("{len} bytes without a socket"),
            }
            tries += 1;
        }
        assert!((3000..4000).contains(&now), "gave up after {now} ms");
        assert!(tries > 50);

        let mut handshake = pending();
        handshake.send_failed(Duration::ZERO);
        assert!(matches!(step(&mut handshake, 100), Step::Open));
        handshake.opened();
        assert!(matches!(step(&mut handshake, 100), Step::Send(1232)));
        let event = on_datagram(&mut handshake, 107, &welcome(1232, |_| {}));
        assert!(matches!(event, Event::Completed { rtt: Some(rtt) } if rtt.as_millis() == 7));
    }

    #[test]
    fn the_handshake_fails_after_three_hellos_from_three_ports() {
        let mut handshake = Handshake::default();
        let (mut ports, mut lens, mut now) = (0, Vec::new(), 0);
        loop {
            match step(&mut handshake, now) {
                Step::Open => {
                    ports += 1;
                    handshake.opened();
                }
                Step::Send(len) => lens.push(len),
                Step::Wait(until) => now = u64::try_from(until.as_millis()).unwrap(),
                Step::Failed(failure) => break assert!(matches!(failure, Failure::Unanswered)),
            }
        }
        assert_eq!((ports, lens), (3, vec![1232; 3]));
        assert!((2000..5000).contains(&now), "gave up after {now} ms");
    }

    /// Which has received this invalid WELCOME once, and has sent another HELLO.
    fn after_invalid(datagram: &[u8]) -> Handshake {
        let mut handshake = pending();
        assert!(matches!(
            on_datagram(&mut handshake, 1, datagram),
            Event::Continue
        ));
        assert!(matches!(step(&mut handshake, 1), Step::Open));
        handshake.opened();
        assert!(matches!(step(&mut handshake, 1), Step::Send(1232)));
        handshake
    }

    #[test]
    fn a_single_invalid_welcome_does_not_end_the_handshake() {
        let invalid_welcome = welcome(1232, |welcome| welcome.max_burst = 0);
        let mut handshake = after_invalid(&invalid_welcome);
        let event = on_datagram(&mut handshake, 2, &welcome(1232, |_| {}));
        assert!(matches!(event, Event::Completed { .. }));
    }

    #[test]
    fn hellos_are_sent_until_the_given_time() {
        let mut handshake = pending();
        let mut now = Duration::ZERO;
        let (until, mut out) = (Duration::from_mins(1), [0; DATAGRAM_BYTES_MAX]);
        let mut hellos = 1;
        loop {
            match handshake.step(now, until, Duration::ZERO, &mut out, &mut || NONCE) {
                Step::Open => handshake.opened(),
                Step::Send(_) => hellos += 1,
                Step::Wait(wake) => now = wake,
                Step::Failed(failure) => break assert!(matches!(failure, Failure::Unanswered)),
            }
        }
        assert!(
            (60..71).contains(&now.as_secs()) && hellos < 15,
            "{now:?} {hellos}"
        );
    }

    #[test]
    fn values_outside_version_1_are_reported_by_name() {
        for (datagram, expected) in [
            (
                welcome(1232, |welcome| welcome.segment_bytes = 1023),
                "segment_bytes",
            ),
            (
                welcome(1232, |welcome| welcome.segment_bytes = 1441),
                "segment_bytes",
            ),
            (welcome(1232, |welcome| welcome.max_burst = 0), "max_burst"),
            (
                welcome(1232, |welcome| welcome.max_burst = 129),
                "max_burst",
            ),
            (
                welcome(1232, |welcome| welcome.lifetime_seconds = 0),
                "lifetime",
            ),
            (
                welcome(1232, |welcome| welcome.cookie = Cookie::default()),
                "cookie = 0",
            ),
        ] {
            match on_datagram(&mut after_invalid(&datagram), 1, &datagram) {
                Event::Failed(failure) => assert!(failure.to_string().contains(expected)),
                event @ (Event::Ignored | Event::Continue | Event::Completed { .. }) => {
                    panic!("{expected}: {event:?}")
                }
            }
        }
    }

    #[test]
    fn an_edge_of_another_version_is_reported_as_such() {
        let mut datagram = welcome(1232, |welcome| welcome.cookie = Cookie::default());
        datagram[1] = 2 << 4 | Kind::Welcome as u8;
        assert!(is_welcome(&datagram));
        let event = on_datagram(&mut after_invalid(&datagram), 1, &datagram);
        assert!(matches!(event, Event::Failed(Failure::Version(2))));
        datagram[8] ^= 1;
        assert!(matches!(
            on_datagram(&mut pending(), 1, &datagram),
            Event::Ignored
        ));
    }

    #[test]
    fn a_cookie_is_renewed_on_the_same_port_at_half_its_lifetime_and_used_meanwhile() {
        let mut handshake = pending();
        on_datagram(&mut handshake, 0, &welcome(1232, |_| {}));
        assert!(matches!(step(&mut handshake, 119_999), Step::Wait(at) if at.as_secs() == 120));
        assert!(matches!(step(&mut handshake, 120_000), Step::Send(1232)));
        assert!(matches!(step(&mut handshake, 120_001), Step::Wait(_)));
        assert!(matches!(step(&mut handshake, 120_500), Step::Send(1232)));
        assert!(handshake.session().is_some());
        let reset_backoff = welcome(1232, |welcome| welcome.cookie.epoch = 6);
        assert!(matches!(
            on_datagram(&mut handshake, 120_600, &reset_backoff),
            Event::Completed { rtt: None }
        ));
        assert_eq!(handshake.session().unwrap().cookie.epoch, 6);
    }

    #[test]
    fn a_dead_port_is_replaced_when_the_cookie_cannot_be_renewed() {
        let mut handshake = pending();
        on_datagram(&mut handshake, 0, &welcome(1232, |_| {}));
        let mut now = 120_000;
        while !matches!(step(&mut handshake, now), Step::Open) {
            now += 100;
            assert!(now < 130_000);
        }
        assert!(handshake.session().is_none());
    }
}
