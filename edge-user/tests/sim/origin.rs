//! Origins that are slow, out of order, and not always right: their threads, each of which reads one
//! chunk at a time.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use crossbeam::queue::ArrayQueue;
use edge_ebpf::wire::ChunkId;
use edge_user::cache::fill::Verified;
use edge_user::event_fd::EventFd;
use edge_user::fetch::origin::error::{FetchError, ReadError};
use edge_user::fetch::origin::slots::{Filling, Slots};
use edge_user::fetch::schedule::{Ended, Ends};

use super::catalog::CATALOG;
use super::chance::Chance;
use super::conditions::Conditions;

/// A read under way.
struct Read {
    ends: Duration,
    origin: usize,
    id: ChunkId,
    /// The slot it is read into, or what it comes to.
    found: Result<(Filling, Vec<u8>), ReadError>,
}

pub(crate) struct Origins {
    wanted: Vec<(Receiver<ChunkId>, Slots)>,
    ended: Arc<ArrayQueue<Ended>>,
    wake: EventFd,
    reads: Vec<Read>,
    chance: Chance,
    conditions: Conditions,
    /// Chunks that one of them once did not have, and those it once failed to give.
    pub(crate) absent: HashSet<ChunkId>,
    pub(crate) failed: HashSet<ChunkId>,
}

impl Origins {
    pub(crate) fn new(ends: Ends, wake: EventFd, chance: Chance, with: &Conditions) -> Self {
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
    pub(crate) fn begin_reads(&mut self, now: Duration) {
        for origin in 0..self.wanted.len() {
            while let Ok(id) = self.wanted[origin].0.try_recv() {
                let here = self.reads.iter().filter(|read| read.origin == origin);
                let ids: Vec<ChunkId> = here.map(|read| read.id).collect();
                let with = &self.conditions;
                assert!(
                    ids.len() < with.origin_threads,
                    "I9: a thread for each read"
                );
                assert!(!ids.contains(&id), "I8: one read of a chunk at an origin");
                let hangs = self.chance.permille(with.origin_hangs);
                let wait = if hangs {
                    self.failed.insert(id);
                    with.hang
                } else {
                    self.chance.time(with.origin_delay)
                };
                let found = self.open(origin, id);
                let ends = now + wait;
                self.reads.push(Read {
                    ends,
                    origin,
                    id,
                    found,
                });
            }
        }
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.reads.iter().map(|read| read.ends).min()
    }

    /// Ends what is due.
    pub(crate) fn act(&mut self, now: Duration) {
        while let Some(at) = self.reads.iter().position(|read| read.ends <= now) {
            let Read {
                origin, id, found, ..
            } = self.reads.swap_remove(at);
            let result = found.and_then(|(filling, bytes)| fill(filling, &bytes));
            let pushed = self.ended.push(Ended { origin, id, result });
            assert!(pushed.is_ok(), "I9: there is room for every read");
            self.wake.wake();
        }
    }

    /// What the origin has, and a slot for it.
    fn open(&mut self, origin: usize, id: ChunkId) -> Result<(Filling, Vec<u8>), ReadError> {
        let with = &self.conditions;
        let chunk = CATALOG.chunk(&id);
        let Some(chunk) = chunk.filter(|_| !self.chance.permille(with.origin_absent)) else {
            self.absent.insert(id);
            return Err(FetchError::Absent.into());
        };
        if self.chance.permille(with.origin_fails) {
            self.failed.insert(id);
            return Err(FetchError::Transient("as it was asked to".to_owned()).into());
        }
        let mut bytes = chunk.to_vec();
        if self.chance.permille(with.origin_alters) {
            self.failed.insert(id);
            match self.chance.below(4) {
                0 => bytes.push(0),
                1 => bytes.truncate(bytes.len() - 1),
                2 => bytes.resize(200_000, 0),
                _ => {
                    let at = self.chance.index(bytes.len());
                    bytes[at] ^= 1;
                }
            }
        }
        let filling = self.wanted[origin].1.take(id, bytes.len() as u64)?;
        Ok((filling, bytes))
    }
}

fn fill(mut filling: Filling, bytes: &[u8]) -> Result<Verified, ReadError> {
    let mut rest = bytes;
    for mut segment in filling.segments() {
        let (here, behind) = rest.split_at(segment.len());
        segment.copy_from_slice(here);
        rest = behind;
    }
    Ok(filling.verify()?)
}
