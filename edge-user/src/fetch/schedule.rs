//! Which origin to read which chunk from, and for how long. Reads no clock and no file.
//!
//! A read can hang in the kernel, and abandoning it does not end it. Until it ends, its chunk is
//! not read again from that origin (I8), and it occupies one of that origin's threads.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use edge_ebpf::wire::ChunkId;
use hashbrown::HashMap;

use super::fair_queue::FairQueue;
use super::origin::error::{FetchError, ReadError};
use super::origin::slots::Slots;
use super::source::Source;
use crate::cache::fill::Verified;
use crate::cache::lease::CacheView;
use crate::cache::store::Store;
use crate::limits::FETCH_DEADLINE;

/// The result of a fetch.
#[derive(Debug)]
pub struct Fetched {
    pub id: ChunkId,
    pub result: Result<Verified, FetchError>,
}

/// A read that has ended.
#[derive(Debug)]
pub struct Ended {
    /// Index of the origin.
    pub origin: usize,
    pub id: ChunkId,
    pub result: Result<Verified, ReadError>,
}

#[derive(Debug)]
struct Fetch {
    source: Source,
    /// Index of the current origin; the number of origins once all were tried.
    at: usize,
    /// When to move on to the next origin.
    until: Instant,
    deadline: Instant,
    /// The last error of an origin that may have the chunk, and the origin's index.
    error: Option<(usize, FetchError)>,
}

/// The queue and the reads of one origin.
#[derive(Debug)]
struct OriginQueue {
    reads: SyncSender<ChunkId>,
    threads: usize,
    /// Reads that have not ended, and whether they were abandoned.
    reading: HashMap<ChunkId, bool>,
    /// How many of them were abandoned.
    hung: usize,
    waiting: FairQueue,
    /// Chunks that were found when no slot was free.
    present: VecDeque<ChunkId>,
    slots: Slots,
    /// Slots of the store that are here or used by a read, and their maximum.
    lent: usize,
    lent_max: usize,
}

impl OriginQueue {
    /// Whether every thread hangs.
    fn is_stuck(&self) -> bool {
        self.hung == self.threads
    }

    /// Abandons the chunk at this origin.
    fn abandon(&mut self, id: &ChunkId, source: Source) {
        match self.reading.get_mut(id) {
            Some(abandoned) if !*abandoned => {
                *abandoned = true;
                self.hung += 1;
            }
            Some(_) => {}
            None => {
                self.waiting.remove(source, id);
                self.present.retain(|other| other != id);
            }
        }
    }

    /// If every thread hangs, removes a chunk that waits for one.
    fn reject_next(&mut self) -> Option<ChunkId> {
        if !self.is_stuck() {
            return None;
        }
        self.present.pop_front().or_else(|| self.waiting.pop())
    }

    /// Starts a read for each free thread, even without a slot, since a read can find that the
    /// chunk is absent.
    fn begin(&mut self) {
        while self.reading.len() < self.threads {
            let present = if self.slots.is_empty() {
                None
            } else {
                self.present.pop_front()
            };
            let Some(id) = present.or_else(|| self.waiting.pop()) else {
                return;
            };
            self.reading.insert(id, false);
            // The channel has room for one read per thread. If the threads are gone, the read
            // counts as one that hangs.
            let (Ok(()) | Err(_)) = self.reads.try_send(id);
        }
    }

    /// Takes slots from the store for pending reads, and returns those not needed.
    fn supply(&mut self, store: &mut Store) {
        let reads = self.reading.len() - self.hung;
        let demand = reads + self.present.len() + self.waiting.len();
        while self.slots.len() < demand && self.lent < self.lent_max {
            let Some(slot) = store.take_free() else { break };
            self.slots.put(slot);
            self.lent += 1;
        }
        while self.slots.len() > demand
            && let Some(slot) = self.slots.take_back()
        {
            store.put_back(slot);
            self.lent -= 1;
        }
    }
}

/// All fetches and reads.
#[derive(Debug)]
pub struct Fetches {
    origins: Vec<OriginQueue>,
    ended: Arc<ArrayQueue<Ended>>,
    in_progress: HashMap<ChunkId, Fetch>,
    /// Completed fetches, each with the origin whose slot it uses.
    completed: VecDeque<(Option<usize>, Fetched)>,
}

