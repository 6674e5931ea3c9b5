//! What readers see of a slot: which chunk, which stay, how long.
//!
//! A worker is told a slot and a generation by the program, and that pair is a hint (I5): the map
//! element it came from may have been reused while it was read. Only what this table confirms is
//! served.

use edge_ebpf::maps::Resident;
use edge_ebpf::wire::ChunkId;

use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Odd while a chunk is resident, even while not; one up with each change.
#[derive(Debug, Default)]
struct Header {
    generation: AtomicU32,
    chunk_bytes: AtomicU32,
    id: [AtomicU64; 4],
}

/// One header for each slot.
#[derive(Debug)]
pub struct SlotTable(Box<[Header]>);

impl SlotTable {
    pub fn new(slots: u32) -> Self {
        Self((0..slots).map(|_| Header::default()).collect())
    }

    /// The length of the chunk, if this slot still holds it, in this stay. True until the calling
    /// worker's next quiescent state (I6).
    #[inline]
    pub fn confirm(&self, mark: Resident, id: &ChunkId) -> Option<u32> {
        let header = self.0.get(mark.slot as usize)?;
        // Acquire: id and length are those of this generation or of a later one, and a later one
        // cannot begin before this worker's next quiescent state.
        let resident = mark.generation & 1 == 1
            && header.generation.load(Ordering::Acquire) == mark.generation;
        let same = || {
            header
                .id
                .iter()
                .zip(words(id))
                .all(|(ours, word)| ours.load(Ordering::Relaxed) == word)
        };
        (resident && same()).then(|| header.chunk_bytes.load(Ordering::Relaxed))
    }

    /// For the writer, which knows that the slot is resident.
    pub(super) fn chunk_bytes(&self, slot: u32) -> u32 {
        self.0[slot as usize].chunk_bytes.load(Ordering::Relaxed)
    }

    /// Begins a stay and returns its generation.
    pub(super) fn publish(&self, slot: u32, id: &ChunkId, chunk_bytes: u32) -> u32 {
        let header = &self.0[slot as usize];
        for (ours, word) in header.id.iter().zip(words(id)) {
            ours.store(word, Ordering::Relaxed);
        }
        header.chunk_bytes.store(chunk_bytes, Ordering::Relaxed);
        let generation = header.generation.load(Ordering::Relaxed).wrapping_add(1);
        assert!(generation & 1 == 1, "the slot was free");
        // Release: who sees the generation sees the id, the length and the bytes.
        header.generation.store(generation, Ordering::Release);
        generation
    }

    /// Ends a stay.
    pub(super) fn withdraw(&self, slot: u32) {
        let header = &self.0[slot as usize];
        let generation = header.generation.load(Ordering::Relaxed).wrapping_add(1);
        assert!(generation & 1 == 0, "the slot was resident");
        header.generation.store(generation, Ordering::Release);
        // Before any look at what the readers announced: see `sys::epochs`.
        fence(Ordering::SeqCst);
    }
}

fn words(id: &ChunkId) -> [u64; 4] {
    let (words, _) = id.0.as_chunks::<8>();
    std::array::from_fn(|place| u64::from_le_bytes(words[place]))
}
