//! Which origin is asked for which chunk, and for how long. Knows no clock and no file.
//!
//! A read can hang in the kernel, so to give it up is not to end it: until it ends its chunk is not
//! read again at that origin (I8), and it keeps one of that origin's threads, never another's.
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Instant;

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use edge_ebpf::wire::ChunkId;
use hashbrown::HashMap;

use super::fair_queue::Turns;
use super::origin::pool::{Buffer, Ended, Found, Read, Spare};
use super::source::Source;
use crate::limits::FETCH_DEADLINE;

/// What came of a fetch.
#[derive(Debug)]
pub struct Fetched {
    pub id: ChunkId,
    pub result: FetchResult,
}

#[derive(Debug)]
pub enum FetchResult {
    /// Bytes that call themselves this chunk; the fill compares them, where they come to lie.
    Bytes(Bytes),
    Absent,
    /// Could not be asked or read in time; says why.
    Failed(String),
    /// Bytes that are not this chunk.
    Altered,
    /// Is there, and cannot be a chunk: this many bytes.
    WrongSize(u64),
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
    trouble: Option<(usize, FetchResult)>,
}

/// One origin, as far as it is busy.
#[derive(Debug)]
struct Line {
    reads: SyncSender<Read>,
    threads: usize,
    /// Reads that have not ended, and whether they were given up.
    under_way: HashMap<ChunkId, bool>,
    /// How many of them were given up.
    hung: usize,
    waiting: Turns,
    /// Seen to be there when no buffer was free; read when one is.
    present: VecDeque<ChunkId>,
    spare: Spare,
}

impl Line {
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

    /// Starts as many reads as there are threads. Without a buffer a thread can still find out that
    /// a chunk is not there.
    fn begin(&mut self, is_last: bool) {
        while self.under_way.len() < self.threads {
            let buffer = self.spare.pop();
            let next = (buffer.as_ref())
                .and_then(|_| self.present.pop_front())
                .or_else(|| self.waiting.pop());
            let buffer = buffer.map(|bytes| Buffer::new(bytes, &self.spare));
            let Some(id) = next else { return };
            self.under_way.insert(id, false);
            let read = Read {
                id,
                buffer,
                compare: !is_last,
            };
            // There is room: no more are under way than threads. If these are gone, the read is
            // one that does not end.
            let (Ok(()) | Err(_)) = self.reads.try_send(read);
        }
    }
}

/// Every fetch, and every read.
#[derive(Debug)]
pub struct Fetches {
    lines: Vec<Line>,
    ended: Arc<ArrayQueue<Ended>>,
    on_the_way: HashMap<ChunkId, Fetch>,
    landed: VecDeque<Fetched>,
}

/// The threads' ends: for each origin what to read, and where what was found goes.
pub type Ends = (Vec<Receiver<Read>>, Arc<ArrayQueue<Ended>>);

impl Fetches {
    /// For so many origins, with so many threads each, and so many chunks of each in memory.
    pub fn new(origins: usize, threads: usize, buffers: usize) -> (Self, Ends) {
        let line = || {
            let (reads, wanted) = sync_channel(threads);
            let line = Line {
                reads,
                threads,
                under_way: HashMap::new(),
                hung: 0,
                waiting: Turns::default(),
                present: VecDeque::new(),
                spare: Buffer::spare(buffers),
            };
            (line, wanted)
        };
        let (lines, wanted) = (0..origins).map(|_| line()).unzip();
        let ended = Arc::new(ArrayQueue::new((origins * threads).max(1)));
        let fetches = Self {
            lines,
            ended: Arc::clone(&ended),
            on_the_way: HashMap::new(),
            landed: VecDeque::new(),
        };
        (fetches, (wanted, ended))
    }