/// The threads' ends of the queues: for each origin the chunks to read and the slots; and the queue
/// of results.
pub type Ends = (Vec<(Receiver<ChunkId>, Slots)>, Arc<ArrayQueue<Ended>>);

impl Fetches {
    /// `threads` and `slots` are per origin.
    pub fn new(
        origins: usize,
        threads: usize,
        slots: usize,
        view: &Arc<CacheView>,
    ) -> (Self, Ends) {
        let queue = || {
            let (reads, wanted) = sync_channel(threads);
            let slots_here = Slots::new(Arc::clone(view), slots);
            let queue = OriginQueue {
                reads,
                threads,
                reading: HashMap::new(),
                hung: 0,
                waiting: FairQueue::default(),
                present: VecDeque::new(),
                slots: slots_here.clone(),
                lent: 0,
                lent_max: slots,
            };
            (queue, (wanted, slots_here))
        };
        let (queues, wanted) = (0..origins).map(|_| queue()).unzip();
        let ended = Arc::new(ArrayQueue::new((origins * threads).max(1)));
        let fetches = Self {
            origins: queues,
            ended: Arc::clone(&ended),
            in_progress: HashMap::new(),
            completed: VecDeque::new(),
        };
        (fetches, (wanted, ended))
    }

    /// Queues a fetch, which [`Self::begin`] starts. The chunk must not have one in progress.
    pub fn request(&mut self, id: ChunkId, source: Source, now: Instant) {
        let fetch = Fetch {
            source,
            at: 0,
            until: now,
            deadline: now + FETCH_DEADLINE,
            error: None,
        };
        self.in_progress.insert(id, fetch);
        self.advance(&id, now);
    }

    /// Processes the results of the threads.
    pub fn collect(&mut self, now: Instant) {
        while let Some(ended) = self.ended.pop() {
            self.end(ended, now);
        }
    }

    /// Abandons reads and fetches whose time is over.
    pub fn expire(&mut self, now: Instant) {
        let due = self
            .in_progress
            .iter()
            .filter(|(_, fetch)| fetch.until <= now);
        let mut due: Vec<(Instant, ChunkId)> =
            due.map(|(id, fetch)| (fetch.deadline, *id)).collect();
        due.sort_unstable();
        for (_, id) in due {
            let Some(fetch) = self.in_progress.get_mut(&id) else {
                continue;
            };
            if let Some(queue) = self.origins.get_mut(fetch.at) {
                queue.abandon(&id, fetch.source);
                fetch.error = Some((fetch.at, timed_out()));
                fetch.at += 1;
            }
            self.advance(&id, now);
        }
        for origin in 0..self.origins.len() {
            while let Some(id) = self
                .origins
                .get_mut(origin)
                .and_then(OriginQueue::reject_next)
            {
                self.advance(&id, now);
            }
        }
    }

    /// The result of the fetch that completed first.
    pub fn take(&mut self) -> Option<Fetched> {
        let (origin, fetched) = self.completed.pop_front()?;
        if let Some(queue) = origin.and_then(|origin| self.origins.get_mut(origin)) {
            queue.lent -= 1;
        }
        Some(fetched)
    }

    /// Results ready for `take`.
    #[cfg(test)]
    pub(super) fn completed(&self) -> usize {
        self.completed.len()
    }

    /// Whether a chunk waits for a slot of the store, rather than for one that another read uses:
    /// the end of that read wakes the engine.
    pub fn wants_slot(&self) -> bool {
        let wants = |queue: &OriginQueue| {
            !queue.present.is_empty() && queue.slots.is_empty() && queue.lent < queue.lent_max
        };
        self.origins.iter().any(wants)
    }

    /// Fetches whose result has not been taken.
    pub fn in_flight(&self) -> usize {
        self.in_progress.len() + self.completed.len()
    }

    /// For each origin, abandoned reads that have not ended.
    pub fn hung(&self) -> impl Iterator<Item = usize> {
        self.origins.iter().map(|queue| queue.hung)
    }

    /// Supplies slots and starts reads.
    pub fn begin(&mut self, store: &mut Store) {
        for queue in &mut self.origins {
            queue.supply(store);
            queue.begin();
        }
    }

