//! Origins that are slow, out of order, and not always right: their threads, each of which reads one
//! chunk at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use edge_ebpf::wire::ChunkId;
use edge_user::fetch::origin::pool::{Ended, Found, Read};
use edge_user::fetch::schedule::Ends;
use edge_user::sys::receive::Wake;

use super::catalog::CATALOG;
use super::chance::Chance;
use super::conditions::Conditions;

pub(crate) struct Origins {
    wanted: Vec<Receiver<Read>>,
    ended: Arc<ArrayQueue<Ended>>,
    wake: Wake,
    /// When it ends, at which origin.
    reads: Vec<(Duration, usize, Read)>,
    chance: Chance,
    conditions: Conditions,
    /// Chunks that one of them once did not have, and those it once failed to give.
    pub(crate) absent: HashSet<ChunkId>,
    pub(crate) failed: HashSet<ChunkId>,
}

impl Origins {
    pub(crate) fn new(ends: Ends, wake: Wake, chance: Chance, with: &Conditions) -> Self {
        let (wanted, ended) = ends;
        Self {
            wanted,
            ended,
            wake,
            reads: Vec::new(),
            chance,
            conditions: with.clone(),
            absent: HashSet::new(),
            failed: HashSet::new(),
        }
    }

    /// Begins what was asked for.
    pub(crate) fn hear(&mut self, now: Duration) {
        let with = &self.conditions;
        for (origin, wanted) in self.wanted.iter().enumerate() {
            for read in wanted.try_iter() {
                let here = self.reads.iter().filter(|(_, other, _)| *other == origin);
                let ids: Vec<ChunkId> = here.map(|(.., read)| read.id).collect();
                assert!(
                    ids.len() < with.origin_threads,
                    "I9: a thread for each read"
                );
                assert!(
                    !ids.contains(&read.id),
                    "I8: one read of a chunk at an origin"
                );
                let hangs = self.chance.permille(with.origin_hangs);
                let wait = if hangs {
                    self.failed.insert(read.id);
                    with.hang
                } else {
                    self.chance.time(with.origin_delay)
                };
                self.reads.push((now + wait, origin, read));
            }
        }
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.reads.iter().map(|(at, ..)| *at).min()
    }

    /// Ends what is due.
    pub(crate) fn act(&mut self, now: Duration) {
        while let Some(at) = self.reads.iter().position(|(at, ..)| *at <= now) {
            let (_, origin, read) = self.reads.swap_remove(at);
            let (id, found) = (read.id, self.found(read));
            let pushed = self.ended.push(Ended { origin, id, found });
            assert!(pushed.is_ok(), "I9: there is room for every read");
            self.wake.wake();
        }
    }

    fn found(&mut self, read: Read) -> Found {
        let with = &self.conditions;
        let id = read.id;
        let chunk = CATALOG.chunk(&id);
        let Some(chunk) = chunk.filter(|_| !self.chance.permille(with.origin_absent)) else {
            self.absent.insert(id);
            return Found::Absent;
        };
        if self.chance.permille(with.origin_fails) {
            self.failed.insert(id);
            return Found::Failed("as it was told to".to_owned());
        }
        let Some(buffer) = read.buffer else {
            return Found::NoBuffer;
        };
        let mut bytes = chunk.to_vec();
        if self.chance.permille(with.origin_alters) {
            self.failed.insert(id);
            match self.chance.below(4) {
                0 => bytes.push(0),
                1 => bytes.truncate(bytes.len() - 1),
                2 => return Found::WrongSize(200_000),
                _ => {
                    let at = self.chance.index(bytes.len());
                    bytes[at] ^= 1;
                }
            }
            if read.compare {
                return Found::Altered;
            }
        }
        Found::Bytes(buffer.read(&*bytes).expect("bytes can be read"))
    }
}
