//! Which clients can be reached: those whose datagrams lately got past address resolution.
//!
//! What is sent to a neighbour that does not answer stays in the send buffer for seconds. So a
//! client gets little until the kernel has reported that a datagram to it was passed on to the
//! device (docs/adr/0003). That report is there as soon as the send is done, unless the kernel has
//! to resolve an address first.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use crate::limits::{REACH_SECONDS, REACH_SETS, REACH_WAYS, UNREACHED_BYTES, UNREACHED_SECONDS};

/// What may be sent to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// All it asked for.
    Proved,
    /// One send, that the kernel reports on: a whole one, or one datagram.
    Unknown { whole: bool },
    /// Nothing: the kernel has not reported on the last one.
    Waiting,
}

/// What is known of the clients of one sender. A fixed number of them: a client that was forgotten
/// is unknown.
#[derive(Debug)]
pub struct Reached {
    sets: Box<[[Known; REACH_WAYS]]>,
    /// A keyed hash of good quality: addresses are alike, and made up by others.
    hash: RandomState,
    /// Bytes sent to clients that were not reported on. Those of before are forgotten by and by,
    /// as the kernel gives up.
    unreached_bytes: u32,
    /// When that was last brought up to date.
    now: u32,
    asked_last: u32,
}

/// One client; seconds are at least 1, and 0 is never.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    client: u128,
    proved: u32,
    asked: u32,
    asked_bytes: u32,
}

impl Known {
    fn is_proved(&self, now: u32) -> bool {
        self.proved != 0 && now.wrapping_sub(self.proved) < REACH_SECONDS
    }

    fn is_asked(&self, now: u32) -> bool {
        self.asked != 0 && now.wrapping_sub(self.asked) < REACH_SECONDS
    }
}

impl Default for Reached {
    fn default() -> Self {
        Self {
            sets: vec![[Known::default(); REACH_WAYS]; REACH_SETS].into_boxed_slice(),
            hash: RandomState::new(),
            unreached_bytes: 0,
            now: 0,
            asked_last: 0,
        }
    }
}

impl Reached {
    fn set(&mut self, client: u128) -> &mut [Known; REACH_WAYS] {
        const { assert!(REACH_SETS.is_power_of_two()) };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the lowest bits are as good"
        )]
        let place = self.hash.hash_one(client) as usize % REACH_SETS;
        &mut self.sets[place]
    }

    /// What may be sent to this client at this time.
    pub fn look(&mut self, client: IpAddr, now: u32) -> Reach {
        let number = number(client);
        let set = self.set(number);
        match set.iter().find(|known| known.client == number) {
            Some(known) if known.is_proved(now) => Reach::Proved,
            Some(known) if known.is_asked(now) => Reach::Waiting,
            _ => {
                self.pass_time(now);
                let whole = self.unreached_bytes < UNREACHED_BYTES;
                Reach::Unknown { whole }
            }
        }
    }

    /// This much is on its way to a client that was unknown.
    pub fn ask(&mut self, client: IpAddr, bytes: u32, now: u32) {
        self.pass_time(now);
        self.unreached_bytes = self.unreached_bytes.saturating_add(bytes);
        self.asked_last = now;
        let number = number(client);
        let set = self.set(number);
        let place = set
            .iter()
            .position(|known| known.client == number)
            .or_else(|| {
                // Those that were reached go last: others may be made up.
                let age = |known: &Known| (known.is_proved(now), known.proved.max(known.asked));
                (0..REACH_WAYS).min_by_key(|place| age(&set[*place]))
            });
        if let Some(place) = place {
            set[place] = Known {
                client: number,
                proved: 0,
                asked: now,
                asked_bytes: bytes,
            };
        }
    }

    /// The kernel passed on a datagram to this client.
    pub fn prove(&mut self, client: IpAddr, now: u32) {
        let number = number(client);
        let mut bytes = 0;
        if let Some(known) = self
            .set(number)
            .iter_mut()
            .find(|known| known.client == number)
        {
            known.proved = now;
            bytes = std::mem::take(&mut known.asked_bytes);
        }
        self.unreached_bytes = self.unreached_bytes.saturating_sub(bytes);
    }

    /// Whether reports are still to be expected.
    pub const fn waits(&self, now: u32) -> bool {
        self.unreached_bytes > 0 && now.wrapping_sub(self.asked_last) <= UNREACHED_SECONDS
    }

    fn pass_time(&mut self, now: u32) {
        let passed = now.wrapping_sub(self.now);
        self.now = now;
        for _ in 0..passed.min(u32::BITS) {
            self.unreached_bytes -= self.unreached_bytes.div_ceil(UNREACHED_SECONDS);
        }
    }
}

/// An address as a number that no other address has.
fn number(client: IpAddr) -> u128 {
    match client {
        IpAddr::V4(client) => client.to_ipv6_mapped().to_bits(),
        IpAddr::V6(client) => client.to_bits(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn client(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(0x0a00_0000 + number).into()
    }

    #[test]
    fn a_client_gets_one_send_until_it_was_reached_and_everything_for_a_while_after() {
        let mut reached = Reached::default();
        assert_eq!(reached.look(client(1), 1), Reach::Unknown { whole: true });
        reached.ask(client(1), 1000, 1);
        assert_eq!(reached.look(client(1), 2), Reach::Waiting);
        assert!(reached.waits(2));
        reached.prove(client(1), 2);
        assert!(!reached.waits(2));
        assert_eq!(reached.look(client(1), 3), Reach::Proved);
        assert_eq!(reached.look(client(1), 4), Reach::Unknown { whole: true });
    }

    #[test]
    fn a_silent_client_gets_a_send_every_other_second() {
        let mut reached = Reached::default();
        let sends = (1..=60).filter(|now| {
            let unknown = reached.look(client(1), *now) != Reach::Waiting;
            if unknown {
                reached.ask(client(1), 1000, *now);
            }
            unknown
        });
        assert_eq!(sends.count(), 30);
        assert!(!reached.waits(60 + UNREACHED_SECONDS + 1));
    }

    #[test]
    fn many_silent_clients_get_one_datagram_each() {
        // I9
        let mut reached = Reached::default();
        let mut sent = 0;
        for number in 0..3000 {
            let now = 1 + number / 1000;
            if let Reach::Unknown { whole } = reached.look(client(number), now) {
                let bytes = if whole { 65_507 } else { 1232 };
                reached.ask(client(number), bytes, now);
                sent += bytes;
            }
        }
        assert!(sent < UNREACHED_BYTES + 65_507 + 3000 * 1232, "{sent}");
    }

    #[test]
    fn addresses_that_are_alike_are_spread_over_the_sets() {
        // By chance about 6 of all find their set full.
        let mut displaced = 0;
        for shift in (0..100).step_by(4).cycle().take(200) {
            let mut reached = Reached::default();
            let mut members = std::collections::HashMap::new();
            for number in 0..600 {
                let set: *const _ = reached.set(number << shift);
                let members = members.entry(set).or_insert(0);
                *members += 1;
                displaced += u32::from(*members > REACH_WAYS);
            }
        }
        assert!(displaced < 60, "{displaced} clients displace others");
    }

    #[test]
    fn made_up_clients_do_not_displace_those_that_were_reached() {
        let mut reached = Reached::default();
        reached.ask(client(0), 1000, 1);
        reached.prove(client(0), 1);
        for number in 1..=1_000_000 {
            reached.ask(client(number), 1, 1);
        }
        assert_eq!(reached.look(client(0), 1), Reach::Proved);
    }
}
