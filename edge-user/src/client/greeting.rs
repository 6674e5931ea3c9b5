//! HELLO and WELCOME: proves that the path carries full datagrams both ways, and keeps a cookie
//! that the edge accepts. Pure: time, randomness and datagrams come in as values.

use std::time::Duration;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{
    Cookie, HELLO_BYTES_MAX, HELLO_BYTES_MIN, HELLO_HEADER_BYTES, Hello, Kind, MAGIC,
    SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_MAX,
    WELCOME_HEADER_BYTES, Welcome,
};

use super::failure::{Failure, Strange};

/// Longest datagram either side ever sends.
pub const DATAGRAM_BYTES_MAX: usize = HELLO_BYTES_MAX;
/// The first HELLO carries as much as a full DATA datagram of the default size.
pub const HELLO_BYTES_DEFAULT: usize = HELLO_HEADER_BYTES + SEGMENT_BYTES_DEFAULT as usize;
/// HELLOs sent in vain before the edge counts as dead.
const TRIES: u8 = 3;
const WAIT_FIRST: Duration = Duration::from_millis(500);
/// Waits double up to this where an edge that was there is waited for: a queue may be as long.
const WAIT_MAX: Duration = Duration::from_secs(10);
/// What the network refuses costs no round trip, so it is tried again sooner than what it lost.
const BLOCKED_WAIT: Duration = Duration::from_millis(100);
/// For as long as three HELLOs are waited for in vain.
const BLOCKED_PATIENCE: Duration = Duration::from_millis(3500);

/// What to do next about the greeting.
#[derive(Debug)]
pub enum Step {
    /// Take a socket on a new port, then ask again.
    Open,
    /// Send the HELLO that was written.
    Send(usize),
    /// Nothing before this moment. A cookie may be at hand all the while.
    Wait(Duration),
    Failed(Failure),
}

/// What a datagram meant to the greeting.
#[derive(Debug)]
pub enum Heard {
    /// Nothing: it is not the answer to our HELLO.
    Nothing,
    /// Another HELLO has to go out before the edge can be asked for anything.
    More,
    /// There is a new cookie. The time is a round trip, if one could be measured.
    Welcome {
        rtt: Option<Duration>,
    },
    Failed(Failure),
}

/// What the edge said, while it holds.
#[derive(Clone, Copy, Debug)]
pub struct Session {
    pub segment_bytes: u16,
    pub max_burst: u8,
    pub cookie: Cookie,
    renew_at: Duration,
}

#[derive(Debug)]
struct Asking {
    nonce: [u8; 8],
    len_bytes: usize,
    sent_at: Duration,
    /// Whether this nonce went out more than once, so that its answer measures nothing.
    again: bool,
}

/// The network of this host lets nothing out.
#[derive(Clone, Copy, Debug)]
struct Blocked {
    since: Duration,
    retry_at: Duration,
}

#[derive(Debug)]
pub struct Greeting {
    open: bool,
    asking: Option<Asking>,
    session: Option<Session>,
    unanswered: u8,
    blocked: Option<Blocked>,
    /// The length a HELLO must have had before the edge is asked for data.
    len_bytes: usize,
    /// The longest HELLO that was ever answered, if any was.
    proved_bytes: usize,
    /// What last came instead of a WELCOME; explains a failure, and nothing else.
    strange: Option<Strange>,
    /// A WELCOME to a HELLO of ours was impossible. One datagram may be damaged, so that is
    /// believed when the next one is too.
    impossible: bool,
}

impl Default for Greeting {
    fn default() -> Self {
        Self {
            open: false,
            asking: None,
            session: None,
            unanswered: 0,
            blocked: None,
            len_bytes: HELLO_BYTES_DEFAULT,
            proved_bytes: 0,
            strange: None,
            impossible: false,
        }
    }
}

impl Greeting {
    /// The session, unless the edge has to be greeted first.
    pub fn session(&self) -> Option<&Session> {
        self.session.as_ref()
    }

