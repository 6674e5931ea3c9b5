//! At most one fetch for each chunk (I8), and its waiters. Reads no clock.
#![deny(clippy::indexing_slicing)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use edge_ebpf::wire::ChunkId;
use hashbrown::HashMap;

use super::source::{Accounts, Owner};
use crate::limits::{
    FLIGHT_SHARES, FLIGHTS, NEGATIVES, WAITER_DEADLINE, WAITERS, WAITERS_PER_FLIGHT,
};

/// The outcome of a request for a chunk that is not resident.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It waits for a fetch in progress.
    Joined,
    /// It waits, and the caller must start the fetch.
    Start,
    /// The negative cache has the chunk.
    Negative(Failure),
    /// A table is full.
    Full,
    /// Its source has used its share.
    Share,
}

/// Why a chunk could not be fetched.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No origin has it.
    Absent,
    /// An origin could not be read, or returned wrong bytes.
    Unreachable,
}

/// A request that can wait for its chunk. Each front has its own type.
pub trait Waiter {
    fn chunk(&self) -> ChunkId;
    fn client(&self) -> SocketAddr;
    /// Whether it replaces another request for the same chunk.
    fn replaces(&self, other: &Self) -> bool;
}

#[derive(Debug)]
struct Waiting<W> {
    request: W,
    deadline: Instant,
    owner: Owner,
}

#[derive(Debug)]
struct Flight<W> {
    /// The owner of the request that started it.
    owner: Owner,
    waiters: Vec<Waiting<W>>,
}

/// The flight table and the negative cache.
#[derive(Debug)]
pub struct Flights<W> {
    in_progress: HashMap<ChunkId, Flight<W>>,
    /// Total over all flights.
    waiters: usize,
    negatives: HashMap<ChunkId, (Failure, Instant)>,
    /// Total over all accounts, which keep the order.
    remembered: usize,
    accounts: Accounts,
}

impl<W> Default for Flights<W> {
    fn default() -> Self {
        Self {
            in_progress: HashMap::new(),
            waiters: 0,
            negatives: HashMap::new(),
            remembered: 0,
            accounts: Accounts::default(),
        }
    }
}

impl<W: Waiter> Flights<W> {
    pub fn request(&mut self, request: W, now: Instant) -> Outcome {
        let id = request.chunk();
        if let Some((failure, until)) = self.negatives.get(&id)
            && now < *until
        {
            return Outcome::Negative(*failure);
        }
        let owner = self.accounts.owner(&request.client());
        let account = self.accounts.of(owner);
        let free_waiters = WAITERS.saturating_sub(self.waiters);
        let mut waiter = Waiting {
            request,
            deadline: now + WAITER_DEADLINE,
            owner,
        };
        if let Some(Flight { waiters, .. }) = self.in_progress.get_mut(&id) {
            if let Some(same) = waiters
                .iter_mut()
                .find(|old| waiter.request.replaces(&old.request))
            {
                waiter.owner = same.owner;
                *same = waiter;
                return Outcome::Joined;
            }
            let free_here = WAITERS_PER_FLIGHT.saturating_sub(waiters.len());
            if free_waiters == 0 || free_here == 0 {
                return Outcome::Full;
            }
            let own_here = waiters.iter().filter(|other| other.owner == owner).count();
            if account.waiters >= free_waiters || own_here >= free_here {
                return Outcome::Share;
            }
            waiters.push(waiter);
        } else {
            let free = FLIGHTS.saturating_sub(self.in_progress.len());
            if free_waiters == 0 || free == 0 {
                return Outcome::Full;
            }
            let share = (free / FLIGHT_SHARES).max(1);
            if account.waiters >= free_waiters || account.flights >= share || !account.pay(now) {
                return Outcome::Share;
            }
            account.flights += 1;
            let waiters = vec![waiter];
            self.in_progress.insert(id, Flight { owner, waiters });
            account.waiters += 1;
            self.waiters += 1;
            return Outcome::Start;
        }
        account.waiters += 1;
        self.waiters += 1;
        Outcome::Joined
    }

    /// Ends a flight and returns its waiters.
    pub fn complete(&mut self, id: &ChunkId) -> Vec<W> {
        let Some(Flight { owner, waiters }) = self.in_progress.remove(id) else {
            return Vec::new();
        };
        self.accounts.of(owner).flights -= 1;
        self.waiters -= waiters.len();
        for waiter in &waiters {
            self.accounts.of(waiter.owner).waiters -= 1;
        }
        waiters.into_iter().map(|waiter| waiter.request).collect()
    }

    /// Like `complete`, and enters the chunk into the negative cache.
    pub fn fail(&mut self, id: &ChunkId, failure: Failure, now: Instant, time: Duration) -> Vec<W> {
        if let Some(flight) = self.in_progress.get(id) {
            self.remember(flight.owner, *id, failure, now + time);
        }
        self.complete(id)
    }

