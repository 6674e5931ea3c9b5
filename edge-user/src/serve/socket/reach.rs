//! Which clients can be reached: those whose recent datagrams passed address resolution.
//!
//! Datagrams to a neighbour that does not answer stay in the send buffer for seconds. So a client
//! gets little until the kernel has reported that a datagram to it was passed to the device
//! (docs/adr/0003). The report is available as soon as the send completes, unless the kernel has to
//! resolve an address first.

use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;

use crate::limits::{REACH_SECONDS, REACH_SETS, REACH_WAYS, UNREACHED_BYTES, UNREACHED_SECONDS};

/// What may be sent to a client.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reach {
    /// Everything.
    Proved,
    /// One send that the kernel reports on: a whole one, or a single datagram.
    Unknown { whole: bool },
    /// Nothing: the report on the last send is missing.
    Waiting,
}

/// The clients of one sender, in a table of fixed size: an evicted client is unknown again.
#[derive(Debug)]
pub struct Reached {
    sets: Box<[[Known; REACH_WAYS]]>,
    /// Keyed and strong, because addresses are similar and can be forged.
    hash: RandomState,
    /// Bytes sent to clients without a report. Decays as the kernel drops what it cannot deliver.
    unreached_bytes: u32,
    /// When `unreached_bytes` was last decayed.
    now: u32,
    last_probe: u32,
}

/// One client. Times are in seconds; 0 means never.
#[derive(Clone, Copy, Default, Debug)]
struct Known {
    client: u128,
    proved: u32,
    probed: u32,
    probed_bytes: u32,
}

impl Known {
    fn is_proved(&self, now: u32) -> bool {
        self.proved != 0 && now.wrapping_sub(self.proved) < REACH_SECONDS
    }

    fn is_probed(&self, now: u32) -> bool {
        self.probed != 0 && now.wrapping_sub(self.probed) < REACH_SECONDS
    }
}

impl Default for Reached {
    fn default() -> Self {
        Self {
            sets: vec![[Known::default(); REACH_WAYS]; REACH_SETS].into_boxed_slice(),
            hash: RandomState::new(),
            unreached_bytes: 0,
            now: 0,
            last_probe: 0,
        }
    }
}

impl Reached {
    fn set(&mut self, client: u128) -> &mut [Known; REACH_WAYS] {
        const { assert!(REACH_SETS.is_power_of_two()) };
        #[expect(
            clippy::cast_possible_truncation,
            reason = "only the lowest bits are used"
        )]
        let place = self.hash.hash_one(client) as usize % REACH_SETS;
        &mut self.sets[place]
    }

    /// What may be sent to this client now.
    pub fn look(&mut self, client: IpAddr, now: u32) -> Reach {
        let number = number(client);
        let set = self.set(number);
        match set.iter().find(|known| known.client == number) {
            Some(known) if known.is_proved(now) => Reach::Proved,
            Some(known) if known.is_probed(now) => Reach::Waiting,
            _ => {
                self.decay(now);
                let whole = self.unreached_bytes < UNREACHED_BYTES;
                Reach::Unknown { whole }
            }
        }
    }

    /// Records a send to an unknown client.
    pub fn ask(&mut self, client: IpAddr, bytes: u32, now: u32) {
        self.decay(now);
        self.unreached_bytes = self.unreached_bytes.saturating_add(bytes);
        self.last_probe = now;
        let number = number(client);
        let set = self.set(number);
        let place = set
            .iter()
            .position(|known| known.client == number)
            .or_else(|| {
                // Reached clients are evicted last: the others may be forged.
                let age = |known: &Known| (known.is_proved(now), known.proved.max(known.probed));
                (0..REACH_WAYS).min_by_key(|place| age(&set[*place]))
            });
        if let Some(place) = place {
            set[place] = Known {
                client: number,
                proved: 0,
                probed: now,
                probed_bytes: bytes,
            };
        }
    }

    /// Records that the kernel passed a datagram to this client on to the device.
    pub fn prove(&mut self, client: IpAddr, now: u32) {
        let number = number(client);
        let mut bytes = 0;
        if let Some(known) = self
            .set(number)
            .iter_mut()
            .find(|known| known.client == number)
        {
            known.proved = now;
            bytes = std::mem::take(&mut known.probed_bytes);
        }
        self.unreached_bytes = self.unreached_bytes.saturating_sub(bytes);
    }

    /// Whether reports are still outstanding.
    pub const fn waits(&self, now: u32) -> bool {
        self.unreached_bytes > 0 && now.wrapping_sub(self.last_probe) <= UNREACHED_SECONDS
    }

    fn decay(&mut self, now: u32) {
        let passed = now.wrapping_sub(self.now);
        self.now = now;
        for _ in 0..passed.min(u32::BITS) {
            self.unreached_bytes -= self.unreached_bytes.div_ceil(UNREACHED_SECONDS);
        }
    }
}

/// IPv4 addresses map to their IPv4-mapped IPv6 form.
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