    /// The cookie is of no use any more: greet again, on the same port.
    pub fn renew(&mut self) {
        if self.session.take().is_some() {
            self.asking = None;
            self.unanswered = 0;
        }
    }

    /// The edge seems to have changed: greet it now, while the cookie still serves.
    pub fn refresh(&mut self, now: Duration) {
        if let Some(session) = &mut self.session {
            session.renew_at = session.renew_at.min(now);
        }
    }

    /// Start again on a new port.
    pub fn reopen(&mut self) {
        *self = Self {
            len_bytes: self.len_bytes,
            proved_bytes: self.proved_bytes,
            strange: self.strange,
            impossible: self.impossible,
            ..Self::default()
        };
    }

    /// The socket on a new port is there.
    pub fn opened(&mut self) {
        self.open = true;
    }

    /// The network refused the new socket, or what was to be sent. A HELLO is tried again from
    /// another port; with a session at hand it is as good as lost on the way.
    pub fn unsent(&mut self, now: Duration) {
        if self.session.is_some() {
            return;
        }
        self.blocked = Some(Blocked {
            since: self.blocked.map_or(now, |blocked| blocked.since),
            retry_at: now + BLOCKED_WAIT,
        });
        self.open = false;
        self.asking = None;
    }

    /// What to do now; a HELLO is written to `out` with a nonce from `random`.
    ///
    /// Gives up after three tries, and not before the moment `until`. While there is a cookie, an
    /// answer is waited for at least as long as the path was `measured` to take.
    pub fn step(
        &mut self,
        now: Duration,
        until: Duration,
        measured: Duration,
        out: &mut [u8; DATAGRAM_BYTES_MAX],
        random: &mut dyn FnMut() -> [u8; 8],
    ) -> Step {
        if self.asking.is_some() {
            self.blocked = None;
        }
        if let Some(blocked) = self.blocked {
            if now < blocked.retry_at {
                return Step::Wait(blocked.retry_at);
            }
            if now >= until.max(blocked.since + BLOCKED_PATIENCE) {
                // Whoever refused it says more; no path is too narrow, and nobody strange answers.
                return Step::Failed(match self.proved_bytes {
                    0 => Failure::Unanswered,
                    _ => Failure::Gone,
                });
            }
        }
        if !self.open {
            return Step::Open;
        }
        if let Some(session) = &self.session
            && self.asking.is_none()
            && now < session.renew_at
        {
            return Step::Wait(session.renew_at);
        }
        let first = if self.session.is_some() {
            WAIT_FIRST.max(measured)
        } else {
            WAIT_FIRST
        };
        let wait = (first * (1 << self.unanswered.min(5))).min(WAIT_MAX);
        let (nonce, again) = match &self.asking {
            Some(asking) if now < asking.sent_at + wait => {
                return Step::Wait(asking.sent_at + wait);
            }
            Some(asking) => {
                let nonce = asking.nonce;
                self.unanswered = self.unanswered.saturating_add(1);
                if self.unanswered >= TRIES && (self.session.is_some() || now >= until) {
                    return self.give_up();
                }
                if self.session.is_none() {
                    // Where several paths are chosen by port, another port is another path.
                    self.open = false;
                    self.asking = None;
                    return Step::Open;
                }
                (nonce, true)
            }
            None => (random(), false),
        };
        let len_bytes = self.len_bytes;
        out.fill(0);
        out[..HELLO_HEADER_BYTES].copy_from_slice(&Hello { nonce }.encode());
        self.asking = Some(Asking {
            nonce,
            len_bytes,
            sent_at: now,
            again,
        });
        Step::Send(len_bytes)
    }

    fn give_up(&mut self) -> Step {
        if self.session.is_some() {
            // A cookie was to be renewed and this port has gone dead: greet as at the start.
            self.reopen();
            return Step::Open;
        }
        Step::Failed(self.failure())
    }