    /// When space runs short, an owner's new entry evicts its own oldest entry.
    fn remember(&mut self, owner: Owner, id: ChunkId, failure: Failure, until: Instant) {
        let account = self.accounts.of(owner);
        if account.negatives.len() >= NEGATIVES.saturating_sub(self.remembered) {
            let Some(oldest) = account.negatives.pop_front() else {
                return;
            };
            self.remembered -= 1;
            forget(&mut self.negatives, oldest);
        }
        account.negatives.push_back((id, until));
        self.remembered += 1;
        self.negatives.insert(id, (failure, until));
    }

    /// Drops expired waiters and failures; returns the number of waiters dropped. A flight
    /// continues without waiters, since its chunk is likely to be requested again.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.waiters;
        for flight in self.in_progress.values_mut() {
            flight.waiters.retain(|waiter| {
                let stays = now < waiter.deadline;
                if !stays {
                    self.accounts.of(waiter.owner).waiters -= 1;
                    self.waiters -= 1;
                }
                stays
            });
        }
        for account in self.accounts.all() {
            while let Some(oldest) = account.negatives.pop_front_if(|(_, until)| *until <= now) {
                self.remembered -= 1;
                forget(&mut self.negatives, oldest);
            }
        }
        self.accounts.forget_idle(now);
        before - self.waiters
    }

    pub fn in_flight(&self) -> usize {
        self.in_progress.len()
    }
}

