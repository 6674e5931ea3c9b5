//! The writer: free slots, resident chunks and the order of eviction.

use std::collections::VecDeque;
use std::sync::Arc;

use edge_ebpf::maps::Resident;
use edge_ebpf::wire::ChunkId;

use super::fill::{FreeSlot, Verified};
use super::layout::Layout;
use super::lease::CacheView;
use super::publish::Publisher;
use crate::counters::StoreCounts;
use crate::limits::{SLOTS_AHEAD, SLOTS_MIN};
use crate::sys::epochs::{InUse, Lent, Withdrawn};
use crate::sys::mapping::Mapping;
use crate::sys::slab::{Block, Slab};

/// Owned by the only thread that writes the cache (I7).
#[derive(Debug)]
pub struct Store {
    view: Arc<CacheView>,
    publisher: Publisher,
    free: Vec<Block>,
    /// The block and id of the resident chunk, by slot.
    resident: Vec<Option<(Lent, ChunkId)>>,
    /// Resident slots, oldest first: the order of eviction.
    order: VecDeque<u32>,
    withdrawn: VecDeque<Withdrawn>,
    /// Withdrawn, and kept from being free by owned leases only.
    owned: Vec<Withdrawn>,
    /// Slots that are being filled.
    taken: usize,
    /// How many slots to keep free ahead of need.
    ahead: usize,
    published: u64,
    evicted: u64,
}

/// The arena has too few slots.
#[derive(Debug, thiserror::Error)]
#[error("the arena holds {slots} slots of {slot_bytes} bytes and needs {SLOTS_MIN}")]
pub struct TooSmall {
    slots: u32,
    slot_bytes: usize,
}

/// Divides an arena into slots. The result is what [`Store::new`] takes.
pub fn divide(
    arena: Mapping,
    arena_bytes: u64,
    layout: Layout,
    readers: usize,
) -> Result<(Arc<CacheView>, Vec<Block>), TooSmall> {
    let slot_bytes = layout.slot_bytes();
    let slots_max = u32::try_from(arena_bytes / slot_bytes as u64).unwrap_or(u32::MAX);
    let (slab, blocks) = Slab::partition(arena, slot_bytes, slots_max);
    let slots = slab.block_count();
    if slots < SLOTS_MIN {
        return Err(TooSmall { slots, slot_bytes });
    }
    Ok((Arc::new(CacheView::new(slab, layout, readers)), blocks))
}

impl Store {
    pub fn new(view: Arc<CacheView>, blocks: Vec<Block>, publisher: Publisher) -> Self {
        let slots = blocks.len();
        assert!(
            slots == view.epochs.slab().block_count() as usize,
            "every slot is free at the start"
        );
        let mut resident = Vec::new();
        resident.resize_with(slots, || None);
        Self {
            view,
            publisher,
            free: blocks,
            resident,
            order: VecDeque::with_capacity(slots),
            withdrawn: VecDeque::with_capacity(slots),
            owned: Vec::new(),
            taken: 0,
            ahead: (slots / 16).clamp(1, SLOTS_AHEAD),
            published: 0,
            evicted: 0,
        }
    }

    pub fn view(&self) -> &Arc<CacheView> {
        &self.view
    }

    /// Unlike a reader's lookup, this never misses a resident chunk.
    pub fn is_resident(&self, id: &ChunkId) -> bool {
        let is_it = |slot: u32| self.id_of(slot).filter(|resident| resident == id);
        self.view.index.find(id, is_it).is_some()
    }

    fn id_of(&self, slot: u32) -> Option<ChunkId> {
        let resident = self.resident.get(slot as usize)?;
        resident.as_ref().map(|(_, id)| *id)
    }

    /// A slot to fill. `None` if none is free yet: eviction has then begun, and a slot becomes free
    /// once every reader has been quiescent.
    pub fn take_free(&mut self) -> Option<FreeSlot> {
        self.reclaim();
        while self.free.len() + self.withdrawn.len() < self.ahead && self.evict() {}
        if self.free.is_empty() {
            self.reclaim();
        }
        let slot = self.free.pop().map(FreeSlot::new);
        self.taken += usize::from(slot.is_some());
        slot
    }

