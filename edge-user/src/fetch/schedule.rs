//! Which origin is asked for which chunk, and for how long. Knows no clock and no file.
//!
//! A read can hang in the kernel, so to give it up is not to end it: until it ends its chunk is not
//! read again at that origin (I8), and it keeps one of that origin's threads, never another's.
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

/// What came of a fetch.
#[derive(Debug)]
pub struct Fetched {
    pub id: ChunkId,
    pub result: Result<Verified, FetchError>,
}

/// A read that ended.
#[derive(Debug)]
pub struct Ended {
    /// Index of the origin.
    pub origin: usize,
    pub id: ChunkId,
    pub result: Result<Verified, ReadError>,
}

/// A chunk on its way.
#[derive(Debug)]
struct Fetch {
    source: Source,
    /// Index of the origin that is asked; past the last one when all were.
    at: usize,
    /// When the next one is asked.
    until: Instant,
    deadline: Instant,
    /// Why an origin could not help though it may have the chunk, and which one.
    trouble: Option<(usize, FetchError)>,
}

/// One origin, as far as it is busy.
#[derive(Debug)]
struct OriginQueue {
    reads: SyncSender<ChunkId>,
    threads: usize,
    /// Reads that have not ended, and whether they were given up.
    under_way: HashMap<ChunkId, bool>,
    /// How many of them were given up.
    hung: usize,
    waiting: FairQueue,
    /// Seen to be there when no slot was free; read when one is.
    present: VecDeque<ChunkId>,
    slots: Slots,
    /// Slots of the store that are here or with a read, and how many there may be.
    lent: usize,
    lent_max: usize,
}

impl OriginQueue {
    /// Every thread hangs: there is nothing to wait for.
    fn is_stuck(&self) -> bool {
        self.hung == self.threads
    }

    /// Waits no longer for this chunk here.
    fn give_up(&mut self, id: &ChunkId, source: Source) {
        match self.under_way.get_mut(id) {
            Some(given_up) if !*given_up => {
                *given_up = true;
                self.hung += 1;
            }
            Some(_) => {}
            None => {
                self.waiting.remove(source, id);
                self.present.retain(|other| other != id);
            }
        }
    }

    /// A chunk that waits for a thread, when there will be none.
    fn turn_away(&mut self) -> Option<ChunkId> {
        if !self.is_stuck() {
            return None;
        }
        self.present.pop_front().or_else(|| self.waiting.pop())
    }

    /// Starts as many reads as there are threads. Without a slot a thread can still find out that a
    /// chunk is not there.
    fn begin(&mut self) {
        while self.under_way.len() < self.threads {
            let present = if self.slots.is_empty() {
                None
            } else {
                self.present.pop_front()
            };
            let Some(id) = present.or_else(|| self.waiting.pop()) else {
                return;
            };
            self.under_way.insert(id, false);
            // There is room: no more are under way than threads. If these are gone, the read is
            // one that does not end.
            let (Ok(()) | Err(_)) = self.reads.try_send(id);
        }
    }

    /// Slots for the reads there are; those for which there is none go back.
    fn supply(&mut self, store: &mut Store) {
        let reads = self.under_way.len() - self.hung;
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

/// Every fetch, and every read.
#[derive(Debug)]
pub struct Fetches {
    origins: Vec<OriginQueue>,
    ended: Arc<ArrayQueue<Ended>>,
    on_the_way: HashMap<ChunkId, Fetch>,
    /// What came of fetches, and the origin whose slot it is.
    landed: VecDeque<(Option<usize>, Fetched)>,
}

/// The threads' ends: for each origin what to read and slots for it, and where all results go.
pub type Ends = (Vec<(Receiver<ChunkId>, Slots)>, Arc<ArrayQueue<Ended>>);

impl Fetches {
    /// For so many origins, with so many threads and slots for each.
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
                under_way: HashMap::new(),
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
            on_the_way: HashMap::new(),
            landed: VecDeque::new(),
        };
        (fetches, (wanted, ended))
    }

    /// Queues a fetch of a chunk that is not on its way, which [`Self::begin`] begins.
    pub fn ask(&mut self, id: ChunkId, source: Source, now: Instant) {
        let fetch = Fetch {
            source,
            at: 0,
            until: now,
            deadline: now + FETCH_DEADLINE,
            trouble: None,
        };
        self.on_the_way.insert(id, fetch);
        self.go_on(&id, now);
    }