/// Unless the id has been remembered again since.
fn forget(negatives: &mut HashMap<ChunkId, (Failure, Instant)>, (id, until): (ChunkId, Instant)) {
    if (negatives.get(&id)).is_some_and(|(_, latest)| *latest <= until) {
        negatives.remove(&id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::limits::{SOURCE_FETCH_EVERY, SOURCE_FETCHES};
    use crate::serve::Request;
    use crate::serve::peer::Peer;
    use edge_ebpf::wire::{Cookie, Get};
    use std::ops::Range;

    fn request(chunk: u32, client: u32, want: u128) -> Request {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&chunk.to_be_bytes());
        let client = SocketAddr::from((client.to_be_bytes(), 4000));
        let get = Get {
            cookie: Cookie::default(),
            id: ChunkId(id),
            want,
        };
        Request {
            peer: Peer { socket: 0, client },
            get,
        }
    }

    #[test]
    fn a_chunk_is_fetched_once_for_all_clients() {
        // I8
        let mut flights = Flights::default();
        let now = clock::now();
        assert_eq!(flights.request(request(1, 1, 1), now), Outcome::Start);
        for client in 2..9 {
            assert_eq!(flights.request(request(1, client, 1), now), Outcome::Joined);
        }
        assert_eq!(flights.request(request(2, 1, 1), now), Outcome::Start);
        assert_eq!(flights.in_flight(), 2);
        assert_eq!(flights.complete(&request(1, 1, 1).get.id).len(), 8);
        assert_eq!(flights.in_flight(), 1);
    }

    #[test]
    fn a_repeated_request_waits_once_with_the_newer_want_set() {
        let mut flights = Flights::default();
        let now = clock::now();
        flights.request(request(1, 1, 0b0111), now);
        assert_eq!(flights.request(request(1, 1, 0b0100), now), Outcome::Joined);
        let waiting = flights.complete(&request(1, 1, 0).get.id);
        assert_eq!(waiting, [request(1, 1, 0b0100)]);
    }

    /// How many of these clients get to wait for a chunk.
    fn waiting(
        flights: &mut Flights<Request>,
        chunk: u32,
        clients: Range<u32>,
        now: Instant,
    ) -> usize {
        let waits = |client: &u32| {
            let outcome = flights.request(request(chunk, *client, 1), now);
            matches!(outcome, Outcome::Joined | Outcome::Start)
        };
        clients.filter(waits).count()
    }

    /// How many of these chunks a client has fetched.
    fn started(
        flights: &mut Flights<Request>,
        client: u32,
        chunks: Range<u32>,
        now: Instant,
    ) -> usize {
        let starts =
            |chunk: &u32| flights.request(request(*chunk, client, 1), now) == Outcome::Start;
        chunks.filter(starts).count()
    }

    #[test]
    fn waiters_of_one_chunk_chunks_and_waiters_in_all_are_bounded() {
        // I9
        let mut flights = Flights::default();
        let now = clock::now();
        assert_eq!(waiting(&mut flights, 0, 0..1000, now), WAITERS_PER_FLIGHT);
        let in_all: usize = (1..2000)
            .map(|chunk| {
                let first = chunk % 20 * 100;
                waiting(&mut flights, chunk, first..first + 100, now)
            })
            .sum();
        assert!(
            (WAITERS - 10..WAITERS).contains(&(in_all + WAITERS_PER_FLIGHT)),
            "{in_all}"
        );
        waiting(&mut flights, 1, 3000..3010, now);
        assert_eq!(flights.waiters, WAITERS);
        assert_eq!(flights.request(request(5000, 1, 1), now), Outcome::Full);
        let mut flights = Flights::default();
        let started = (0..2000)
            .filter(|number| started(&mut flights, *number, *number..number + 1, now) == 1);
        assert_eq!(started.count(), FLIGHTS);
    }

    #[test]
    fn a_source_gets_an_eighth_of_the_flights_and_many_sources_leave_room_for_another() {
        let mut flights = Flights::default();
        let now = clock::now();
        assert_eq!(started(&mut flights, 1, 0..2000, now), FLIGHTS / 8);
        assert_eq!(flights.request(request(3000, 1, 1), now), Outcome::Share);
        // Each of these takes as many as it can.
        for client in 2..48 {
            let own = client * 2000;
            assert!(
                started(&mut flights, client, own..own + 2000, now) > 0,
                "{client}"
            );
        }
        // A flight that the first source ends is available to others and not yet to itself.
        flights.complete(&request(0, 1, 1).get.id);
        assert_eq!(started(&mut flights, 1, 2000..3000, now), 0);
        assert_eq!(started(&mut flights, 500, 1_000_000..1_001_000, now), 1);
    }

    #[test]
    fn a_source_cannot_fill_the_waiters_of_a_chunk_that_others_want() {
        let mut flights = Flights::default();
        let now = clock::now();
        flights.request(request(1, 1, 1), now);
        let mut own = request(1, 1, 1);
        let mut joined = 0;
        for port in 1..4000 {
            own.peer.client.set_port(port);
            joined += usize::from(flights.request(own, now) == Outcome::Joined);
        }
        assert_eq!(joined + 1, WAITERS_PER_FLIGHT / 2);
        assert_eq!(flights.request(request(1, 2, 1), now), Outcome::Joined);
    }

    #[test]
    fn the_rate_at_which_a_source_starts_fetches_is_bounded() {
        let mut flights = Flights::default();
        let start = clock::now();
        let mut begun = 0;
        let mut chunks = 0..;
        // A source that sends its next request at once, with an origin that answers at once.
        for tenth in 0..100 {
            let now = start + Duration::from_millis(100) * tenth;
            for chunk in chunks.by_ref().take(1000) {
                let wanted = request(chunk, 1, 1);
                begun += u32::from(flights.request(wanted, now) == Outcome::Start);
                flights.complete(&wanted.get.id);
            }
        }
        let tenths = 99 * (Duration::from_millis(100).as_nanos() / SOURCE_FETCH_EVERY.as_nanos());
        assert!(
            begun <= SOURCE_FETCHES + u32::try_from(tenths).unwrap() + 100,
            "{begun}"
        );
        assert_eq!(
            flights.request(request(u32::MAX, 2, 1), start),
            Outcome::Start
        );
    }

    #[test]
    fn other_sources_do_not_evict_what_a_source_found_absent() {
        let mut flights = Flights::default();
        let start = clock::now();
        let minute = Duration::from_mins(1);
        let absent = |flights: &mut Flights<Request>, chunk, client, now| {
            let wanted = request(chunk, client, 1);
            assert_eq!(flights.request(wanted, now), Outcome::Start);
            flights.fail(&wanted.get.id, Failure::Absent, now, minute);
        };
        absent(&mut flights, 0, 1, start);
        let mut now = start;
        for chunk in 0..6000 {
            // Three sources, each at its full rate.
            now += SOURCE_FETCH_EVERY;
            for client in 2..5 {
                absent(&mut flights, client * 10_000 + chunk, client, now);
            }
        }
        absent(&mut flights, 1, 6, now);
        for (chunk, client) in [(0, 1), (1, 6)] {
            let negative = Outcome::Negative(Failure::Absent);
            assert_eq!(flights.request(request(chunk, client, 1), now), negative);
        }
        assert!(flights.negatives.len() <= NEGATIVES && flights.remembered <= NEGATIVES);
        flights.expire(now + minute);
        assert_eq!((flights.negatives.len(), flights.remembered), (0, 0));
    }

    #[test]
    fn a_waiter_is_dropped_at_its_deadline_and_its_flight_continues() {
        // I8
        let mut flights = Flights::default();
        let now = clock::now();
        flights.request(request(1, 1, 1), now);
        assert_eq!(flights.expire(now + WAITER_DEADLINE / 2), 0);
        assert_eq!(flights.expire(now + WAITER_DEADLINE), 1);
        let later = now + WAITER_DEADLINE;
        assert_eq!(flights.request(request(1, 2, 1), later), Outcome::Joined);
    }

    #[test]
    fn a_failure_is_remembered_for_a_while() {
        let mut flights = Flights::default();
        let now = clock::now();
        let second = Duration::from_secs(1);
        let id = request(1, 1, 1).get.id;
        let negative = Outcome::Negative(Failure::Absent);
        for time in [second, 2 * second] {
            flights.in_progress.insert(
                id,
                Flight {
                    owner: None,
                    waiters: Vec::new(),
                },
            );
            flights.accounts.of(None).flights += 1;
            flights.fail(&id, Failure::Absent, now, time);
        }
        assert_eq!(flights.request(request(1, 1, 1), now), negative);
        flights.expire(now + second);
        assert_eq!(flights.request(request(1, 1, 1), now + second), negative);
        assert_eq!(
            flights.request(request(1, 1, 1), now + 2 * second),
            Outcome::Start
        );
    }
}