    pub fn put_back(&mut self, slot: FreeSlot) {
        self.taken -= 1;
        self.free.push(slot.into_block());
    }

    /// Makes the chunk visible to readers and to the XDP program (I4).
    pub fn publish(&mut self, verified: Verified) {
        let (block, id, chunk_bytes) = verified.into_parts();
        self.taken -= 1;
        if self.is_resident(&id) {
            // I8 makes this impossible for fetches; a second copy would only waste a slot.
            self.free.push(block);
            return;
        }
        let slot = block.index();
        let lent = self.view.epochs.lend(block);
        let generation = self.view.table.publish(slot, &id, chunk_bytes);
        self.resident[slot as usize] = Some((lent, id));
        self.view.index.insert(&id, slot);
        self.order.push_back(slot);
        // Last, so that a steered request finds everything in place.
        self.publisher.insert(&id, Resident { slot, generation });
        self.published += 1;
    }

    /// Withdraws the oldest chunk. New requests no longer find it; requests in progress may read it
    /// until it is reclaimed (I6).
    fn evict(&mut self) -> bool {
        let Some(slot) = self.order.pop_front() else {
            return false;
        };
        let Some(id) = self.id_of(slot) else {
            unreachable!("only resident slots are in the order")
        };
        self.publisher.remove(&id);
        let resident = |slot| {
            self.id_of(slot)
                .expect("the index names resident slots only")
        };
        self.view.index.remove(&id, slot, resident);
        self.view.table.withdraw(slot);
        if let Some((lent, _)) = self.resident[slot as usize].take() {
            self.withdrawn.push_back(lent.withdraw());
        }
        self.evicted += 1;
        true
    }

    fn reclaim(&mut self) {
        let owned = std::mem::take(&mut self.owned);
        for withdrawn in owned {
            self.take_back(withdrawn);
        }
        while let Some(withdrawn) = self.withdrawn.pop_front() {
            if !self.take_back(withdrawn) {
                break;
            }
        }
    }

    /// Returns false if a reader pins the slot, and so all that were withdrawn later.
    fn take_back(&mut self, withdrawn: Withdrawn) -> bool {
        match withdrawn.reclaim() {
            Ok(block) => self.free.push(block),
            Err(InUse::Owned(withdrawn)) => self.owned.push(withdrawn),
            Err(InUse::Pinned(withdrawn)) => {
                self.withdrawn.push_front(withdrawn);
                return false;
            }
        }
        true
    }

    pub fn counts(&self) -> StoreCounts {
        let slots = self.resident.len() as u64;
        let slab = self.view.epochs.slab();
        StoreCounts {
            segment_bytes: self.view.layout.segment_bytes(),
            arena_bytes: slab.mapping().len_bytes() as u64,
            slot_bytes: slab.block_bytes() as u64,
            slots,
            resident: self.order.len() as u64,
            free: self.free.len() as u64,
            filling: self.taken as u64,
            withdrawn: (self.withdrawn.len() + self.owned.len()) as u64,
            published_total: self.published,
            evicted_total: self.evicted,
            publish_failed_total: self.publisher.failures(),
        }
    }
}

