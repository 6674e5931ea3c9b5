//! A store with many chunks in little memory: slots of one cache line, with a few bytes each.

use std::sync::Arc;

use edge_ebpf::maps::Resident;
use edge_ebpf::wire::{ChunkId, SEGMENT_BYTES_DEFAULT};
use edge_user::cache::layout::Layout;
use edge_user::cache::lease::CacheView;
use edge_user::cache::publish::Publisher;
use edge_user::cache::store::Store;
use edge_user::sys::epochs::Reader;
use edge_user::sys::mapping::Mapping;
use edge_user::sys::slab::Slab;
use sha2::{Digest, Sha256};

const SLOT_BYTES: usize = 64;
/// Number of chunks a stage requests in turn: enough that none is still in a near cache.
const ASKED_MAX: u32 = 65_536;

pub(super) struct Stored {
    store: Store,
    /// Online.
    pub(super) reader: Reader,
    /// The chunks to request, far apart in memory, and their slots.
    asked: Vec<(ChunkId, Resident)>,
    next: usize,
}

impl Stored {
    /// With all slots filled but those that the store keeps free.
    pub(super) fn new(chunks: u32) -> Self {
        let mapping = Mapping::anonymous(SLOT_BYTES * (chunks as usize + 64), false);
        let mapping = mapping.expect("there is memory for the chunks");
        let (slab, blocks) = Slab::partition(mapping, SLOT_BYTES, chunks + 64);
        let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
        let view = Arc::new(CacheView::new(slab, layout, 1));
        let mut reader = view.reader(0);
        let mut store = Store::new(view, blocks, Publisher::none());
        let filled: Vec<_> = (0..chunks).map(|number| fill(&mut store, number)).collect();
        reader.quiescent();
        // A step coprime to 10 visits every chunk once.
        let asked = (0..chunks.min(ASKED_MAX))
            .map(|turn| {
                let number = u64::from(turn) * 611_953 % u64::from(chunks);
                filled[usize::try_from(number).expect("below the count of chunks")]
            })
            .collect();
        Self {
            store,
            reader,
            asked,
            next: 0,
        }
    }

    pub(super) fn view(&self) -> &CacheView {
        self.store.view()
    }

    /// With ids that it does not hold.
    pub(super) fn with_absent_ids(mut self) -> Self {
        let hint = Resident {
            slot: 0,
            generation: 1,
        };
        let others = (0..1000).map(|number: u32| (id(&(!number).to_be_bytes()), hint));
        self.asked = others.collect();
        self
    }

    /// The chunk to request now.
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
    let view = Arc::clone(store.view());
    let bytes = number.to_be_bytes();
    let id = id(&bytes);
    let slot = store.take_free().expect("there is a slot for each chunk");
    let hint = Resident {
        slot: slot.number(),
        // That of the first chunk in a slot.
        generation: 1,
    };
    let written = slot.write(&view, id, &bytes).expect("it fits its slot");
    store.publish(written.verify(&view).expect("its name is its hash"));
    (id, hint)
}