    /// Takes in what the threads have found.
    pub fn hear(&mut self, now: Instant) {
        while let Some(ended) = self.ended.pop() {
            self.end(ended, now);
        }
    }

    /// Gives up what has had its time.
    pub fn expire(&mut self, now: Instant) {
        let due = self
            .on_the_way
            .iter()
            .filter(|(_, fetch)| fetch.until <= now);
        let mut due: Vec<(Instant, ChunkId)> =
            due.map(|(id, fetch)| (fetch.deadline, *id)).collect();
        due.sort_unstable();
        for (_, id) in due {
            let Some(fetch) = self.on_the_way.get_mut(&id) else {
                continue;
            };
            if let Some(queue) = self.origins.get_mut(fetch.at) {
                queue.give_up(&id, fetch.source);
                fetch.trouble = Some((fetch.at, late()));
                fetch.at += 1;
            }
            self.go_on(&id, now);
        }
        for origin in 0..self.origins.len() {
            while let Some(id) = self
                .origins
                .get_mut(origin)
                .and_then(OriginQueue::turn_away)
            {
                self.go_on(&id, now);
            }
        }
    }

    /// What came of the fetch that ended first.
    pub fn take(&mut self) -> Option<Fetched> {
        let (origin, fetched) = self.landed.pop_front()?;
        if let Some(queue) = origin.and_then(|origin| self.origins.get_mut(origin)) {
            queue.lent -= 1;
        }
        Some(fetched)
    }

    /// How many fetches `take` has something of.
    #[cfg(test)]
    pub(super) fn landed(&self) -> usize {
        self.landed.len()
    }

    /// Whether a chunk is waiting for a slot of the store. One that waits for a slot that another
    /// read has is not: the end of that read is reported.
    pub fn wants_slot(&self) -> bool {
        let wants = |queue: &OriginQueue| {
            !queue.present.is_empty() && queue.slots.is_empty() && queue.lent < queue.lent_max
        };
        self.origins.iter().any(wants)
    }

    /// Chunks that were asked for and have not been taken by `take`.
    pub fn under_way(&self) -> usize {
        self.on_the_way.len() + self.landed.len()
    }

    /// For each origin, reads that were given up and have not ended.
    pub fn hung(&self) -> impl Iterator<Item = usize> {
        self.origins.iter().map(|queue| queue.hung)
    }

    /// Starts what there are threads for, and has slots there for what is read.
    pub fn begin(&mut self, store: &mut Store) {
        for queue in &mut self.origins {
            queue.supply(store);
            queue.begin();
        }
    }

    /// Has the chunk wait at the next origin that can be asked, or ends its fetch.
    fn go_on(&mut self, id: &ChunkId, now: Instant) {
        let count = self.origins.len();
        let Some(fetch) = self.on_the_way.get_mut(id) else {
            return;
        };
        while let Some(queue) = self.origins.get_mut(fetch.at) {
            if queue.under_way.contains_key(id) {
                // Begun for an earlier fetch and given up: the others first.
            } else if queue.is_stuck() {
                let reason = format!("all {} reads of this origin hang", queue.threads);
                fetch.trouble = Some((fetch.at, FetchError::Transient(reason)));
            } else if fetch.deadline <= now {
                fetch.trouble = Some((fetch.at, late()));
            } else {
                let share = FETCH_DEADLINE / u32::try_from(count).unwrap_or(u32::MAX);
                fetch.until = fetch.deadline.min(now + share);
                queue.waiting.push(fetch.source, *id);
                return;
            }
            fetch.at += 1;
        }
        // What hangs may end yet.
        fetch.until = fetch.deadline;
        if fetch.deadline <= now || !self.is_read(id) {
            self.land(*id, None);
        }
    }

    fn is_read(&self, id: &ChunkId) -> bool {
        self.origins
            .iter()
            .any(|queue| queue.under_way.contains_key(id))
    }

