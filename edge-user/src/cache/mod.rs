//! Chunks in hugepages, as the datagrams they are sent as: one writer, many readers.
//!
//! A chunk's way in is `free → written → verified → resident`, its way out `resident → withdrawn
//! → free`; each state is a type, and there is no other way from one to the next.

/// What readers see of a slot: which chunk, which stay, how long.
pub mod slot_table;
/// Into a slot: packetise, then verify.
pub mod fill;
/// Into the program's map, and out of it.
pub mod publish;

use std::collections::VecDeque;
use std::hash::BuildHasher;
use std::sync::Arc;

use edge_ebpf::maps::Resident;
use edge_ebpf::wire::{CHUNK_BYTES_MAX, ChunkId, DATA_HEADER_BYTES};
use hashbrown::{DefaultHashBuilder, HashTable};

use self::fill::{FreeSlot, Verified};
use self::publish::Publisher;
use self::slot_table::SlotTable;
use crate::counters::StoreCounts;
use crate::limits::{SLOTS_AHEAD, SLOTS_MIN};
use crate::sys::epochs::{Epochs, Lent, Withdrawn};
use crate::sys::mapping::Mapping;
use crate::sys::slab::{Block, Slab};

/// What the workers see of the store.
#[derive(Debug)]
pub struct Shared {
    pub slab: Arc<Slab>,
    pub table: SlotTable,
    pub epochs: Epochs,
    pub segment_bytes: u16,
}

/// A resident chunk, to answer from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRef {
    pub slot: u32,
    pub chunk_bytes: u32,
}

/// The store. I7: only the thread that has this writes.
#[derive(Debug)]
pub struct Store {
    shared: Arc<Shared>,
    publisher: Publisher,
    free: Vec<Block>,
    /// By slot: the block of a resident chunk, and its id.
    resident: Vec<Option<(Lent, ChunkId)>>,
    /// Chunk id to slot; the id itself is in `resident`.
    index: HashTable<u32>,
    hasher: DefaultHashBuilder,
    /// Resident slots, oldest first: what is evicted next.
    order: VecDeque<u32>,
    withdrawn: VecDeque<Withdrawn>,
    /// How many slots are to be free ahead of need.
    ahead: usize,
    published: u64,
    evicted: u64,
}

/// Bytes of one slot: a full chunk as datagrams, so that each begins at a fixed place.
pub const fn slot_bytes(segment_bytes: u16) -> usize {
    let datagrams = CHUNK_BYTES_MAX.div_ceil(segment_bytes as u32) as usize;
    // A cache line each: no two slots share one.
    (datagrams * DATA_HEADER_BYTES + CHUNK_BYTES_MAX as usize).next_multiple_of(64)
}

/// The arena has too few slots to work with.
#[derive(Debug, thiserror::Error)]
#[error("the arena holds {slots} slots of {slot_bytes} bytes and needs {SLOTS_MIN}")]
pub struct TooSmall {
    slots: u32,
    slot_bytes: usize,
}

impl Shared {
    /// Cuts an arena into slots, for this many workers. The blocks go to [`Store::new`].
    pub fn new(
        arena: Mapping,
        arena_bytes: u64,
        segment_bytes: u16,
        workers: usize,
    ) -> Result<(Arc<Self>, Vec<Block>), TooSmall> {
        let slot_bytes = slot_bytes(segment_bytes);
        let slots_max = u32::try_from(arena_bytes / slot_bytes as u64).unwrap_or(u32::MAX);
        let (slab, blocks) = Slab::partition(arena, slot_bytes, slots_max);
        let slots = slab.block_count();
        if slots < SLOTS_MIN {
            return Err(TooSmall { slots, slot_bytes });
        }
        let slab = Arc::new(slab);
        let shared = Self {
            epochs: Epochs::new(Arc::clone(&slab), workers),
            slab,
            table: SlotTable::new(slots),
            segment_bytes,
        };
        Ok((Arc::new(shared), blocks))
    }
}

impl Store {
    pub fn new(shared: Arc<Shared>, blocks: Vec<Block>, publisher: Publisher) -> Self {
        let slots = blocks.len();
        assert!(
            slots == shared.slab.block_count() as usize,
            "every slot is free at the start"
        );
        let mut resident = Vec::new();
        resident.resize_with(slots, || None);
        Self {
            shared,
            publisher,
            free: blocks,
            resident,
            index: HashTable::with_capacity(slots),
            hasher: DefaultHashBuilder::default(),
            order: VecDeque::with_capacity(slots),
            withdrawn: VecDeque::with_capacity(slots),
            ahead: (slots / 16).clamp(1, SLOTS_AHEAD),
            published: 0,
            evicted: 0,
        }
    }

    pub fn shared(&self) -> &Arc<Shared> {
        &self.shared
    }

    pub fn find(&self, id: &ChunkId) -> Option<ChunkRef> {
        let hash = self.hasher.hash_one(id);
        let resident = &self.resident;
        let slot = *self.index.find(hash, |slot| holds(resident, *slot, id))?;
        Some(ChunkRef {
            slot,
            chunk_bytes: self.shared.table.chunk_bytes(slot),
        })
    }