    /// Queues the chunk at the next available origin, or ends its fetch.
    fn advance(&mut self, id: &ChunkId, now: Instant) {
        let count = self.origins.len();
        let Some(fetch) = self.in_progress.get_mut(id) else {
            return;
        };
        while let Some(queue) = self.origins.get_mut(fetch.at) {
            if queue.reading.contains_key(id) {
                // An earlier fetch abandoned this read: try the other origins first.
            } else if queue.is_stuck() {
                let reason = format!("all {} reads of this origin hang", queue.threads);
                fetch.error = Some((fetch.at, FetchError::Transient(reason)));
            } else if fetch.deadline <= now {
                fetch.error = Some((fetch.at, timed_out()));
            } else {
                let share = FETCH_DEADLINE / u32::try_from(count).unwrap_or(u32::MAX);
                fetch.until = fetch.deadline.min(now + share);
                queue.waiting.push(fetch.source, *id);
                return;
            }
            fetch.at += 1;
        }
        // A read that hangs may still end.
        fetch.until = fetch.deadline;
        if fetch.deadline <= now || !self.is_being_read(id) {
            self.complete(*id, None);
        }
    }

    fn is_being_read(&self, id: &ChunkId) -> bool {
        self.origins
            .iter()
            .any(|queue| queue.reading.contains_key(id))
    }

    fn end(&mut self, ended: Ended, now: Instant) {
        let Ended { origin, id, result } = ended;
        let Some(queue) = self.origins.get_mut(origin) else {
            return;
        };
        if queue.reading.remove(&id) == Some(true) {
            queue.hung -= 1;
        }
        let Some(fetch) = self.in_progress.get_mut(&id) else {
            if let Ok(verified) = result {
                queue.slots.put(verified.discard());
            }
            return;
        };
        let error = match result {
            // An abandoned read counts too.
            Ok(verified) => return self.complete(id, Some((origin, verified))),
            Err(ReadError::NoSlot) if fetch.at == origin => return queue.present.push_back(id),
            Err(ReadError::NoSlot) => Some(timed_out()),
            Err(ReadError::Failed(FetchError::Absent)) => None,
            Err(ReadError::Failed(error)) => Some(error),
        };
        match error {
            Some(error) => fetch.error = Some((origin, error)),
            // The error was a timeout of this read.
            None if (fetch.error.as_ref()).is_some_and(|(of, _)| *of == origin) => {
                fetch.error = None;
            }
            None => {}
        }
        if fetch.at == origin {
            fetch.at += 1;
            self.advance(&id, now);
        } else if fetch.at == self.origins.len() && !self.is_being_read(&id) {
            self.complete(id, None);
        }
    }

    fn complete(&mut self, id: ChunkId, found: Option<(usize, Verified)>) {
        let Some(fetch) = self.in_progress.remove(&id) else {
            return;
        };
        let hangs = self.is_being_read(&id);
        for queue in &mut self.origins {
            queue.abandon(&id, fetch.source);
        }
        let origin = found.as_ref().map(|(origin, _)| *origin);
        let result = match (found, fetch.error) {
            (Some((_, verified)), _) => Ok(verified),
            (None, _) if hangs => Err(timed_out()),
            (None, Some((_, error))) => Err(error),
            (None, None) => Err(FetchError::Absent),
        };
        self.completed.push_back((origin, Fetched { id, result }));
    }
}

