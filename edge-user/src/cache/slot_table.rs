//! Each slot's generation, chunk id and length.
//!
//! The slot and generation that the program passes to a worker are a hint (I5): their map element
//! may have been reused while the program read it. Only what this table confirms is served.

use edge_ebpf::maps::Resident;
use edge_ebpf::wire::ChunkId;

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

#[derive(Debug, Default)]
struct Header {
    /// Odd while a chunk is resident; incremented with each change.
    generation: AtomicU32,
    chunk_bytes: AtomicU32,
    id: [AtomicU64; 4],
}

impl Header {
    /// The length of the chunk, if it has this id.
    #[inline]
    fn holds(&self, id: &ChunkId) -> Option<u32> {
        let same = (self.id.iter().zip(words(id)))
            .all(|(ours, word)| ours.load(Ordering::Relaxed) == word);
        same.then(|| self.chunk_bytes.load(Ordering::Relaxed))
    }
}

#[derive(Debug)]
pub(super) struct SlotTable(Box<[Header]>);

impl SlotTable {
    pub(super) fn new(slots: u32) -> Self {
        Self((0..slots).map(|_| Header::default()).collect())
    }

    /// The length of the chunk, if the slot still holds it in the hint's generation. Stays valid
    /// until the calling reader's next quiescent state (I6).
    #[inline]
    pub(super) fn confirm(&self, hint: Resident, id: &ChunkId) -> Option<u32> {
        let header = self.0.get(hint.slot as usize)?;
        // Acquire: id and length are those of this generation or of a later one, and a later one
        // cannot begin before this reader's next quiescent state.
        let resident = hint.generation & 1 == 1
            && header.generation.load(Ordering::Acquire) == hint.generation;
        resident.then(|| header.holds(id))?
    }

    /// Like `confirm`, for any generation.
    #[inline]
    pub(super) fn holds(&self, slot: u32, id: &ChunkId) -> Option<u32> {
        let header = self.0.get(slot as usize)?;
        // Acquire: as in `confirm`.
        let resident = header.generation.load(Ordering::Acquire) & 1 == 1;
        resident.then(|| header.holds(id))?
    }

    /// Makes a chunk resident and returns its generation.
    pub(super) fn publish(&self, slot: u32, id: &ChunkId, chunk_bytes: u32) -> u32 {
        let header = &self.0[slot as usize];
        for (ours, word) in header.id.iter().zip(words(id)) {
            ours.store(word, Ordering::Relaxed);
        }
        header.chunk_bytes.store(chunk_bytes, Ordering::Relaxed);
        let generation = header.generation.load(Ordering::Relaxed).wrapping_add(1);
        assert!(generation & 1 == 1, "the slot was free");
        // Release: a reader that sees the generation sees the id, the length and the bytes.
        header.generation.store(generation, Ordering::Release);
        generation
    }

    /// Ends a generation.
    pub(super) fn withdraw(&self, slot: u32) {
        let header = &self.0[slot as usize];
        let generation = header.generation.load(Ordering::Relaxed).wrapping_add(1);
        assert!(generation & 1 == 0, "the slot was resident");
        header.generation.store(generation, Ordering::Release);
        // Orders this before any load of the readers' epochs: see `sys::epochs`.
        fence(Ordering::SeqCst);
    }
}

fn words(id: &ChunkId) -> [u64; 4] {
    let (words, _) = id.0.as_chunks::<8>();
    std::array::from_fn(|place| u64::from_le_bytes(words[place]))
}