    /// A slot to fill. Nothing, if none is free yet: evictions have then begun, and the slot is
    /// there once every worker has passed a quiescent state and `sends_under_way`, those of the
    /// calling thread, is zero.
    pub fn take_free(&mut self, sends_under_way: usize) -> Option<FreeSlot> {
        self.reclaim(sends_under_way);
        while self.free.len() + self.withdrawn.len() < self.ahead && self.evict() {}
        if self.free.is_empty() {
            self.reclaim(sends_under_way);
        }
        self.free.pop().map(FreeSlot::new)
    }

    /// Puts an unused slot back.
    pub fn put_back(&mut self, slot: FreeSlot) {
        self.free.push(slot.into_piece());
    }

    /// From here on the program may steer here (I4).
    pub fn publish(&mut self, verified: Verified) -> ChunkRef {
        let (block, id, chunk_bytes) = verified.into_parts();
        if let Some(stay) = self.find(&id) {
            // I8 makes this impossible for fetches; a second copy would only waste a slot.
            self.free.push(block);
            return stay;
        }
        let slot = block.index();
        let lent = self.shared.epochs.lend(block);
        let generation = self.shared.table.publish(slot, &id, chunk_bytes);
        self.resident[slot as usize] = Some((lent, id));
        let Self {
            index,
            resident,
            hasher,
            ..
        } = self;
        index.insert_unique(hasher.hash_one(id), slot, |slot| {
            let id = resident[*slot as usize].as_ref().map(|(_, id)| id);
            hasher.hash_one(id.expect("the index names resident slots only"))
        });
        self.order.push_back(slot);
        // Last, so that whoever is steered here finds everything in place.
        self.publisher.insert(&id, Resident { slot, generation });
        self.published += 1;
        ChunkRef { slot, chunk_bytes }
    }

    /// Withdraws the oldest chunk. From here on no new request finds it; those under way may still
    /// read it, until it is reclaimed (I6).
    fn evict(&mut self) -> bool {
        let Some(slot) = self.order.pop_front() else {
            return false;
        };
        let Some((lent, id)) = self.resident[slot as usize].take() else {
            unreachable!("only resident slots are in the order")
        };
        self.publisher.remove(&id);
        let hash = self.hasher.hash_one(id);
        // The id is already gone from `resident`, so the entry is found by its slot.
        if let Ok(entry) = self.index.find_entry(hash, |other| *other == slot) {
            entry.remove();
        }
        self.shared.table.withdraw(slot);
        self.withdrawn.push_back(lent.withdraw());
        self.evicted += 1;
        true
    }

    fn reclaim(&mut self, sends_under_way: usize) {
        // This thread sends from slots too: its own sends hold them as a worker's do.
        if sends_under_way > 0 {
            return;
        }
        while let Some(withdrawn) = self.withdrawn.pop_front() {
            match withdrawn.reclaim() {
                Ok(block) => self.free.push(block),
                Err(too_early) => {
                    self.withdrawn.push_front(too_early);
                    break;
                }
            }
        }
    }

    pub fn counts(&self) -> StoreCounts {
        let slots = self.resident.len() as u64;
        StoreCounts {
            segment_bytes: self.shared.segment_bytes,
            arena_bytes: self.shared.slab.mapping().len_bytes() as u64,
            slot_bytes: self.shared.slab.block_bytes() as u64,
            slots,
            resident: self.order.len() as u64,
            free: self.free.len() as u64,
            withdrawn: self.withdrawn.len() as u64,
            published_total: self.published,
            evicted_total: self.evicted,
            publish_failed_total: self.publisher.failures(),
        }
    }
}

