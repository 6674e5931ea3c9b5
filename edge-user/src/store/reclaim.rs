//! Out of a slot: wait until nobody reads it (I6).
//!
//! Time is counted in epochs, one a withdrawal. A worker announces the epoch it has seen whenever
//! it holds no slot: between two batches, with no send under way. A slot withdrawn in epoch e may
//! be written again once every worker has announced e or later.
//!
//! The order that makes it sound: the writer ends the stay, fences, reads the announcements; a
//! worker announces, fences, reads the stay. One of the two sees the other.

use std::sync::Arc;

use crossbeam::utils::CachePadded;

use crate::sync::{AtomicU64, Ordering, fence};
use crate::sys::slab::Piece;

/// What a worker announces while it sleeps: it holds nothing, whatever the epoch.
const OFFLINE: u64 = u64::MAX;

/// The epoch, and what each worker has announced.
#[derive(Clone, Debug)]
pub struct Epochs(Arc<Announcements>);

#[derive(Debug)]
struct Announcements {
    current: CachePadded<AtomicU64>,
    workers: Box<[CachePadded<AtomicU64>]>,
}

/// A worker's own announcement.
#[derive(Debug)]
pub struct Reader {
    announcements: Arc<Announcements>,
    worker: usize,
}

/// A slot that was withdrawn and may still be read.
#[derive(Debug)]
#[must_use = "a slot let go is lost for good"]
pub struct Withdrawn {
    piece: Piece,
    epoch: u64,
}

impl Epochs {
    pub fn new(workers: usize) -> Self {
        // A worker that has not started holds nothing.
        let workers = (0..workers)
            .map(|_| CachePadded::new(AtomicU64::new(OFFLINE)))
            .collect();
        let current = CachePadded::new(AtomicU64::new(0));
        Self(Arc::new(Announcements { current, workers }))
    }

    /// The announcement of one worker; that worker alone makes it.
    pub fn reader(&self, worker: usize) -> Reader {
        assert!(worker < self.0.workers.len(), "the worker was counted");
        Reader {
            announcements: Arc::clone(&self.0),
            worker,
        }
    }

    /// Begins the wait for a slot whose stay has ended.
    pub(super) fn withdraw(&self, piece: Piece) -> Withdrawn {
        let epoch = self.0.current.fetch_add(1, Ordering::SeqCst) + 1;
        Withdrawn { piece, epoch }
    }

    /// The epoch that every worker has announced, or passed.
    pub(super) fn passed_by_all(&self) -> u64 {
        fence(Ordering::SeqCst);
        let announced = self
            .0
            .workers
            .iter()
            .map(|worker| worker.load(Ordering::Acquire));
        announced.min().unwrap_or(OFFLINE)
    }
}

impl Reader {
    /// Holds no slot, and has no send under way.
    #[inline]
    pub fn quiescent(&self) {
        let Announcements { current, workers } = &*self.announcements;
        let epoch = current.load(Ordering::Acquire);
        // Release: what this worker read from slots, it read before.
        workers[self.worker].store(epoch, Ordering::Release);
        // Before any look at a stay.
        fence(Ordering::SeqCst);
    }

    /// Holds no slot until the next [`Self::quiescent`]: before sleeping, and at the end.
    pub fn offline(&self) {
        self.announcements.workers[self.worker].store(OFFLINE, Ordering::Release);
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.offline();
    }
}

impl Withdrawn {
    pub(super) fn reclaim(self, passed_by_all: u64) -> Result<Piece, Self> {
        if passed_by_all >= self.epoch {
            Ok(self.piece)
        } else {
            Err(self)
        }
    }
}