fn timed_out() -> FetchError {
    let seconds = FETCH_DEADLINE.as_secs();
    FetchError::Transient(format!("no answer within {seconds} s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::layout::Layout;
    use crate::cache::store::holding;
    use crate::clock;
    use crate::fetch::origin::slots::Filling;
    use edge_ebpf::wire::SEGMENT_BYTES_DEFAULT;
    use sha2::{Digest as _, Sha256};
    use std::time::Duration;

    const SOURCE: Source = Source::V4([192, 0, 2, 7]);
    const THREADS: usize = 4;
    const SLOTS: usize = 8;
    const SECOND: Duration = Duration::from_secs(1);

    /// Fetches, with the test in the role of the threads.
    struct Bench {
        fetches: Fetches,
        store: Store,
        ends: Ends,
        now: Instant,
    }

    fn id(number: u8) -> ChunkId {
        ChunkId([number; 32])
    }

    fn bench(origins: usize) -> Bench {
        let (store, _) = holding(b"another", Layout::new(SEGMENT_BYTES_DEFAULT), 0);
        let (fetches, ends) = Fetches::new(origins, THREADS, SLOTS, store.view());
        Bench {
            fetches,
            store,
            ends,
            now: clock::now(),
        }
    }

    impl Bench {
        fn ask(&mut self, number: u8) {
            self.fetches.request(id(number), SOURCE, self.now);
            self.fetches.begin(&mut self.store);
        }

        /// The reads that an origin's threads were given since the last call.
        fn begun(&self, origin: usize) -> Vec<u8> {
            let reads = self.ends.0[origin].0.try_iter();
            reads.map(|id| id.0[0]).collect()
        }

        fn end(&mut self, origin: usize, number: u8, result: Result<Verified, ReadError>) {
            let id = id(number);
            let ended = Ended { origin, id, result };
            self.ends.1.push(ended).unwrap();
            self.fetches.collect(self.now);
            self.fetches.begin(&mut self.store);
        }

        /// A thread of the origin takes a slot.
        fn open(&self, origin: usize) -> Filling {
            // Any id will do: `Fetches` takes it from `Ended`.
            let chunk = ChunkId(Sha256::digest([7]).into());
            self.ends.0[origin].1.take(chunk, 1).unwrap()
        }

        /// The read succeeds.
        fn end_well(&mut self, origin: usize, number: u8, mut filling: Filling) {
            filling.segments()[0].fill(7);
            self.end(origin, number, filling.verify().map_err(ReadError::from));
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
            self.fetches.expire(self.now);
            self.fetches.begin(&mut self.store);
        }

        fn hung(&self) -> Vec<usize> {
            self.fetches.hung().collect()
        }

        /// Completed fetches: the chunk's number and its result as a string.
        fn completed(&mut self) -> Vec<(u8, String)> {
            let mut name = |result: Result<Verified, FetchError>| match result {
                Ok(verified) => {
                    self.store.put_back(verified.discard());
                    "chunk".to_owned()
                }
                Err(FetchError::Absent) => "absent".to_owned(),
                Err(FetchError::Transient(reason) | FetchError::Corrupt(reason)) => reason,
            };
            let mut list = Vec::new();
            while let Some(fetched) = self.fetches.take() {
                list.push((fetched.id.0[0], name(fetched.result)));
            }
            list
        }
    }

    fn results(expected: &[(u8, &str)]) -> Vec<(u8, String)> {
        let owned = (expected.iter()).map(|(id, result)| (*id, (*result).to_owned()));
        owned.collect()
    }

    const LATE: &str = "no answer within 10 s";

    #[test]
    fn an_abandoned_read_is_not_started_again_until_it_has_ended() {
        // I8
        let mut bench = bench(1);
        bench.ask(1);
        assert_eq!(bench.begun(0), [1]);
        bench.wait(FETCH_DEADLINE);
        assert_eq!(bench.completed(), results(&[(1, LATE)]));
        for _ in 0..3 {
            // It may still end, so further fetches wait for it until their deadline.
            bench.ask(1);
            bench.wait(SECOND);
            assert_eq!(bench.completed(), []);
            bench.wait(FETCH_DEADLINE);
            assert_eq!(bench.completed(), results(&[(1, LATE)]));
        }
        assert_eq!((bench.begun(0), bench.hung()), (vec![], vec![1]));
        bench.ask(1);
        bench.end(
            0,
            1,
            Err(FetchError::Transient("a disk error".to_owned()).into()),
        );
        assert_eq!(bench.completed(), results(&[(1, "a disk error")]));
        assert_eq!(bench.hung(), [0]);
        bench.ask(1);
        assert_eq!(bench.begun(0), [1]);
    }

    #[test]
    fn a_late_chunk_completes_a_later_fetch() {
        let mut bench = bench(1);
        bench.ask(1);
        let filling = bench.open(0);
        bench.wait(FETCH_DEADLINE);
        bench.completed();
        bench.ask(1);
        bench.end_well(0, 1, filling);
        assert_eq!(bench.completed(), results(&[(1, "chunk")]));
        // Without a later fetch it is discarded.
        bench.ask(2);
        let filling = bench.open(0);
        bench.wait(FETCH_DEADLINE);
        bench.completed();
        bench.end_well(0, 2, filling);
        assert_eq!(bench.completed(), []);
        assert_eq!((bench.hung(), bench.fetches.in_flight()), (vec![0], 0));
        assert_eq!(bench.store.counts().filling, 0);
    }

    #[test]
    fn an_origin_that_hangs_uses_only_its_own_threads_and_is_then_skipped() {
        let mut bench = bench(2);
        for number in 0..4 {
            bench.ask(number);
        }
        assert_eq!(bench.begun(0), [0, 1, 2, 3]);
        bench.wait(SECOND);
        // These wait for a thread, until none can become free.
        bench.ask(4);
        bench.ask(5);
        assert!(bench.begun(0).is_empty() && bench.begun(1).is_empty());
        bench.wait(FETCH_DEADLINE / 2);
        assert_eq!(bench.hung(), [THREADS, 0]);
        for _ in 0..2 {
            for number in bench.begun(1) {
                let filling = bench.open(1);
                bench.end_well(1, number, filling);
            }
        }
        assert_eq!(bench.completed().len(), 6);
        // Now the second origin is tried at once.
        bench.ask(100);
        assert_eq!(bench.begun(1), [100]);
        bench.end(1, 100, Err(FetchError::Absent.into()));
        let stuck = "all 4 reads of this origin hang";
        assert_eq!(bench.completed(), results(&[(100, stuck)]));
        // When one of its reads ends, the first is tried again.
        bench.end(0, 0, Err(FetchError::Absent.into()));
        bench.ask(101);
        assert_eq!(bench.begun(0), [101]);
        assert_eq!(bench.hung(), [THREADS - 1, 0]);
    }

    #[test]
    fn a_chunk_whose_read_hangs_is_requested_from_the_next_origin_at_once() {
        let mut bench = bench(2);
        bench.ask(1);
        bench.wait(FETCH_DEADLINE / 2);
        assert_eq!(bench.begun(1), [1]);
        let filling = bench.open(1);
        bench.end_well(1, 1, filling);
        assert_eq!(bench.completed(), results(&[(1, "chunk")]));
        bench.begun(0);
        // For example after an eviction.
        bench.ask(1);
        assert_eq!((bench.begun(0), bench.begun(1)), (vec![], vec![1]));
        // The second does not have it and the first may: the fetch waits for the first.
        bench.end(1, 1, Err(FetchError::Absent.into()));
        assert_eq!(bench.completed(), []);
        bench.end(0, 1, Err(FetchError::Absent.into()));
        assert_eq!(bench.completed(), results(&[(1, "absent")]));
    }

    #[test]
    fn every_fetch_ends_in_time_whatever_hangs() {
        // I9
        let mut bench = bench(3);
        for number in 0..100 {
            bench.ask(number);
        }
        for _ in 0..10 {
            bench.wait(SECOND);
        }
        let completed = bench.completed();
        assert_eq!(completed.len(), 100);
        let failed = |(_, result): &(u8, String)| result == LATE || result.contains("hang");
        assert!(completed.iter().all(failed), "{completed:?}");
        assert_eq!(bench.fetches.in_flight(), 0);
        let begun: usize = (0..3).map(|origin| bench.begun(origin).len()).sum();
        assert_eq!(begun, 3 * THREADS);
    }

    #[test]
    fn slots_are_lent_in_a_bounded_number_and_come_back() {
        // I9
        let mut bench = bench(2);
        let free = bench.store.counts().free;
        for number in 0..100 {
            bench.ask(number);
        }
        let lent = bench.store.counts().filling;
        assert_eq!(lent, SLOTS as u64, "all wait at the first origin");
        // A read that hangs keeps its slot, and one that finds no slot is repeated.
        let begun = bench.begun(0);
        let hanging = bench.open(0);
        bench.end(0, begun[1], Err(ReadError::NoSlot));
        assert!(bench.begun(0).contains(&begun[1]));
        for _ in 0..10 {
            bench.wait(SECOND);
        }
        assert_eq!(bench.completed().len(), 100);
        assert_eq!(bench.store.counts().filling, 1);
        drop(hanging);
        bench.wait(SECOND);
        let counts = bench.store.counts();
        assert_eq!((counts.filling, counts.free), (0, free));
    }
}