    fn end(&mut self, ended: Ended, now: Instant) {
        let Ended { origin, id, result } = ended;
        let Some(queue) = self.origins.get_mut(origin) else {
            return;
        };
        if queue.under_way.remove(&id) == Some(true) {
            queue.hung -= 1;
        }
        let Some(fetch) = self.on_the_way.get_mut(&id) else {
            // Nobody waits for it any more.
            if let Ok(verified) = result {
                queue.slots.put(verified.discard());
            }
            return;
        };
        let trouble = match result {
            // Also from an origin that was given up.
            Ok(verified) => return self.land(id, Some((origin, verified))),
            Err(ReadError::NoSlot) if fetch.at == origin => return queue.present.push_back(id),
            Err(ReadError::NoSlot) => Some(late()),
            Err(ReadError::Failed(FetchError::Absent)) => None,
            Err(ReadError::Failed(error)) => Some(error),
        };
        match trouble {
            Some(trouble) => fetch.trouble = Some((origin, trouble)),
            // It was only late.
            None if (fetch.trouble.as_ref()).is_some_and(|(of, _)| *of == origin) => {
                fetch.trouble = None;
            }
            None => {}
        }
        if fetch.at == origin {
            fetch.at += 1;
            self.go_on(&id, now);
        } else if fetch.at == self.origins.len() && !self.is_read(&id) {
            self.land(id, None);
        }
    }

    /// Ends a fetch.
    fn land(&mut self, id: ChunkId, found: Option<(usize, Verified)>) {
        let Some(fetch) = self.on_the_way.remove(&id) else {
            return;
        };
        let hangs = self.is_read(&id);
        for queue in &mut self.origins {
            queue.give_up(&id, fetch.source);
        }
        let origin = found.as_ref().map(|(origin, _)| *origin);
        let result = match (found, fetch.trouble) {
            (Some((_, verified)), _) => Ok(verified),
            (None, _) if hangs => Err(late()),
            (None, Some((_, trouble))) => Err(trouble),
            (None, None) => Err(FetchError::Absent),
        };
        self.landed.push_back((origin, Fetched { id, result }));
    }
}

