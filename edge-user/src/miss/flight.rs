//! At most one fetch for each chunk (I8), and who waits for it. Knows no clock: time comes in.
#![deny(clippy::indexing_slicing)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use edge_ebpf::wire::ChunkId;
use hashbrown::HashMap;

use crate::limits::{FLIGHTS, NEGATIVES, WAITER_DEADLINE, WAITERS, WAITERS_PER_FLIGHT};
use crate::reply::Request;

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
}

/// Why a chunk is not to be had.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Failure {
    /// No origin has it.
    Absent,
    /// No origin could be asked, or what it gave was wrong.
    Unreachable,
}

#[derive(Debug)]
struct Waiter {
    request: Request,
    deadline: Instant,
}

/// The flight table.
#[derive(Debug, Default)]
pub struct Flights {
    under_way: HashMap<ChunkId, Vec<Waiter>>,
    /// Over all flights.
    waiters: usize,
    negatives: HashMap<ChunkId, (Failure, Instant)>,
    /// The same, oldest first: what is forgotten when the table is full. An id may stand here
    /// more than once; only the last one counts.
    negatives_order: VecDeque<(ChunkId, Instant)>,
}

impl Flights {
    /// Asked once, answered with every outcome there is.
    pub fn request(&mut self, request: Request, now: Instant) -> Outcome {
        let id = request.get.id;
        if let Some((failure, until)) = self.negatives.get(&id)
            && now < *until
        {
            return Outcome::Negative(*failure);
        }
        let waiter = Waiter {
            request,
            deadline: now + WAITER_DEADLINE,
        };
        let full = self.waiters >= WAITERS;
        if let Some(waiters) = self.under_way.get_mut(&id) {
            // A waiter is (address, port, chunk): who asks again replaces its want set.
            if let Some(same) = waiters
                .iter_mut()
                .find(|old| old.request.peer == request.peer)
            {
                *same = waiter;
                return Outcome::Joined;
            }
            if full || waiters.len() >= WAITERS_PER_FLIGHT {
                return Outcome::Full;
            }
            waiters.push(waiter);
            self.waiters += 1;
            return Outcome::Joined;
        }
        if full || self.under_way.len() >= FLIGHTS {
            return Outcome::Full;
        }
        self.under_way.insert(id, vec![waiter]);
        self.waiters += 1;
        Outcome::Start
    }

    /// Ends a flight; these waited for it.
    pub fn land(&mut self, id: &ChunkId) -> Vec<Request> {
        let waiters = self.under_way.remove(id).unwrap_or_default();
        self.waiters -= waiters.len();
        waiters.into_iter().map(|waiter| waiter.request).collect()
    }

    /// For a while, do not ask for this chunk again.
    pub fn remember(&mut self, id: ChunkId, failure: Failure, now: Instant, time: Duration) {
        let until = now + time;
        self.negatives.insert(id, (failure, until));
        self.negatives_order.push_back((id, until));
        while self.negatives_order.len() > NEGATIVES {
            self.forget_oldest();
        }
    }

    /// Lets go of waiters and failures whose time is over; says how many waiters that were. A
    /// flight goes on without waiters: the chunk is still worth having.
    pub fn expire(&mut self, now: Instant) -> usize {
        let before = self.waiters;
        for waiters in self.under_way.values_mut() {
            let count = waiters.len();
            waiters.retain(|waiter| now < waiter.deadline);
            self.waiters -= count - waiters.len();
        }
        while self
            .negatives_order
            .front()
            .is_some_and(|(_, until)| *until <= now)
        {
            self.forget_oldest();
        }
        before - self.waiters
    }

    fn forget_oldest(&mut self) {
        if let Some((id, until)) = self.negatives_order.pop_front()
            && self
                .negatives
                .get(&id)
                .is_some_and(|(_, latest)| *latest <= until)
        {
            self.negatives.remove(&id);
        }
    }

    pub fn in_flight(&self) -> usize {
        self.under_way.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::reply::peer::Peer;
    use edge_ebpf::wire::{Cookie, Get};
    use std::net::SocketAddr;

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

    #[test]
    fn waiters_of_one_chunk_chunks_and_waiters_in_all_are_bounded() {
        // I9
        let mut flights = Flights::default();
        let now = clock::now();
        let count = |flights: &mut Flights, chunk: u32, clients: std::ops::Range<u32>| {
            clients
                .filter(|client| flights.request(request(chunk, *client, 1), now) != Outcome::Full)
                .count()
        };
        assert_eq!(count(&mut flights, 0, 0..1000), WAITERS_PER_FLIGHT);
        let in_all: usize = (1..2000)
            .map(|chunk| count(&mut flights, chunk, 0..100))
            .sum::<usize>();
        assert_eq!(in_all + WAITERS_PER_FLIGHT, WAITERS);
        assert!(flights.in_flight() <= FLIGHTS);
        let mut flights = Flights::default();
        let started =
            (0..2000).filter(|chunk| flights.request(request(*chunk, 1, 1), now) == Outcome::Start);
        assert_eq!(started.count(), FLIGHTS);
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
    fn a_failure_is_remembered_for_a_while_and_the_table_of_failures_is_bounded() {
        let mut flights = Flights::default();
        let now = clock::now();
        let second = Duration::from_secs(1);
        let id = request(1, 1, 1).get.id;
        flights.remember(id, Failure::Absent, now, second);
        flights.remember(id, Failure::Absent, now, 2 * second);
        let negative = Outcome::Negative(Failure::Absent);
        assert_eq!(flights.request(request(1, 1, 1), now), negative);
        flights.expire(now + second);
        assert_eq!(flights.request(request(1, 1, 1), now + second), negative);
        assert_eq!(
            flights.request(request(1, 1, 1), now + 2 * second),
            Outcome::Start
        );
        for chunk in 0..10_000 {
            flights.remember(request(chunk, 1, 1).get.id, Failure::Absent, now, second);
        }
        assert!(flights.negatives.len() <= NEGATIVES);
        assert!(flights.negatives_order.len() <= NEGATIVES);
    }
}
