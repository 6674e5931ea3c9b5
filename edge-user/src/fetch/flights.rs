//! At most one fetch for each chunk (I8), and who waits for it. Knows no clock: time comes in.
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

/// What became of a request for a chunk that is not resident.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Outcome {
    /// It waits for a fetch that is under way.
    Joined,
    /// It waits, and the fetch is to be started.
    Start,
    /// It need not wait: the chunk was lately not to be had.
    Negative(Failure),
    /// Too many wait already.
    Full,
    /// Its source has its share.
    Share,
}

/// Why a chunk is not to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No origin has it.
    Absent,
    /// No origin could be asked, or what it gave was wrong.
    Unreachable,
}

/// A request that can wait for its chunk. Each front has its own.
pub trait Waiter {
    fn chunk(&self) -> ChunkId;
    fn client(&self) -> SocketAddr;
    /// Whether it takes the place of another one for the same chunk.
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
    /// Whose request began it.
    owner: Owner,
    waiters: Vec<Waiting<W>>,
}

/// The flight table.
#[derive(Debug)]
pub struct Flights<W> {
    under_way: HashMap<ChunkId, Flight<W>>,
    /// Over all flights.
    waiters: usize,
    negatives: HashMap<ChunkId, (Failure, Instant)>,
    /// Over all accounts, which keep the order.
    remembered: usize,
    accounts: Accounts,
}

impl<W> Default for Flights<W> {
    fn default() -> Self {
        Self {
            under_way: HashMap::new(),
            waiters: 0,
            negatives: HashMap::new(),
            remembered: 0,
            accounts: Accounts::default(),
        }
    }
}

impl<W: Waiter> Flights<W> {
    /// Asked once, answered with every outcome there is.
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
        if let Some(Flight { waiters, .. }) = self.under_way.get_mut(&id) {
            // A waiter is (address, port, chunk): who asks again replaces its want set.
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
            let free = FLIGHTS.saturating_sub(self.under_way.len());
            if free_waiters == 0 || free == 0 {
                return Outcome::Full;
            }
            let share = (free / FLIGHT_SHARES).max(1);
            if account.waiters >= free_waiters || account.flights >= share || !account.pay(now) {
                return Outcome::Share;
            }
            account.flights += 1;
            let waiters = vec![waiter];
            self.under_way.insert(id, Flight { owner, waiters });
            account.waiters += 1;
            self.waiters += 1;
            return Outcome::Start;
        }
        account.waiters += 1;
        self.waiters += 1;
        Outcome::Joined
    }

    /// Ends a flight; these waited for it.
    pub fn land(&mut self, id: &ChunkId) -> Vec<W> {
        let Some(Flight { owner, waiters }) = self.under_way.remove(id) else {
            return Vec::new();
        };
        self.accounts.of(owner).flights -= 1;
        self.waiters -= waiters.len();
        for waiter in &waiters {
            self.accounts.of(waiter.owner).waiters -= 1;
        }
        waiters.into_iter().map(|waiter| waiter.request).collect()
    }

    /// The same, and for a while this chunk is not asked for again.
    pub fn fail(&mut self, id: &ChunkId, failure: Failure, now: Instant, time: Duration) -> Vec<W> {
        if let Some(flight) = self.under_way.get(id) {
            self.remember(flight.owner, *id, failure, now + time);
        }
        self.land(id)
    }

    /// What is remembered for a source takes the place of what is remembered for nobody else.
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

    /// Lets go of waiters and failures whose time is over; says how many waiters that were. A
    /// flight goes on without waiters: the chunk is still worth having.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.waiters;
        for flight in self.under_way.values_mut() {
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
        self.under_way.len()
    }
}

/// Unless the id was remembered once more meanwhile.
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
    fn a_chunk_is_fetched_once_whoever_asks() {
        // I8
        let mut flights = Flights::default();
        let now = clock::now();
        assert_eq!(flights.request(request(1, 1, 1), now), Outcome::Start);
        for client in 2..9 {
            assert_eq!(flights.request(request(1, client, 1), now), Outcome::Joined);
        }
        assert_eq!(flights.request(request(2, 1, 1), now), Outcome::Start);
        assert_eq!(flights.in_flight(), 2);
        assert_eq!(flights.land(&request(1, 1, 1).get.id).len(), 8);
        assert_eq!(flights.in_flight(), 1);
    }

    #[test]
    fn who_asks_again_waits_once_with_the_newer_want_set() {
        let mut flights = Flights::default();
        let now = clock::now();
        flights.request(request(1, 1, 0b0111), now);
        assert_eq!(flights.request(request(1, 1, 0b0100), now), Outcome::Joined);
        let waiting = flights.land(&request(1, 1, 0).get.id);
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
    fn a_source_has_an_eighth_of_the_flights_and_many_leave_room_for_another() {
        let mut flights = Flights::default();
        let now = clock::now();
        assert_eq!(started(&mut flights, 1, 0..2000, now), FLIGHTS / 8);
        assert_eq!(flights.request(request(3000, 1, 1), now), Outcome::Share);
        // Each of these takes all that it can get.
        for client in 2..48 {
            let own = client * 2000;
            assert!(
                started(&mut flights, client, own..own + 2000, now) > 0,
                "{client}"
            );
        }
        // What the first lets go is for others before it is for the first again.
        flights.land(&request(0, 1, 1).get.id);
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
    fn a_source_begins_only_so_many_fetches_a_second() {
        let mut flights = Flights::default();
        let start = clock::now();
        let mut begun = 0;
        let mut chunks = 0..;
        // One that asks as fast as it is answered, by an origin that answers at once.
        for tenth in 0..100 {
            let now = start + Duration::from_millis(100) * tenth;
            for chunk in chunks.by_ref().take(1000) {
                let wanted = request(chunk, 1, 1);
                begun += u32::from(flights.request(wanted, now) == Outcome::Start);
                flights.land(&wanted.get.id);
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
    fn what_is_known_to_be_absent_is_not_asked_for_again_whatever_others_ask_for() {
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
            // As many as a source can learn in that time, three times over.
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
    fn a_waiter_is_let_go_at_its_deadline_and_its_flight_goes_on() {
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
            flights.under_way.insert(
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
