//! Request sources, identified by address, and what each one holds.
//!
//! A source may use a share of the free entries of a table, so no source fills it and new sources
//! find room. No source evicts the entries of another.
#![deny(clippy::indexing_slicing)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::net::{IpAddr, SocketAddr};
use std::time::Instant;

use edge_ebpf::wire::ChunkId;
use hashbrown::HashMap;

use crate::limits::{SOURCE_FETCH_EVERY, SOURCE_FETCHES, SOURCES};

/// An IPv4 address or an IPv6 /56, a common allocation for one customer.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    V4([u8; 4]),
    V6([u8; 7]),
}

impl Source {
    pub fn of(client: &SocketAddr) -> Self {
        match client.ip() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [prefix @ .., _, _, _, _, _, _, _, _, _] = ip.octets();
                Self::V6(prefix)
            }
        }
    }
}

/// The owner of an account; all sources beyond the limit share the account of `None`.
pub(super) type Owner = Option<Source>;

/// What a source holds.
#[derive(Debug, Default)]
pub(super) struct Account {
    pub(super) flights: usize,
    pub(super) waiters: usize,
    /// Remembered failures, oldest first. May contain an id more than once.
    pub(super) negatives: VecDeque<(ChunkId, Instant)>,
    /// The theoretical arrival time of the rate limiter (GCRA).
    paid_until: Option<Instant>,
}

impl Account {
    /// Counts one more fetch; false if the rate limit forbids it.
    pub(super) fn pay(&mut self, now: Instant) -> bool {
        let from = self.paid_until.map_or(now, |until| until.max(now));
        if from.saturating_duration_since(now) > SOURCE_FETCH_EVERY * (SOURCE_FETCHES - 1) {
            return false;
        }
        self.paid_until = Some(from + SOURCE_FETCH_EVERY);
        true
    }

    /// Whether it equals a new account.
    fn is_idle(&self, now: Instant) -> bool {
        self.flights == 0
            && self.waiters == 0
            && self.negatives.is_empty()
            && self.paid_until.is_none_or(|until| until <= now)
    }
}

#[derive(Debug, Default)]
pub(super) struct Accounts(HashMap<Owner, Account>);

impl Accounts {
    /// The owner of the account that a client is charged to.
    pub(super) fn owner(&self, client: &SocketAddr) -> Owner {
        let source = Some(Source::of(client));
        if self.0.len() < SOURCES || self.0.contains_key(&source) {
            source
        } else {
            None
        }
    }

    pub(super) fn of(&mut self, owner: Owner) -> &mut Account {
        self.0.entry(owner).or_default()
    }

    pub(super) fn all(&mut self) -> impl Iterator<Item = &mut Account> {
        self.0.values_mut()
    }

    pub(super) fn forget_idle(&mut self, now: Instant) {
        self.0.retain(|_, account| !account.is_idle(now));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    fn client(number: u32) -> SocketAddr {
        (number.to_be_bytes(), 1).into()
    }

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_56() {
        let source = |ip: &str| Source::of(&SocketAddr::new(ip.parse().unwrap(), 1));
        assert_eq!(source("192.0.2.7"), Source::V4([192, 0, 2, 7]));
        assert_ne!(source("192.0.2.7"), source("192.0.2.8"));
        assert_eq!(source("2001:db8:1:23ff::1"), source("2001:db8:1:2300::2"));
        assert_ne!(source("2001:db8:1:2300::1"), source("2001:db8:1:2400::1"));
    }

    #[test]
    fn a_source_starts_a_burst_of_fetches_and_then_a_bounded_rate() {
        let mut account = Account::default();
        let now = clock::now();
        let begun = |account: &mut Account, now| (0..10_000).filter(|_| account.pay(now)).count();
        assert_eq!(begun(&mut account, now), SOURCE_FETCHES as usize);
        assert_eq!(begun(&mut account, now + 512 * SOURCE_FETCH_EVERY), 512);
        let rested = now + (512 + SOURCE_FETCHES) * SOURCE_FETCH_EVERY;
        assert!(account.is_idle(rested));
        assert_eq!(begun(&mut account, rested), SOURCE_FETCHES as usize);
    }

    #[test]
    fn sources_beyond_the_limit_share_one_account_and_none_loses_its_own() {
        // I9
        let mut accounts = Accounts::default();
        let now = clock::now();
        for number in 0..100_000 {
            let owner = accounts.owner(&client(number));
            accounts.of(owner).pay(now);
        }
        assert_eq!(accounts.0.len(), SOURCES + 1);
        assert_eq!(accounts.owner(&client(0)), Some(Source::of(&client(0))));
        assert_eq!(accounts.owner(&client(99_999)), None);
        accounts.forget_idle(now);
        assert_eq!(accounts.0.len(), SOURCES + 1);
        accounts.forget_idle(now + SOURCE_FETCHES * SOURCE_FETCH_EVERY);
        assert!(accounts.0.is_empty());
    }
}
