//! The only writer of the cache (I7). Fronts push commands into one queue; completions go into the
//! queue of each requesting front.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crossbeam::queue::ArrayQueue;
use edge_ebpf::wire::ChunkId;
use hashbrown::HashMap;

use super::flights::{Failure, Waiter};
use super::front::{Command, Completion, Front};
use super::origin::error::FetchError;
use super::schedule::{Fetched, Fetches};
use crate::cache::store::Store;
use crate::clock;
use crate::counters::{Cell, OriginCounts, StoreCounts};
use crate::event_fd::EventFd;
use crate::limits::{FLIGHTS, FRONTS_MAX, ORIGINS_MAX, TICK};
use crate::log::LogLimiter;

/// How soon to check again for a slot that a reader still holds.
const SLOT_WAIT: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub struct EngineCells {
    /// Turns of the loop, idle ones included, for the heartbeat.
    pub turns: Cell,
    pub fetches: Cell,
    pub fetched_bytes: Cell,
    pub absent: Cell,
    pub failed: Cell,
    pub corrupt: Cell,
    pub in_flight: Cell,
    /// Written once per turn; this thread may lock.
    pub store: Mutex<StoreCounts>,
    /// Abandoned reads that have not ended, by origin.
    pub hung_reads: [Cell; ORIGINS_MAX],
    pub origins: Cell,
}

impl EngineCells {
    /// Everything except what fronts count.
    pub fn origin(&self) -> OriginCounts {
        OriginCounts {
            in_flight: self.in_flight.get(),
            fetches_total: self.fetches.get(),
            bytes_total: self.fetched_bytes.get(),
            absent_total: self.absent.get(),
            failed_total: self.failed.get(),
            corrupt_total: self.corrupt.get(),
            hung_reads: (self.hung_reads.iter().map(Cell::get))
                .take(usize::try_from(self.origins.get()).unwrap_or(ORIGINS_MAX))
                .collect(),
            ..OriginCounts::default()
        }
    }
}

/// The engine's end of the queue to a front.
#[derive(Debug)]
struct FrontQueue {
    completions: Arc<ArrayQueue<Completion>>,
    wake: EventFd,
    /// There are completions that the front was not woken for.
    unannounced: bool,
}

/// Reads the clock only in [`Self::run`].
#[derive(Debug)]
pub struct Engine {
    store: Store,
    fetches: Fetches,
    /// The fronts waiting for each fetch in progress.
    waiting: HashMap<ChunkId, Vec<usize>>,
    commands: Arc<ArrayQueue<Command>>,
    fronts: Vec<FrontQueue>,
    wake: EventFd,
    cells: Arc<EngineCells>,
    log_limiter: LogLimiter,
    next_tick: Option<Instant>,
}

impl Engine {
    /// The threads of `fetches` wake the engine through `wake`.
    pub fn new(store: Store, fetches: Fetches, wake: EventFd) -> Self {
        Self {
            store,
            fetches,
            waiting: HashMap::new(),
            commands: Arc::new(ArrayQueue::new(FRONTS_MAX * FLIGHTS)),
            fronts: Vec::new(),
            wake,
            cells: Arc::default(),
            log_limiter: LogLimiter::default(),
            next_tick: None,
        }
    }

    /// Adds a front that sleeps on `wake`.
    pub fn front<W: Waiter>(&mut self, wake: EventFd) -> Front<W> {
        let number = self.fronts.len();
        assert!(number < FRONTS_MAX, "too many fronts");
        let completions = Arc::new(ArrayQueue::new(FLIGHTS));
        self.fronts.push(FrontQueue {
            completions: Arc::clone(&completions),
            wake,
            unannounced: false,
        });
        let commands = Arc::clone(&self.commands);
        Front::new(number, commands, completions, self.wake.clone())
    }

    pub const fn cells(&self) -> &Arc<EngineCells> {
        &self.cells
    }

    pub const fn store(&self) -> &Store {
        &self.store
    }

    /// Consumes the engine and returns its store.
    pub fn into_store(self) -> Store {
        self.store
    }

    /// Whether a fetch waits for a slot that a reader still holds.
    pub fn wants_slot(&self) -> bool {
        self.fetches.wants_slot()
    }

    /// Runs until `stop` is set.
    pub fn run(mut self, stop: &AtomicBool) -> io::Result<()> {
        while !stop.load(Ordering::Acquire) {
            self.cells.turns.add(1);
            let sleep = self.poll_once(clock::now());
            self.wake.wait([], sleep)?;
        }
        Ok(())
    }

    /// Does all pending work; returns how long to sleep at most.
    pub fn poll_once(&mut self, now: Instant) -> Duration {
        // Bounded, because fronts may push further commands concurrently.
        for _ in 0..self.commands.len() {
            if let Some(command) = self.commands.pop() {
                self.execute(command, now);
            }
        }
        self.fetches.collect(now);
        if self.next_tick.is_none_or(|due| due <= now) {
            self.fetches.expire(now);
            self.next_tick = Some(now + TICK);
        }
        while let Some(fetched) = self.fetches.take() {
            self.finish(fetched, now);
        }
        self.fetches.begin(&mut self.store);
        self.report();
        for front in &mut self.fronts {
            if std::mem::take(&mut front.unannounced) {
                front.wake.wake();
            }
        }
        if self.wants_slot() { SLOT_WAIT } else { TICK }
    }