fn holds(resident: &[Option<(Lent, ChunkId)>], slot: u32, id: &ChunkId) -> bool {
    resident[slot as usize]
        .as_ref()
        .is_some_and(|(_, resident)| resident == id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_ebpf::wire::{Geometry, SEGMENT_BYTES_DEFAULT};
    use sha2::{Digest, Sha256};

    const SLOTS: u32 = 64;

    fn store(workers: usize) -> Store {
        let slot_bytes = slot_bytes(SEGMENT_BYTES_DEFAULT);
        let arena_bytes = slot_bytes * SLOTS as usize;
        let arena = Mapping::anonymous(arena_bytes, false).unwrap();
        let (shared, blocks) =
            Shared::new(arena, arena_bytes as u64, SEGMENT_BYTES_DEFAULT, workers).unwrap();
        Store::new(shared, blocks, Publisher::none())
    }

    fn chunk(number: u32) -> (ChunkId, Vec<u8>) {
        let bytes: Vec<u8> = number.to_be_bytes().repeat(700 + number as usize);
        (ChunkId(Sha256::digest(&bytes).into()), bytes)
    }

    fn fill(store: &mut Store, number: u32) -> Option<ChunkRef> {
        let (id, bytes) = chunk(number);
        let slot = store.take_free(0)?;
        let shared = Arc::clone(store.shared());
        let written = slot.write(&shared, id, &bytes).unwrap();
        Some(store.publish(written.verify(&shared).unwrap()))
    }

    #[test]
    fn a_chunk_is_found_until_newer_ones_push_it_out() {
        let mut store = store(0);
        for number in 0..200 {
            let stay = fill(&mut store, number).expect("nobody reads, so slots come free at once");
            assert_eq!(store.find(&chunk(number).0), Some(stay));
        }
        let counts = store.counts();
        assert_eq!(
            counts.resident + counts.free + counts.withdrawn,
            u64::from(SLOTS)
        );
        assert_eq!(counts.published_total, 200);
        assert_eq!(counts.evicted_total, 200 - counts.resident);
        assert_eq!(store.find(&chunk(0).0), None);
        assert!(store.find(&chunk(199).0).is_some());
    }

    #[test]
    fn a_slot_is_not_rewritten_while_a_worker_may_read_it() {
        // I6
        let mut store = store(1);
        let mut reader = store.shared().epochs.reader(0);
        reader.quiescent();
        let mut filled = 0;
        while fill(&mut store, filled).is_some() {
            filled += 1;
            assert!(filled <= SLOTS, "a slot was reused under a reader");
        }
        // The worker saw nothing of the withdrawals yet: every slot is still as it was.
        assert!(store.counts().withdrawn > 0);
        reader.quiescent();
        assert!(fill(&mut store, filled).is_some());
        // Asleep is quiescent for as long as it lasts.
        reader.offline();
        for number in 1000..1000 + 2 * SLOTS {
            assert!(fill(&mut store, number).is_some());
        }
    }

    #[test]
    fn a_slot_is_not_rewritten_while_our_own_send_is_under_way() {
        // I6, for the thread that fills and sends.
        let mut store = store(0);
        for number in 0..SLOTS * 2 {
            fill(&mut store, number);
        }
        while store.take_free(1).is_some_and(|slot| {
            drop(slot.into_piece());
            true
        }) {}
        assert!(store.take_free(1).is_none());
        assert!(store.take_free(0).is_some());
    }

    #[test]
    fn a_stale_mark_is_not_confirmed() {
        // I5: the generation of a slot changes with each stay.
        let mut store = store(0);
        let stay = fill(&mut store, 0).unwrap();
        let (id, _) = chunk(0);
        let mark = |generation| Resident {
            slot: stay.slot,
            generation,
        };
        let table = &store.shared().table;
        let generation = (0..10)
            .find(|g| table.confirm(mark(*g), &id).is_some())
            .unwrap();
        assert_eq!(table.confirm(mark(generation), &id), Some(stay.chunk_bytes));
        assert_eq!(table.confirm(mark(generation), &chunk(1).0), None);
        assert_eq!(table.confirm(mark(generation.wrapping_add(1)), &id), None);
        assert_eq!(
            table.confirm(
                Resident {
                    slot: u32::MAX,
                    generation
                },
                &id
            ),
            None
        );
        for number in 1..SLOTS * 2 {
            fill(&mut store, number);
        }
        assert_eq!(store.shared().table.confirm(mark(generation), &id), None);
    }

    #[test]
    fn bytes_that_are_not_what_the_id_names_are_refused() {
        // I4
        let mut store = store(0);
        let shared = Arc::clone(store.shared());
        let (id, mut bytes) = chunk(5);
        bytes[77] ^= 1;
        let written = store
            .take_free(0)
            .unwrap()
            .write(&shared, id, &bytes)
            .unwrap();
        let slot = written.verify(&shared).unwrap_err();
        store.put_back(slot);
        let empty = store
            .take_free(0)
            .unwrap()
            .write(&shared, id, &[])
            .unwrap_err();
        store.put_back(empty);
        let free = store.counts().free;
        assert_eq!(free, u64::from(SLOTS));
    }

    #[test]
    fn a_slot_holds_the_datagrams_of_the_specification() {
        let mut store = store(0);
        let (id, bytes) = chunk(900);
        let slot = store.take_free(0).unwrap();
        let shared = Arc::clone(store.shared());
        let verified = slot
            .write(&shared, id, &bytes)
            .unwrap()
            .verify(&shared)
            .unwrap();
        let block = verified.into_parts().0;
        let geometry = Geometry::new(u32::try_from(bytes.len()).unwrap(), 1216).unwrap();
        let stored = shared.slab.bytes(&block);
        for index in 0..=geometry.last {
            let (start, len) = geometry.segment(index).unwrap();
            let at = usize::from(index) * (16 + 1216);
            let header = [&[0xed, 0x14, index, geometry.last], &stored[at + 4..at + 8]].concat();
            assert_eq!(stored[at..at + 8], header);
            assert_eq!(
                stored[at + 4..at + 8],
                u32::try_from(bytes.len()).unwrap().to_be_bytes()
            );
            assert_eq!(stored[at + 8..at + 16], id.0[..8]);
            assert_eq!(stored[at + 16..at + 16 + len], bytes[start..start + len]);
        }
    }
}