    /// Begins to fetch a chunk that is not on its way.
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
        self.begin();
    }

    /// Takes in what the threads have found.
    pub fn hear(&mut self, now: Instant) {
        while let Some(ended) = self.ended.pop() {
            self.end(ended, now);
        }
        self.begin();
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
            if let Some(line) = self.lines.get_mut(fetch.at) {
                line.give_up(&id, fetch.source);
                fetch.trouble = Some((fetch.at, late()));
                fetch.at += 1;
            }
            self.go_on(&id, now);
        }
        for origin in 0..self.lines.len() {
            while let Some(id) = self.lines.get_mut(origin).and_then(Line::turn_away) {
                self.go_on(&id, now);
            }
        }
        self.begin();
    }

    /// What came of the fetch that ended first.
    pub fn take(&mut self) -> Option<Fetched> {
        self.landed.pop_front()
    }

    /// The same, among those that need no slot.
    pub fn take_without_bytes(&mut self) -> Option<Fetched> {
        let needs_none = |fetched: &Fetched| !matches!(fetched.result, FetchResult::Bytes(_));
        let at = self.landed.iter().position(needs_none)?;
        self.landed.remove(at)
    }

    /// Whether `take`, or with no slot free `take_without_bytes`, has something to give.
    pub fn has_landed(&self, slot: bool) -> bool {
        let needs_none = |fetched: &Fetched| !matches!(fetched.result, FetchResult::Bytes(_));
        self.landed
            .iter()
            .any(|fetched| slot || needs_none(fetched))
    }

    /// Chunks that were asked for and have not been taken by `take`.
    pub fn under_way(&self) -> usize {
        self.on_the_way.len() + self.landed.len()
    }

    /// For each origin, reads that were given up and have not ended.
    pub fn hung(&self) -> impl Iterator<Item = usize> {
        self.lines.iter().map(|line| line.hung)
    }

    /// Starts what there are threads and buffers for.
    pub fn begin(&mut self) {
        let count = self.lines.len();
        for (line, number) in self.lines.iter_mut().zip(1..) {
            line.begin(number == count);
        }
    }

    /// Has the chunk wait at the next origin that can be asked, or ends its fetch.
    fn go_on(&mut self, id: &ChunkId, now: Instant) {
        let count = self.lines.len();
        let Some(fetch) = self.on_the_way.get_mut(id) else {
            return;
        };
        while let Some(line) = self.lines.get_mut(fetch.at) {
            if line.under_way.contains_key(id) {
                // Begun for an earlier fetch and given up: the others first.
            } else if line.is_stuck() {
                let reason = format!("all {} reads of this origin hang", line.threads);
                fetch.trouble = Some((fetch.at, FetchResult::Failed(reason)));
            } else if fetch.deadline <= now {
                fetch.trouble = Some((fetch.at, late()));
            } else {
                let share = FETCH_DEADLINE / u32::try_from(count).unwrap_or(u32::MAX);
                fetch.until = fetch.deadline.min(now + share);
                line.waiting.push(fetch.source, *id);
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
        self.lines
            .iter()
            .any(|line| line.under_way.contains_key(id))
    }

    fn end(&mut self, ended: Ended, now: Instant) {
        let Ended { origin, id, found } = ended;
        let line = &mut self.lines[origin];
        if line.under_way.remove(&id) == Some(true) {
            line.hung -= 1;
        }
        let Some(fetch) = self.on_the_way.get_mut(&id) else {
            return;
        };
        let trouble = match found {
            // Right, or there is no other origin to ask; also from one that was given up.
            Found::Bytes(bytes) => return self.land(id, Some(bytes)),
            Found::NoBuffer if fetch.at == origin => return line.present.push_back(id),
            Found::NoBuffer => Some(late()),
            Found::Absent => None,
            Found::Failed(reason) => Some(FetchResult::Failed(reason)),
            Found::Altered => Some(FetchResult::Altered),
            Found::WrongSize(size_bytes) => Some(FetchResult::WrongSize(size_bytes)),
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
        } else if fetch.at == self.lines.len() && !self.is_read(&id) {
            self.land(id, None);
        }
    }

    /// Ends a fetch.
    fn land(&mut self, id: ChunkId, bytes: Option<Bytes>) {
        let Some(fetch) = self.on_the_way.remove(&id) else {
            return;
        };
        let hangs = self.is_read(&id);
        for line in &mut self.lines {
            line.give_up(&id, fetch.source);
        }
        let result = match bytes {
            Some(bytes) => FetchResult::Bytes(bytes),
            None if hangs => late(),
            None => fetch
                .trouble
                .map_or(FetchResult::Absent, |(_, trouble)| trouble),
        };
        self.landed.push_back(Fetched { id, result });
    }
}

fn late() -> FetchResult {
    let seconds = FETCH_DEADLINE.as_secs();
    FetchResult::Failed(format!("no answer within {seconds} s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use std::time::Duration;

    const SOURCE: Source = Source::V4([192, 0, 2, 7]);
    const THREADS: usize = 4;
    const SECOND: Duration = Duration::from_secs(1);

    /// Fetches, with the threads' ends in the test's hands.
    struct Bench {
        fetches: Fetches,
        ends: Ends,
        now: Instant,
    }

    fn id(number: u8) -> ChunkId {
        ChunkId([number; 32])
    }

    fn bench(origins: usize) -> Bench {
        let (fetches, ends) = Fetches::new(origins, THREADS, 8);
        let now = clock::now();
        Bench { fetches, ends, now }
    }

    impl Bench {
        fn ask(&mut self, number: u8) {
            self.fetches.ask(id(number), SOURCE, self.now);
        }

        /// What threads of an origin were given to read since the last look.
        fn begun(&self, origin: usize) -> Vec<u8> {
            let reads = self.ends.0[origin].try_iter();
            reads.map(|read| read.id.0[0]).collect()
        }

        fn end(&mut self, origin: usize, number: u8, found: Found) {
            let id = id(number);
            let ended = Ended { origin, id, found };
            self.ends.1.push(ended).unwrap();
            self.fetches.hear(self.now);
        }

        fn wait(&mut self, time: Duration) {
            self.now += time;
            self.fetches.expire(self.now);
        }

        fn hung(&self) -> Vec<usize> {
            self.fetches.hung().collect()
        }

        /// What has landed: which chunks, and a word for each.
        fn landed(&mut self) -> Vec<(u8, String)> {
            let landed = std::iter::from_fn(|| self.fetches.take());
            let word = |result: FetchResult| match result {
                FetchResult::Bytes(_) => "bytes".to_owned(),
                FetchResult::Absent => "absent".to_owned(),
                FetchResult::Failed(reason) => reason,
                FetchResult::Altered => "altered".to_owned(),
                FetchResult::WrongSize(_) => "wrong size".to_owned(),
            };
            landed
                .map(|fetched| (fetched.id.0[0], word(fetched.result)))
                .collect()
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
        bench.end(0, 1, Found::Failed("a disk error".to_owned()));
        assert_eq!(bench.landed(), words(&[(1, "a disk error")]));
        assert_eq!(bench.hung(), [0]);
        bench.ask(1);
        assert_eq!(bench.begun(0), [1]);
    }

    #[test]
    fn what_comes_late_is_for_those_that_ask_again() {
        let mut bench = bench(1);
        bench.ask(1);
        bench.wait(FETCH_DEADLINE);
        bench.landed();
        bench.ask(1);
        bench.end(0, 1, Found::Bytes(Bytes::from_static(b"chunk")));
        assert_eq!(bench.landed(), words(&[(1, "bytes")]));
        // And for nobody, when nobody asks.
        bench.ask(2);
        bench.wait(FETCH_DEADLINE);
        bench.landed();
        bench.end(0, 2, Found::Bytes(Bytes::from_static(b"chunk")));
        assert_eq!(bench.landed(), []);
        assert_eq!((bench.hung(), bench.fetches.under_way()), (vec![0], 0));
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
                bench.end(1, number, Found::Bytes(Bytes::from_static(b"chunk")));
            }
        }
        assert_eq!(bench.landed().len(), 6);
        // From now on the second is asked at once.
        bench.ask(100);
        assert_eq!(bench.begun(1), [100]);
        bench.end(1, 100, Found::Absent);
        let stuck = "all 4 reads of this origin hang";
        assert_eq!(bench.landed(), words(&[(100, stuck)]));
        // As soon as one ends, the first is asked again.
        bench.end(0, 0, Found::Absent);
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
        bench.end(1, 1, Found::Bytes(Bytes::from_static(b"chunk")));
        assert_eq!(bench.landed(), words(&[(1, "bytes")]));
        bench.begun(0);
        // It was evicted, say.
        bench.ask(1);
        assert_eq!((bench.begun(0), bench.begun(1)), (vec![], vec![1]));
        // Not there, and the first may have it: wait for that, and no longer than for any.
        bench.end(1, 1, Found::Absent);
        assert_eq!(bench.landed(), []);
        bench.end(0, 1, Found::Absent);
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
}