    /// Why nobody can be greeted.
    pub fn failure(&self) -> Failure {
        match (self.proved_bytes, self.strange) {
            (0, None) => Failure::Unanswered,
            (0, Some(strange)) => Failure::Strange(strange),
            (proved, _) if proved < self.len_bytes => Failure::PathTooNarrow(self.len_bytes),
            (_, _) => Failure::Gone,
        }
    }

    /// Takes in a datagram that is no answer to a GET: a WELCOME, of whatever version, or what
    /// comes instead.
    pub fn hear(&mut self, now: Duration, datagram: &[u8]) -> Heard {
        let Some(asking) = &self.asking else {
            return Heard::Nothing;
        };
        let (sent_at, sent) = (asking.sent_at, asking.len_bytes);
        let came = datagram.len();
        let Some(header) = datagram
            .first_chunk::<WELCOME_HEADER_BYTES>()
            .filter(|_| is_welcome(datagram))
        else {
            return self.ignore(Strange::NotWelcome { bytes: came });
        };
        if came != sent {
            return self.ignore(Strange::OtherLength { sent, came });
        }
        let welcome = match Welcome::decode(header) {
            Ok(welcome) => welcome,
            Err(Reason::BadVersion) if header[8..16] == asking.nonce => {
                return self.doubt(Failure::Version(header[1] >> 4));
            }
            Err(_) => return self.ignore(Strange::Malformed),
        };
        if welcome.nonce != asking.nonce {
            return self.ignore(Strange::OtherNonce);
        }
        if let Err(failure) = check(&welcome) {
            return self.doubt(failure);
        }
        self.impossible = false;
        let rtt = (!asking.again).then(|| now.saturating_sub(sent_at));
        self.asking = None;
        self.unanswered = 0;
        self.proved_bytes = self.proved_bytes.max(sent);
        let full = HELLO_HEADER_BYTES + usize::from(welcome.segment_bytes);
        self.len_bytes = full.max(HELLO_BYTES_MIN);
        if full > sent {
            self.session = None;
            return Heard::More;
        }
        self.session = Some(Session {
            segment_bytes: welcome.segment_bytes,
            max_burst: welcome.max_burst,
            cookie: welcome.cookie,
            renew_at: now + Duration::from_secs(u64::from(welcome.lifetime_seconds)) / 2,
        });
        Heard::Welcome { rtt }
    }

    /// An impossible WELCOME is asked for once more, from another port.
    fn doubt(&mut self, failure: Failure) -> Heard {
        if self.impossible {
            return Heard::Failed(failure);
        }
        self.reopen();
        self.impossible = true;
        Heard::More
    }

    fn ignore(&mut self, strange: Strange) -> Heard {
        self.strange = Some(strange);
        Heard::Nothing
    }
}