    fn execute(&mut self, command: Command, now: Instant) {
        let Command::Fetch { front, id, source } = command;
        // Another front's fetch may have completed since this front's lookup.
        if self.store.is_resident(&id) {
            self.complete(front, Completion { id, result: Ok(()) });
            return;
        }
        let waiting = self.waiting.entry(id).or_default();
        waiting.push(front);
        if waiting.len() == 1 {
            self.fetches.request(id, source, now);
            self.cells.fetches.add(1);
        }
    }

    fn finish(&mut self, fetched: Fetched, now: Instant) {
        let id = fetched.id;
        let result = match fetched.result {
            Ok(verified) => {
                self.cells.fetched_bytes.add(verified.chunk_bytes().into());
                self.store.publish(verified);
                Ok(())
            }
            Err(FetchError::Absent) => {
                self.cells.absent.add(1);
                Err(Failure::Absent)
            }
            Err(FetchError::Corrupt(reason)) => {
                self.cells.corrupt.add(1);
                Err(self.unusable(id, &reason, now))
            }
            Err(FetchError::Transient(reason)) => {
                self.cells.failed.add(1);
                Err(self.unusable(id, &reason, now))
            }
        };
        for front in self.waiting.remove(&id).unwrap_or_default() {
            self.complete(front, Completion { id, result });
        }
    }

    fn unusable(&mut self, id: ChunkId, reason: &str, now: Instant) -> Failure {
        if let Some(suppressed) = self.log_limiter.admit(now) {
            tracing::warn!(chunk = %id, reason, suppressed, "an origin's chunk cannot be used");
        }
        Failure::Unreachable
    }

    fn complete(&mut self, front: usize, completion: Completion) {
        let front = &mut self.fronts[front];
        let pushed = front.completions.push(completion);
        assert!(pushed.is_ok(), "the queue has room for every flight");
        front.unannounced = true;
    }