fn late() -> FetchError {
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

    /// Fetches, with the threads' ends in the test's hands.
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
            self.fetches.ask(id(number), SOURCE, self.now);
            self.fetches.begin(&mut self.store);
        }

        /// What threads of an origin were given to read since the last look.
        fn begun(&self, origin: usize) -> Vec<u8> {
            let reads = self.ends.0[origin].0.try_iter();
            reads.map(|id| id.0[0]).collect()
        }

        fn end(&mut self, origin: usize, number: u8, result: Result<Verified, ReadError>) {
            let id = id(number);
            let ended = Ended { origin, id, result };
            self.ends.1.push(ended).unwrap();
            self.fetches.hear(self.now);
            self.fetches.begin(&mut self.store);
        }

        /// A thread of the origin takes a slot.
        fn open(&self, origin: usize) -> Filling {
            // It is another chunk's name, which nobody looks at here.
            let chunk = ChunkId(Sha256::digest([7]).into());
            self.ends.0[origin].1.take(chunk, 1).unwrap()
        }

        /// The read finds a chunk.
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

        /// What has landed: which chunks, and a word for each.
        fn landed(&mut self) -> Vec<(u8, String)> {
            let mut word = |result: Result<Verified, FetchError>| match result {
                Ok(verified) => {
                    self.store.put_back(verified.discard());
                    "chunk".to_owned()
                }
                Err(FetchError::Absent) => "absent".to_owned(),
                Err(FetchError::Transient(reason) | FetchError::Corrupt(reason)) => reason,
            };
            let mut list = Vec::new();
            while let Some(fetched) = self.fetches.take() {
                list.push((fetched.id.0[0], word(fetched.result)));
            }
            list
        }
    }

    fn words(landed: &[(u8, &str)]) -> Vec<(u8, String)> {
        let owned = landed.iter().map(|(id, word)| (*id, (*word).to_owned()));
        owned.collect()
    }

    const LATE: &str = "no answer within 10 s";

    #[test]
    fn a_read_that_was_given_up_is_not_begun_again_until_it_has_ended() {
        // I8
        let mut bench = bench(1);
        bench.ask(1);
        assert_eq!(bench.begun(0), [1]);
        bench.wait(FETCH_DEADLINE);
        assert_eq!(bench.landed(), words(&[(1, LATE)]));
        for _ in 0..3 {
            // It may end yet, so that whoever asks again waits for it, and not for ever.
            bench.ask(1);
            bench.wait(SECOND);
            assert_eq!(bench.landed(), []);
            bench.wait(FETCH_DEADLINE);
            assert_eq!(bench.landed(), words(&[(1, LATE)]));
        }
        assert_eq!((bench.begun(0), bench.hung()), (vec![], vec![1]));
        bench.ask(1);
        bench.end(
            0,
            1,
            Err(FetchError::Transient("a disk error".to_owned()).into()),
        );
        assert_eq!(bench.landed(), words(&[(1, "a disk error")]));
        assert_eq!(bench.hung(), [0]);
        bench.ask(1);
        assert_eq!(bench.begun(0), [1]);
    }

    #[test]
    fn what_comes_late_is_for_those_that_ask_again() {
        let mut bench = bench(1);
        bench.ask(1);
        let filling = bench.open(0);
        bench.wait(FETCH_DEADLINE);
        bench.landed();
        bench.ask(1);
        bench.end_well(0, 1, filling);
        assert_eq!(bench.landed(), words(&[(1, "chunk")]));
        // And for nobody, when nobody asks.
        bench.ask(2);
        let filling = bench.open(0);
        bench.wait(FETCH_DEADLINE);
        bench.landed();
        bench.end_well(0, 2, filling);
        assert_eq!(bench.landed(), []);
        assert_eq!((bench.hung(), bench.fetches.under_way()), (vec![0], 0));
        assert_eq!(bench.store.counts().filling, 0);
    }

    #[test]
    fn an_origin_that_hangs_uses_only_its_own_threads_and_is_then_passed_over() {
        let mut bench = bench(2);
        for number in 0..4 {
            bench.ask(number);
        }
        assert_eq!(bench.begun(0), [0, 1, 2, 3]);
        bench.wait(SECOND);
        // These wait for a thread, and no longer than one can come free.
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
        assert_eq!(bench.landed().len(), 6);
        // From now on the second is asked at once.
        bench.ask(100);
        assert_eq!(bench.begun(1), [100]);
        bench.end(1, 100, Err(FetchError::Absent.into()));
        let stuck = "all 4 reads of this origin hang";
        assert_eq!(bench.landed(), words(&[(100, stuck)]));
        // As soon as one ends, the first is asked again.
        bench.end(0, 0, Err(FetchError::Absent.into()));
        bench.ask(101);
        assert_eq!(bench.begun(0), [101]);
        assert_eq!(bench.hung(), [THREADS - 1, 0]);
    }

    #[test]
    fn a_chunk_that_hangs_at_one_origin_is_asked_of_the_next_at_once() {
        let mut bench = bench(2);
        bench.ask(1);
        bench.wait(FETCH_DEADLINE / 2);
        assert_eq!(bench.begun(1), [1]);
        let filling = bench.open(1);
        bench.end_well(1, 1, filling);
        assert_eq!(bench.landed(), words(&[(1, "chunk")]));
        bench.begun(0);
        // It was evicted, say.
        bench.ask(1);
        assert_eq!((bench.begun(0), bench.begun(1)), (vec![], vec![1]));
        // Not there, and the first may have it: wait for that, and no longer than for any.
        bench.end(1, 1, Err(FetchError::Absent.into()));
        assert_eq!(bench.landed(), []);
        bench.end(0, 1, Err(FetchError::Absent.into()));
        assert_eq!(bench.landed(), words(&[(1, "absent")]));
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
        let landed = bench.landed();
        assert_eq!(landed.len(), 100);
        let failed = |(_, word): &(u8, String)| word == LATE || word.contains("hang");
        assert!(landed.iter().all(failed), "{landed:?}");
        assert_eq!(bench.fetches.under_way(), 0);
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
        // One that hangs keeps what it has, and one that finds no slot is read again.
        let begun = bench.begun(0);
        let hanging = bench.open(0);
        bench.end(0, begun[1], Err(ReadError::NoSlot));
        assert!(bench.begun(0).contains(&begun[1]));
        for _ in 0..10 {
            bench.wait(SECOND);
        }
        assert_eq!(bench.landed().len(), 100);
        assert_eq!(bench.store.counts().filling, 1);
        drop(hanging);
        bench.wait(SECOND);
        let counts = bench.store.counts();
        assert_eq!((counts.filling, counts.free), (0, free));
    }
}
