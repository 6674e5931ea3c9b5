//! A store with many chunks in little memory: slots of one cache line, a few bytes in each.

use std::sync::Arc;

use edge_ebpf::maps::Resident;
use edge_ebpf::wire::{ChunkId, SEGMENT_BYTES_DEFAULT};
use edge_user::cache::publish::Publisher;
use edge_user::cache::slot_table::SlotTable;
use edge_user::cache::{Shared, Store};
use edge_user::sys::epochs::Epochs;
use edge_user::sys::mapping::Mapping;
use edge_user::sys::slab::Slab;
use sha2::{Digest, Sha256};

const SLOT_BYTES: usize = 64;
/// How many chunks a stage asks for in turn: enough that none is still in a near cache.
const ASKED_MAX: u32 = 65_536;

pub(super) struct Stored {
    pub(super) store: Store,
    /// What is asked for, far apart in memory, and where it is.
    asked: Vec<(ChunkId, Resident)>,
    next: usize,
}

impl Stored {
    /// With all slots filled but those that the store keeps free.
    pub(super) fn new(chunks: u32) -> Self {
        let mapping = Mapping::anonymous(SLOT_BYTES * (chunks as usize + 64), false);
        let mapping = mapping.expect("there is memory for the chunks");
        let (slab, blocks) = Slab::partition(mapping, SLOT_BYTES, chunks + 64);
        let slab = Arc::new(slab);
        let shared = Arc::new(Shared {
            table: SlotTable::new(slab.block_count()),
            epochs: Epochs::new(Arc::clone(&slab), 0),
            slab,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
        });
        let mut store = Store::new(Arc::clone(&shared), blocks, Publisher::none());
        let filled: Vec<_> = (0..chunks).map(|number| fill(&mut store, number)).collect();
        // A step that no power of ten shares a factor with visits every chunk once.
        let asked = (0..chunks.min(ASKED_MAX))
            .map(|turn| {
                let number = u64::from(turn) * 611_953 % u64::from(chunks);
                filled[usize::try_from(number).expect("below the count of chunks")]
            })
            .collect();
        Self {
            store,
            asked,
            next: 0,
        }
    }

    /// Asked for chunks that it does not hold.
    pub(super) fn asked_in_vain(mut self) -> Self {
        let mark = Resident {
            slot: 0,
            generation: 1,
        };
        let others = (0..1000).map(|number: u32| (id(&(!number).to_be_bytes()), mark));
        self.asked = others.collect();
        self
    }

    /// What is asked for now.
    pub(super) fn turn(&mut self) -> (ChunkId, Resident) {
        let asked = self.asked[self.next];
        self.next += 1;
        if self.next == self.asked.len() {
            self.next = 0;
        }
        asked
    }
}

fn id(bytes: &[u8]) -> ChunkId {
    ChunkId(Sha256::digest(bytes).into())
}

fn fill(store: &mut Store, number: u32) -> (ChunkId, Resident) {
    let shared = Arc::clone(store.shared());
    let bytes = number.to_be_bytes();
    let id = id(&bytes);
    let slot = store.take_free(0).expect("there is a slot for each chunk");
    let written = slot.write(&shared, id, &bytes).expect("it fits its slot");
    let verified = written.verify(&shared).expect("its name is its hash");
    let stay = store.publish(verified);
    // A slot's first stay.
    let mark = Resident {
        slot: stay.slot,
        generation: 1,
    };
    assert!(
        shared.table.confirm(mark, &id).is_some(),
        "the chunk is resident"
    );
    (id, mark)
}