    /// Publishes the counters.
    fn report(&self) {
        let counts = self.store.counts();
        let mut seen = (self.cells.store.lock()).unwrap_or_else(PoisonError::into_inner);
        *seen = counts;
        self.cells.in_flight.set(self.fetches.in_flight() as u64);
        for (cell, hung) in self.cells.hung_reads.iter().zip(self.fetches.hung()) {
            cell.set(hung as u64);
        }
        self.cells.origins.set(self.fetches.hung().count() as u64);
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::cache::fill::Verified;
    use crate::cache::layout::Layout;
    use crate::cache::publish::Publisher;
    use crate::cache::store::divide;
    use crate::fetch::flights::Outcome;
    use crate::fetch::front::Completed;
    use crate::fetch::origin::error::ReadError;
    use crate::fetch::schedule::{Ended, Ends};
    use crate::sys::epochs::Reader;
    use crate::sys::mapping::Mapping;
    use edge_ebpf::wire::SEGMENT_BYTES_DEFAULT;
    use sha2::{Digest as _, Sha256};

    const SLOTS: usize = 64;

    /// A request in which one number names both chunk and client.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    struct Number(u16);

    impl Waiter for Number {
        fn chunk(&self) -> ChunkId {
            ChunkId(Sha256::digest(chunk(*self)).into())
        }

        fn client(&self) -> SocketAddr {
            let [high, low] = self.0.to_be_bytes();
            ([192, 0, high, low], 4000).into()
        }

        fn replaces(&self, other: &Self) -> bool {
            self == other
        }
    }

    fn chunk(number: Number) -> Vec<u8> {
        number.0.to_be_bytes().repeat(50)
    }

    /// An engine with an empty store, the ends of one origin's threads, two fronts and a reader.
    struct Site {
        engine: Engine,
        ends: Ends,
        fronts: [Front<Number>; 2],
        reader: Reader,
        now: Instant,
    }

    fn site() -> Site {
        let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
        let arena_bytes = layout.slot_bytes() * SLOTS;
        let arena = Mapping::anonymous(arena_bytes, false).unwrap();
        let (view, blocks) = divide(arena, arena_bytes as u64, layout, 1).unwrap();
        let (fetches, ends) = Fetches::new(1, FLIGHTS, SLOTS, &view);
        let reader = view.reader(0);
        let store = Store::new(view, blocks, Publisher::none());
        let mut engine = Engine::new(store, fetches, EventFd::new().unwrap());
        let fronts = [(); 2].map(|()| engine.front(EventFd::new().unwrap()));
        Site {
            engine,
            ends,
            fronts,
            reader,
            now: clock::now(),
        }
    }

    impl Site {
        fn ask(&mut self, front: usize, number: u16) {
            self.fronts[front].request(Number(number), self.now);
            self.engine.poll_once(self.now);
        }

        fn end(&mut self, number: u16, result: Result<Verified, ReadError>) {
            let (origin, id) = (0, Number(number).chunk());
            self.ends.1.push(Ended { origin, id, result }).unwrap();
            self.engine.poll_once(self.now);
        }

        /// The origin's thread reads the chunk.
        fn read(&mut self, number: u16) {
            let (id, bytes) = (Number(number).chunk(), chunk(Number(number)));
            let result = self.ends.0[0].1.take(id, bytes.len() as u64);
            let result = result.and_then(|mut filling| {
                filling.segments()[0].copy_from_slice(&bytes);
                Ok(filling.verify()?)
            });
            self.end(number, result);
        }

        fn completed(&mut self, front: usize) -> Vec<(u16, Result<(), Failure>)> {
            let (front, now) = (&mut self.fronts[front], self.now);
            let completed = std::iter::from_fn(|| front.next_completed(now));
            let each = completed.flat_map(|Completed { result, waiters }| {
                let numbers = waiters.into_iter().map(|Number(number)| number);
                numbers.map(move |number| (number, result))
            });
            each.collect()
        }

        /// How many reads the origin's threads were given since the last call.
        fn reads(&self) -> usize {
            self.ends.0[0].0.try_iter().count()
        }

        fn assert_both_complete(&mut self, number: u16, result: Result<(), Failure>) {
            for front in 0..2 {
                assert_eq!(self.completed(front), [(number, result)], "front {front}");
                assert_eq!(self.fronts[front].in_flight(), 0);
            }
        }
    }

    #[test]
    fn a_chunk_is_read_once_for_all_fronts_and_each_gets_a_completion() {
        // I8
        let mut site = site();
        site.ask(0, 1);
        site.ask(1, 1);
        assert_eq!(site.reads(), 1);
        site.read(1);
        site.assert_both_complete(1, Ok(()));
        for (number, error, failure) in [
            (2, FetchError::Absent, Failure::Absent),
            (
                3,
                FetchError::Transient("late".into()),
                Failure::Unreachable,
            ),
            (4, FetchError::Corrupt("cut".into()), Failure::Unreachable),
        ] {
            site.ask(0, number);
            site.ask(1, number);
            assert_eq!(site.reads(), 1);
            site.end(number, Err(error.into()));
            site.assert_both_complete(number, Err(failure));
            let again = site.fronts[0].request(Number(number), site.now);
            assert_eq!(again, Outcome::Negative(failure));
        }
        let cells = site.engine.cells().origin();
        assert_eq!((cells.fetches_total, cells.in_flight), (4, 0));
        let ended = [cells.absent_total, cells.failed_total, cells.corrupt_total];
        assert_eq!(ended, [1, 1, 1]);
    }

    #[test]
    fn a_chunk_that_another_front_had_fetched_is_not_fetched_again() {
        let mut site = site();
        site.ask(0, 1);
        site.read(1);
        site.ask(1, 1);
        site.assert_both_complete(1, Ok(()));
        assert_eq!(site.reads(), 1);
    }

    #[test]
    fn a_front_that_takes_no_completions_delays_no_other() {
        // I9
        let mut site = site();
        let mut number = 0;
        while site.fronts[0].in_flight() < FLIGHTS / 8 {
            site.ask(0, number);
            site.end(number, Err(FetchError::Absent.into()));
            number += 1;
        }
        for _ in 0..10 {
            site.ask(1, number);
            site.end(number, Err(FetchError::Absent.into()));
            assert_eq!(site.completed(1), [(number, Err(Failure::Absent))]);
            number += 1;
        }
        assert_eq!(site.completed(0).len(), FLIGHTS / 8);
    }

    #[test]
    fn fetches_that_need_no_slot_complete_while_others_wait_for_one() {
        let mut site = site();
        // A reader stopped within a batch announces no further epoch, so no slot becomes free.
        site.reader.quiescent();
        let mut filled = 0;
        while !site.engine.wants_slot() {
            site.ask(0, filled);
            site.read(filled);
            filled += 1;
        }
        site.completed(0);
        for number in [201, 202, 203] {
            site.ask(0, number);
        }
        site.read(201);
        site.end(202, Err(FetchError::Absent.into()));
        let failed = FetchError::Transient("a disk error".to_owned());
        site.end(203, Err(failed.into()));
        let expected = [
            (202, Err(Failure::Absent)),
            (203, Err(Failure::Unreachable)),
        ];
        assert_eq!(site.completed(0), expected);
        assert!(site.engine.wants_slot());
        site.reader.quiescent();
        site.engine.poll_once(site.now);
        for number in [filled - 1, 201] {
            site.read(number);
        }
        assert_eq!(site.completed(0), [(filled - 1, Ok(())), (201, Ok(()))]);
        assert!(site.engine.store().is_resident(&Number(201).chunk()));
    }
}
