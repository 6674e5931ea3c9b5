//! When to say HELLO, and to whom a WELCOME belongs.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use edge_ebpf::wire::{
    Cookie, DATA_HEADER_BYTES, HELLO_HEADER_BYTES, Hello, SEGMENT_BYTES_DEFAULT, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, WELCOME_HEADER_BYTES, Welcome,
};

/// As long as DATA with segments of the usual size, which every path carries, over IPv6 too.
pub const HELLO_BYTES: usize = DATA_HEADER_BYTES + SEGMENT_BYTES_DEFAULT as usize;
const WELCOME_WITHIN: Duration = Duration::from_millis(300);
/// For the first WELCOME.
const PATIENCE: Duration = Duration::from_millis(1500);
/// A lifetime that the protocol does not allow to fall below.
const LIFETIME_SECONDS_MIN: u16 = 2;

/// What an edge said of itself.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Terms {
    pub segment_bytes: u16,
    pub max_burst: u8,
}

/// The cookie of one lane: asked for at the start, and again in the middle of its life.
pub struct Greeting {
    terms: Option<Terms>,
    cookie: Cookie,
    /// Of the HELLOs that wait for an answer.
    nonce: Option<[u8; 8]>,
    /// When a HELLO is due next.
    at: Instant,
    /// When there is no more use in waiting: the cookie is dead.
    end: Instant,
}

impl Greeting {
    pub fn new(now: Instant) -> Self {
        Self {
            terms: None,
            cookie: Cookie::default(),
            nonce: None,
            at: now,
            end: now + PATIENCE,
        }
    }

    pub fn cookie(&self) -> Cookie {
        self.cookie
    }

    pub fn terms(&self) -> Option<Terms> {
        self.terms
    }

    /// When there will be something to do.
    pub fn next(&self) -> Instant {
        self.at
    }

    /// A HELLO if one is due. When nobody answers in time, this is an error.
    pub fn hello(&mut self, now: Instant) -> Result<Option<[u8; HELLO_BYTES]>> {
        if now < self.at {
            return Ok(None);
        }
        if now >= self.end {
            bail!("it does not answer HELLO; does edged run there, and is the way to it open?");
        }
        // One nonce for all HELLOs in a row: a late answer is as good as one in time.
        let nonce = *self.nonce.get_or_insert_with(rand::random);
        self.at = now + WELCOME_WITHIN;
        let mut hello = [0; HELLO_BYTES];
        hello[..HELLO_HEADER_BYTES].copy_from_slice(&Hello { nonce }.encode());
        Ok(Some(hello))
    }

    /// Takes the answer to the last HELLO, and says whether this was it.
    pub fn hear(&mut self, datagram: &[u8], now: Instant) -> Result<bool> {
        let header = datagram.first_chunk::<WELCOME_HEADER_BYTES>();
        let Some(welcome) = header.and_then(|header| Welcome::decode(header).ok()) else {
            return Ok(false);
        };
        if self.nonce != Some(welcome.nonce) {
            return Ok(false);
        }
        let terms = Terms {
            segment_bytes: welcome.segment_bytes,
            max_burst: welcome.max_burst,
        };
        if !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&terms.segment_bytes)
            || !(1..=128).contains(&terms.max_burst)
            || welcome.lifetime_seconds < LIFETIME_SECONDS_MIN
        {
            bail!("its WELCOME cannot be: {welcome:?}; the edge is broken");
        }
        if self.terms.is_some_and(|before| before != terms) {
            bail!("it cuts chunks otherwise than before: was it restarted with other settings?");
        }
        self.terms = Some(terms);
        self.cookie = welcome.cookie;
        self.nonce = None;
        let lifetime = Duration::from_secs(welcome.lifetime_seconds.into());
        self.at = now + lifetime / 2;
        self.end = now + lifetime;
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn welcome(nonce: [u8; 8], value: u8, segment_bytes: u16) -> [u8; WELCOME_HEADER_BYTES] {
        let cookie = Cookie {
            epoch: 1,
            value: [value; 8],
        };
        let welcome = Welcome {
            segment_bytes,
            max_burst: 53,
            lifetime_seconds: 120,
            nonce,
            cookie,
        };
        welcome.encode()
    }

    fn nonce_of(hello: &[u8]) -> [u8; 8] {
        let header = hello.first_chunk().expect("is longer");
        Hello::decode(header).expect("is a HELLO").nonce
    }

    /// Greeted once, with the time of it.
    fn greeted() -> (Greeting, Instant) {
        let now = edge_user::clock::now();
        let mut greeting = Greeting::new(now);
        let hello = greeting.hello(now).unwrap().expect("is due");
        assert!(
            greeting
                .hear(&welcome(nonce_of(&hello), 1, 1216), now)
                .unwrap()
        );
        (greeting, now)
    }

    #[test]
    fn a_cookie_is_renewed_in_the_middle_of_its_life() {
        let (mut greeting, now) = greeted();
        assert_eq!(greeting.cookie().value, [1; 8]);
        let almost = now + Duration::from_secs(59);
        assert!(greeting.hello(almost).unwrap().is_none());
        let half = now + Duration::from_mins(1);
        let hello = greeting.hello(half).unwrap().expect("is due");
        // The old cookie is good until the new one is there, and no other WELCOME counts.
        assert!(!greeting.hear(&welcome([9; 8], 2, 1216), half).unwrap());
        assert!(!greeting.hear(&[0; 1232], half).unwrap());
        assert_eq!(greeting.cookie().value, [1; 8]);
        let nonce = nonce_of(&hello);
        assert!(greeting.hear(&welcome(nonce, 2, 1216), half).unwrap());
        assert_eq!(greeting.cookie().value, [2; 8]);
        assert!(!greeting.hear(&welcome(nonce, 3, 1216), half).unwrap());
        assert_eq!(greeting.next(), half + Duration::from_mins(1));
    }

    #[test]
    fn hellos_that_nobody_answers_come_to_an_end() {
        let begin = edge_user::clock::now();
        let new = (Greeting::new(begin), begin, 5);
        let (greeting, begin) = greeted();
        // From half of the 120 seconds on.
        for (mut greeting, begin, most) in [new, (greeting, begin, 200)] {
            let mut hellos = 0;
            let error = loop {
                match greeting.hello(greeting.next()) {
                    Ok(hello) => hellos += u32::from(hello.is_some()),
                    Err(error) => break error.to_string(),
                }
            };
            assert!(error.contains("does not answer HELLO"), "{error}");
            assert_eq!(hellos, most);
            assert!(greeting.next() <= begin + Duration::from_mins(2));
        }
    }

    #[test]
    fn an_edge_that_changes_its_segments_is_refused() {
        let (mut greeting, now) = greeted();
        let later = now + Duration::from_mins(1);
        let hello = greeting.hello(later).unwrap().expect("is due");
        let nonce = nonce_of(&hello);
        assert!(greeting.hear(&welcome(nonce, 2, 1400), later).is_err());
        assert!(greeting.hear(&welcome(nonce, 2, 100), later).is_err());
    }
}
