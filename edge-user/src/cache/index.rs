//! Hash table from chunk id to slot, with one writer and concurrent readers.
//!
//! A lookup returns a hint, which the slot table confirms (I5). A lookup concurrent with a removal
//! can miss an entry that is being moved; the writer's own lookups never do.

use std::hash::BuildHasher;

use edge_ebpf::wire::ChunkId;

use crate::sync::{AtomicU64, HashKeys, Ordering};

const EMPTY: u64 = 0;

/// Open addressing with linear probing. An entry is the upper half of the hash and the slot's
/// number plus one.
#[derive(Debug)]
pub(super) struct Index {
    entries: Box<[AtomicU64]>,
    keys: HashKeys,
}

impl Index {
    /// At least half of the entries stay empty.
    pub(super) fn new(slots: u32) -> Self {
        let entries = (u64::from(slots) * 2).next_power_of_two();
        Self {
            entries: (0..entries).map(|_| AtomicU64::new(EMPTY)).collect(),
            keys: HashKeys::default(),
        }
    }

    #[inline]
    fn hash(&self, id: &ChunkId) -> u64 {
        self.keys.hash_one(id)
    }

    #[inline]
    fn mask(&self) -> usize {
        self.entries.len() - 1
    }

    /// Where probing starts for this hash.
    #[inline]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "only the lower bits are used"
    )]
    fn first(&self, hash: u64) -> usize {
        hash as usize & self.mask()
    }

    /// The first non-empty result of `confirm` over the slots that could hold the chunk.
    #[inline]
    pub(super) fn find<T>(&self, id: &ChunkId, confirm: impl Fn(u32) -> Option<T>) -> Option<T> {
        let hash = self.hash(id);
        let mut place = self.first(hash);
        // Bounded, because a lookup concurrent with many changes may meet no empty entry.
        for _ in 0..self.entries.len() {
            let entry = self.entries[place].load(Ordering::Acquire);
            if entry == EMPTY {
                return None;
            }
            if same_hash(entry, hash)
                && let Some(found) = confirm(slot(entry))
            {
                return Some(found);
            }
            place = (place + 1) & self.mask();
        }
        None
    }

    /// For the writer only. The chunk must have no entry.
    pub(super) fn insert(&self, id: &ChunkId, slot: u32) {
        let hash = self.hash(id);
        let mut place = self.first(hash);
        while self.entries[place].load(Ordering::Relaxed) != EMPTY {
            place = (place + 1) & self.mask();
        }
        self.entries[place].store(entry(hash, slot), Ordering::Release);
    }

    /// For the writer only. `id_of` returns the chunk of a slot that has an entry.
    pub(super) fn remove(&self, id: &ChunkId, slot: u32, id_of: impl Fn(u32) -> ChunkId) {
        let hash = self.hash(id);
        let mut hole = self.first(hash);
        loop {
            match self.entries[hole].load(Ordering::Relaxed) {
                EMPTY => return,
                other if other == entry(hash, slot) => break,
                _ => hole = (hole + 1) & self.mask(),
            }
        }
        // Backward-shift deletion: entries after the hole move into it, unless it lies before the
        // start of their probe sequence.
        let mut place = hole;
        loop {
            place = (place + 1) & self.mask();
            let moved = self.entries[place].load(Ordering::Relaxed);
            if moved == EMPTY {
                break;
            }
            let first = self.first(self.hash(&id_of(self::slot(moved))));
            let from_first = place.wrapping_sub(first) & self.mask();
            let from_hole = place.wrapping_sub(hole) & self.mask();
            if from_first >= from_hole {
                self.entries[hole].store(moved, Ordering::Release);
                hole = place;
            }
        }
        self.entries[hole].store(EMPTY, Ordering::Release);
    }
}

const UPPER: u64 = !0 << 32;

fn entry(hash: u64, slot: u32) -> u64 {
    (hash & UPPER) | (u64::from(slot) + 1)
}

fn same_hash(entry: u64, hash: u64) -> bool {
    (entry ^ hash) & UPPER == 0
}

fn slot(entry: u64) -> u32 {
    (entry & !UPPER) as u32 - 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::HashMap;

    fn id(number: u32) -> ChunkId {
        let mut id = [0; 32];
        id[..4].copy_from_slice(&number.to_be_bytes());
        ChunkId(id)
    }

    proptest! {
        #[test]
        fn the_writer_finds_exactly_what_a_map_would_hold(
            steps in prop::collection::vec((any::<bool>(), 0_u32..16), 0..400),
        ) {
            const SLOTS: u32 = 16;
            let index = Index::new(SLOTS);
            let mut slots: HashMap<u32, ChunkId> = HashMap::new();
            for (number, (put, slot)) in (0..).zip(steps) {
                match slots.remove(&slot) {
                    None if put => {
                        slots.insert(slot, id(number));
                        index.insert(&id(number), slot);
                    }
                    None => {}
                    Some(old) => {
                        let id_of = |slot: u32| if slots.contains_key(&slot) { slots[&slot] } else { old };
                        index.remove(&old, slot, id_of);
                        prop_assert_eq!(index.find(&old, |slot| (slots.get(&slot) == Some(&old)).then_some(slot)), None);
                    }
                }
                for (slot, id) in &slots {
                    let is_it = |found: u32| (slots.get(&found) == Some(id)).then_some(found);
                    prop_assert_eq!(index.find(id, is_it), Some(*slot));
                }
            }
        }
    }
}