/// Whether a datagram is a WELCOME, of whatever version.
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
        // What an edge gives to a version it does not know, under our version.
        return bad("cookie", 0, "any other");
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

    fn step(greeting: &mut Greeting, now_ms: u64) -> Step {
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let (now, none) = (Duration::from_millis(now_ms), Duration::ZERO);
        greeting.step(now, none, none, &mut out, &mut || NONCE)
    }

    fn hear(greeting: &mut Greeting, now_ms: u64, datagram: &[u8]) -> Heard {
        greeting.hear(Duration::from_millis(now_ms), datagram)
    }

    /// A greeting whose first HELLO is on its way.
    fn asking() -> Greeting {
        let mut greeting = Greeting::default();
        assert!(matches!(step(&mut greeting, 0), Step::Open));
        greeting.opened();
        assert!(matches!(
            step(&mut greeting, 0),
            Step::Send(HELLO_BYTES_DEFAULT)
        ));
        greeting
    }

    #[test]
    fn one_exchange_gives_a_session_and_a_round_trip() {
        let mut greeting = asking();
        assert!(greeting.session().is_none());
        let heard = hear(&mut greeting, 7, &welcome(1232, |_| {}));
        assert!(matches!(heard, Heard::Welcome { rtt: Some(rtt) } if rtt.as_millis() == 7));
        let session = greeting.session().unwrap();
        assert_eq!((session.segment_bytes, session.cookie), (1216, COOKIE));
    }

    #[test]
    fn answers_to_other_nonces_or_of_other_lengths_are_ignored() {
        let mut greeting = asking();
        for wrong in [
            welcome(1232, |welcome| welcome.nonce = *b"another!"),
            welcome(1231, |_| {}),
            welcome(1233, |_| {}),
            welcome(1232, |_| {})[..20].to_vec(),
        ] {
            assert!(matches!(hear(&mut greeting, 1, &wrong), Heard::Nothing));
        }
        assert!(greeting.session().is_none());
    }

    #[test]
    fn a_larger_segment_is_proved_by_a_larger_hello_before_any_get() {
        let mut greeting = asking();
        let larger = |len| welcome(len, |welcome| welcome.segment_bytes = 1400);
        assert!(matches!(hear(&mut greeting, 1, &larger(1232)), Heard::More));
        assert!(greeting.session().is_none());
        assert!(matches!(step(&mut greeting, 1), Step::Send(1416)));
        assert!(matches!(
            hear(&mut greeting, 2, &larger(1416)),
            Heard::Welcome { .. }
        ));
        assert_eq!(greeting.session().unwrap().segment_bytes, 1400);
    }

    #[test]
    fn a_path_too_narrow_for_the_larger_hello_is_named() {
        let mut greeting = asking();
        let larger = welcome(1232, |welcome| welcome.segment_bytes = 1400);
        assert!(matches!(hear(&mut greeting, 1, &larger), Heard::More));
        let mut now = 1;
        loop {
            now += 100;
            match step(&mut greeting, now) {
                Step::Open => greeting.opened(),
                Step::Send(len) => assert_eq!(len, 1416),
                Step::Wait(_) => {}
                Step::Failed(Failure::PathTooNarrow(1416)) => break,
                Step::Failed(other) => panic!("{other}"),
            }
        }
    }

    #[test]
    fn a_network_that_lets_nothing_out_is_asked_again_soon_and_blamed_in_the_end() {
        let mut greeting = asking();
        let larger = welcome(1232, |welcome| welcome.segment_bytes = 1400);
        assert!(matches!(hear(&mut greeting, 0, &larger), Heard::More));
        let (mut tries, mut now) = (0, 0);
        loop {
            match step(&mut greeting, now) {
                // First the datagram is refused, then each new socket.
                Step::Send(1416) if tries == 0 => greeting.unsent(Duration::ZERO),
                Step::Open => greeting.unsent(Duration::from_millis(now)),
                Step::Wait(until) => now = u64::try_from(until.as_millis()).unwrap(),
                Step::Failed(failure) => break assert!(matches!(failure, Failure::Gone)),
                Step::Send(len) => panic!("{len} bytes without a socket"),
            }
            tries += 1;
        }
        assert!((3000..4000).contains(&now), "gave up after {now} ms");
        assert!(tries > 50);

        let mut greeting = asking();
        greeting.unsent(Duration::ZERO);
        assert!(matches!(step(&mut greeting, 100), Step::Open));
        greeting.opened();
        assert!(matches!(step(&mut greeting, 100), Step::Send(1232)));
        let heard = hear(&mut greeting, 107, &welcome(1232, |_| {}));
        assert!(matches!(heard, Heard::Welcome { rtt: Some(rtt) } if rtt.as_millis() == 7));
    }

    #[test]
    fn three_hellos_go_out_from_three_ports_and_then_it_fails() {
        let mut greeting = Greeting::default();
        let (mut ports, mut lens, mut now) = (0, Vec::new(), 0);
        loop {
            match step(&mut greeting, now) {
                Step::Open => {
                    ports += 1;
                    greeting.opened();
                }
                Step::Send(len) => lens.push(len),
                Step::Wait(until) => now = u64::try_from(until.as_millis()).unwrap(),
                Step::Failed(failure) => break assert!(matches!(failure, Failure::Unanswered)),
            }
        }
        assert_eq!((ports, lens), (3, vec![1232; 3]));
        assert!((2000..5000).contains(&now), "gave up after {now} ms");
    }

    /// A greeting whose last WELCOME was impossible, as this one: that is asked for once more.
    fn doubting(datagram: &[u8]) -> Greeting {
        let mut greeting = asking();
        assert!(matches!(hear(&mut greeting, 1, datagram), Heard::More));
        assert!(matches!(step(&mut greeting, 1), Step::Open));
        greeting.opened();
        assert!(matches!(step(&mut greeting, 1), Step::Send(1232)));
        greeting
    }

    #[test]
    fn one_impossible_welcome_is_no_reason_to_give_up() {
        let impossible = welcome(1232, |welcome| welcome.max_burst = 0);
        let mut greeting = doubting(&impossible);
        let heard = hear(&mut greeting, 2, &welcome(1232, |_| {}));
        assert!(matches!(heard, Heard::Welcome { .. }));
    }

    #[test]
    fn an_edge_that_was_there_is_greeted_until_the_moment_that_was_set() {
        let mut greeting = asking();
        let mut now = Duration::ZERO;
        let (until, mut out) = (Duration::from_mins(1), [0; DATAGRAM_BYTES_MAX]);
        let mut hellos = 1;
        loop {
            match greeting.step(now, until, Duration::ZERO, &mut out, &mut || NONCE) {
                Step::Open => greeting.opened(),
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
    fn values_outside_version_1_are_refused_by_name() {
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
            match hear(&mut doubting(&datagram), 1, &datagram) {
                Heard::Failed(failure) => assert!(failure.to_string().contains(expected)),
                heard @ (Heard::Nothing | Heard::More | Heard::Welcome { .. }) => {
                    panic!("{expected}: {heard:?}")
                }
            }
        }
    }

    #[test]
    fn an_edge_of_another_version_is_told_from_a_dead_path() {
        let mut datagram = welcome(1232, |welcome| welcome.cookie = Cookie::default());
        datagram[1] = 2 << 4 | Kind::Welcome as u8;
        assert!(is_welcome(&datagram));
        let heard = hear(&mut doubting(&datagram), 1, &datagram);
        assert!(matches!(heard, Heard::Failed(Failure::Version(2))));
        datagram[8] ^= 1;
        assert!(matches!(hear(&mut asking(), 1, &datagram), Heard::Nothing));
    }

    #[test]
    fn a_cookie_is_renewed_on_the_same_port_at_half_its_life_and_serves_meanwhile() {
        let mut greeting = asking();
        hear(&mut greeting, 0, &welcome(1232, |_| {}));
        assert!(matches!(step(&mut greeting, 119_999), Step::Wait(at) if at.as_secs() == 120));
        assert!(matches!(step(&mut greeting, 120_000), Step::Send(1232)));
        assert!(matches!(step(&mut greeting, 120_001), Step::Wait(_)));
        assert!(matches!(step(&mut greeting, 120_500), Step::Send(1232)));
        assert!(greeting.session().is_some());
        let fresh = welcome(1232, |welcome| welcome.cookie.epoch = 6);
        assert!(matches!(
            hear(&mut greeting, 120_600, &fresh),
            Heard::Welcome { rtt: None }
        ));
        assert_eq!(greeting.session().unwrap().cookie.epoch, 6);
    }

    #[test]
    fn a_port_that_went_dead_is_left_when_the_cookie_cannot_be_renewed() {
        let mut greeting = asking();
        hear(&mut greeting, 0, &welcome(1232, |_| {}));
        let mut now = 120_000;
        while !matches!(step(&mut greeting, now), Step::Open) {
            now += 100;
            assert!(now < 130_000);
        }
        assert!(greeting.session().is_none());
    }
}
