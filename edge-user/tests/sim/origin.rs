//! An origin that is slow, out of order, and not always right.

use std::collections::HashSet;
use std::time::Duration;

use edge_ebpf::wire::ChunkId;
use edge_user::miss::origin::{Asked, FetchResult, Fetched, Results};
use edge_user::sys::receive::Wake;

use super::catalog::CATALOG;
use super::chance::Chance;
use super::conditions::Conditions;

pub(crate) struct Origin {
    asked: Asked,
    results: Results,
    wake: Wake,
    fetches: Vec<(Duration, ChunkId)>,
    chance: Chance,
    conditions: Conditions,
    /// Chunks that it once said it does not have, and those it once failed to give.
    pub(crate) absent: HashSet<ChunkId>,
    pub(crate) failed: HashSet<ChunkId>,
}

impl Origin {
    pub(crate) fn new(
        asked: Asked,
        results: Results,
        wake: Wake,
        chance: Chance,
        with: &Conditions,
    ) -> Self {
        Self {
            asked,
            results,
            wake,
            fetches: Vec::new(),
            chance,
            conditions: with.clone(),
            absent: HashSet::new(),
            failed: HashSet::new(),
        }
    }

    /// Begins what it was asked for, as much as it does at once.
    pub(crate) fn hear(&mut self, now: Duration) {
        while self.fetches.len() + self.results.len() < self.conditions.asks
            && let Ok((id, _)) = self.asked.try_recv()
        {
            let twice = self.fetches.iter().any(|(_, other)| *other == id);
            assert!(!twice, "I8: one fetch for each chunk");
            let wait = self.chance.time(self.conditions.origin_delay);
            self.fetches.push((now + wait, id));
        }
    }

    pub(crate) fn next(&self) -> Option<Duration> {
        self.fetches.iter().map(|(at, _)| *at).min()
    }

    /// Ends what is due.
    pub(crate) fn act(&mut self, now: Duration) {
        while let Some(at) = self.fetches.iter().position(|(at, _)| *at <= now) {
            let (_, id) = self.fetches.swap_remove(at);
            let result = self.result(id);
            let pushed = self.results.push(Fetched {
                id,
                result,
                place: None,
            });
            assert!(pushed.is_ok(), "I9: there is room for every result");
            self.wake.wake();
        }
    }

    fn result(&mut self, id: ChunkId) -> FetchResult {
        let with = &self.conditions;
        let chunk = CATALOG.chunk(&id);
        let Some(chunk) = chunk.filter(|_| !self.chance.permille(with.origin_absent)) else {
            self.absent.insert(id);
            return FetchResult::Absent;
        };
        if self.chance.permille(with.origin_fails) {
            self.failed.insert(id);
            return FetchResult::Failed("as it was told to".to_owned());
        }
        let mut bytes = chunk.to_vec();
        if self.chance.permille(with.origin_alters) {
            self.failed.insert(id);
            match self.chance.below(4) {
                0 => bytes.push(0),
                1 => bytes.truncate(bytes.len() - 1),
                2 => return FetchResult::WrongSize(200_000),
                _ => {
                    let at = self.chance.index(bytes.len());
                    bytes[at] ^= 1;
                }
            }
        }
        FetchResult::Bytes(bytes.into())
    }

    /// Chunks that were asked for and have not been settled: here, or on their way back.
    pub(crate) fn under_way(&self) -> usize {
        self.asked.len() + self.fetches.len() + self.results.len()
    }
}