/// A store that holds one chunk.
#[cfg(test)]
pub(crate) fn holding(bytes: &[u8], layout: Layout, readers: usize) -> (Store, ChunkId) {
    use sha2::{Digest as _, Sha256};

    let arena_bytes = layout.slot_bytes() * SLOTS_MIN as usize;
    let arena = Mapping::sparse(arena_bytes).unwrap();
    let (view, blocks) = divide(arena, arena_bytes as u64, layout, readers).unwrap();
    let mut store = Store::new(Arc::clone(&view), blocks, Publisher::none());
    let id = ChunkId(Sha256::digest(bytes).into());
    let written = store.take_free().unwrap().write(&view, id, bytes);
    store.publish(written.unwrap().verify(&view).unwrap());
    (store, id)
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_ebpf::wire::{CHUNK_BYTES_MAX, Geometry, SEGMENT_BYTES_DEFAULT};
    use sha2::{Digest, Sha256};

    const SLOTS: u32 = 64;

    fn store(readers: usize) -> Store {
        let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
        let arena_bytes = layout.slot_bytes() * SLOTS as usize;
        let arena = Mapping::anonymous(arena_bytes, false).unwrap();
        let (view, blocks) = divide(arena, arena_bytes as u64, layout, readers).unwrap();
        Store::new(view, blocks, Publisher::none())
    }

    fn chunk(number: u32) -> (ChunkId, Vec<u8>) {
        let bytes: Vec<u8> = number.to_be_bytes().repeat(700 + number as usize);
        (ChunkId(Sha256::digest(&bytes).into()), bytes)
    }

    fn fill(store: &mut Store, number: u32) -> Option<()> {
        let (id, bytes) = chunk(number);
        let slot = store.take_free()?;
        let view = Arc::clone(store.view());
        let written = slot.write(&view, id, &bytes).unwrap();
        store.publish(written.verify(&view).unwrap());
        Some(())
    }

    #[test]
    fn a_chunk_is_found_until_newer_ones_push_it_out() {
        let mut store = store(1);
        let view = Arc::clone(store.view());
        let mut reader = view.reader(0);
        let mut length = |number| {
            reader.quiescent();
            let lease = view.lookup(&reader, &chunk(number).0)?;
            let datagrams = (0..=lease.geometry().last).map(|at| lease.datagram(at).unwrap());
            let bytes: Vec<u8> = datagrams.flat_map(|at| at[16..].to_vec()).collect();
            assert!(bytes == chunk(number).1);
            Some(bytes.len())
        };
        for number in 0..200 {
            fill(&mut store, number).expect("no reader keeps a slot");
            let found = length(number);
            assert_eq!(found, Some(chunk(number).1.len()));
        }
        let counts = store.counts();
        assert_eq!(
            counts.resident + counts.free + counts.withdrawn,
            u64::from(SLOTS)
        );
        assert_eq!(counts.published_total, 200);
        assert_eq!(counts.evicted_total, 200 - counts.resident);
        assert_eq!(length(0), None);
        assert!(!store.is_resident(&chunk(0).0) && store.is_resident(&chunk(199).0));
    }

    #[test]
    fn a_slot_is_not_rewritten_while_a_worker_may_read_it() {
        // I6
        let mut store = store(1);
        let mut reader = store.view().reader(0);
        reader.quiescent();
        let mut filled = 0;
        while fill(&mut store, filled).is_some() {
            filled += 1;
            assert!(filled <= SLOTS, "a slot was reused under a reader");
        }
        // The worker has not been quiescent since the withdrawals.
        assert!(store.counts().withdrawn > 0);
        reader.quiescent();
        assert!(fill(&mut store, filled).is_some());
        // An offline reader counts as quiescent.
        reader.offline();
        for number in 1000..1000 + 2 * SLOTS {
            assert!(fill(&mut store, number).is_some());
        }
    }

    #[test]
    fn an_owned_lease_keeps_its_slot_and_no_other() {
        // I6
        let mut store = store(1);
        let view = Arc::clone(store.view());
        let mut reader = view.reader(0);
        fill(&mut store, 7).unwrap();
        reader.quiescent();
        let lease = view.lookup(&reader, &chunk(7).0).unwrap();
        let owned: Vec<_> = std::iter::from_fn(|| lease.to_owned()).collect();
        assert_eq!(owned.len(), SLOTS as usize / 4, "they are bounded");
        reader.offline();
        for number in 1000..1000 + 3 * SLOTS {
            fill(&mut store, number).expect("the other slots go round");
        }
        assert!(!store.is_resident(&chunk(7).0));
        let segments: Vec<_> = owned[0].segments().collect();
        assert!(segments.concat() == chunk(7).1);
        let kept = |store: &Store| {
            let counts = store.counts();
            u64::from(SLOTS) - counts.resident - counts.free
        };
        let while_owned = kept(&store);
        drop(owned);
        fill(&mut store, 8).unwrap();
        assert!(kept(&store) < while_owned, "the slot is free again");
    }

    #[test]
    fn a_stale_hint_is_not_confirmed() {
        // I5: the generation of a slot changes with each chunk.
        let mut store = store(1);
        let view = Arc::clone(store.view());
        let mut reader = view.reader(0);
        fill(&mut store, 0).unwrap();
        reader.quiescent();
        let (id, bytes) = chunk(0);
        let length = |reader: &_, slot, generation, id: &_| {
            let hint = Resident { slot, generation };
            let lease = view.confirm(reader, hint, id)?;
            let last = lease.geometry().last;
            Some(lease.datagrams(0, last + 1)?.len() - 16 * (usize::from(last) + 1))
        };
        let slot = (0..SLOTS)
            .find(|slot| length(&reader, *slot, 1, &id).is_some())
            .unwrap();
        assert_eq!(length(&reader, slot, 1, &id), Some(bytes.len()));
        assert_eq!(length(&reader, slot, 1, &chunk(1).0), None);
        for (slot, generation) in [(slot, 0), (slot, 2), (slot, 3), (u32::MAX, 1)] {
            assert_eq!(length(&reader, slot, generation, &id), None);
        }
        reader.offline();
        for number in 1..SLOTS * 2 {
            fill(&mut store, number);
        }
        reader.quiescent();
        assert_eq!(length(&reader, slot, 1, &id), None);
    }

    #[test]
    fn bytes_that_are_not_what_the_id_names_are_refused() {
        // I4
        let mut store = store(0);
        let view = Arc::clone(store.view());
        let (id, mut bytes) = chunk(5);
        bytes[77] ^= 1;
        let written = store.take_free().unwrap().write(&view, id, &bytes).unwrap();
        let slot = written.verify(&view).unwrap_err();
        store.put_back(slot);
        for chunk_bytes in [0, u64::from(CHUNK_BYTES_MAX) + 1, u64::MAX] {
            let slot = store.take_free().unwrap();
            store.put_back(slot.open(&view, id, chunk_bytes).unwrap_err());
        }
        let free = store.counts().free;
        assert_eq!(free, u64::from(SLOTS));
    }

    #[test]
    fn what_was_verified_is_what_readers_get_for_every_segment_size() {
        // I4
        let bytes: Vec<u8> = (0..251).cycle().take(CHUNK_BYTES_MAX as usize).collect();
        for segment_bytes in [1024, 1216, 1440] {
            let (store, id) = holding(&bytes, Layout::new(segment_bytes), 1);
            let mut reader = store.view().reader(0);
            reader.quiescent();
            let lease = store.view().lookup(&reader, &id).unwrap();
            let datagrams = (0..=lease.geometry().last).map(|at| lease.datagram(at).unwrap());
            let found: Vec<u8> = datagrams.flat_map(|at| at[16..].to_vec()).collect();
            assert!(found == bytes, "{segment_bytes}");
        }
    }

    #[test]
    fn a_slot_holds_the_datagrams_of_the_specification() {
        let mut store = store(0);
        let (id, bytes) = chunk(900);
        let slot = store.take_free().unwrap();
        let view = Arc::clone(store.view());
        let verified = slot
            .write(&view, id, &bytes)
            .unwrap()
            .verify(&view)
            .unwrap();
        let block = verified.into_parts().0;
        let geometry = Geometry::new(u32::try_from(bytes.len()).unwrap(), 1216).unwrap();
        let stored = view.epochs.slab().bytes(&block);
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
