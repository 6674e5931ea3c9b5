//! Every order in which threads can meet over what they share. Loom runs each model in all of
//! them, with every value that a weakly ordered load may see, and fails it when two threads may
//! touch the same memory without an order between them.

use std::sync::Arc;

use edge_ebpf::maps::Resident;
use edge_ebpf::wire::{ChunkId, SEGMENT_BYTES_DEFAULT};
use edge_orders::cache::publish::Publisher;
use edge_orders::cache::{ChunkRef, Shared, Store, slot_bytes};
use edge_orders::sys::epochs::Reader;
use edge_orders::sys::mapping::Mapping;
use edge_orders::sys::ring::Ring;
use edge_orders::sys::ring_memory::RingMemory;
use loom::thread;
use sha2::{Digest, Sha256};

/// I2: an entry is read as it was written, and a place is written again only when it was read.
#[test]
fn a_ring_hands_every_entry_over_once_and_in_order() {
    loom::model(|| {
        let (one, other) = RingMemory::ours(2);
        let (mut producer, mut consumer) = (Ring::new(one), Ring::new(other));
        let other_thread = thread::spawn(move || {
            let mut next = 0_u64;
            // Two entries fit; room for the others depends on what was taken meanwhile.
            for _ in 0..3 {
                next += u64::from(producer.produce(next..4));
            }
            next
        });
        let mut taken = Vec::new();
        for _ in 0..3 {
            consumer.consume(2, |entry| taken.push(entry));
        }
        let count = other_thread.join().unwrap();
        consumer.consume(2, |entry| taken.push(entry));
        assert!(taken.into_iter().eq(0..count));
    });
}

/// A chunk, and the stay that a program's map would name.
#[derive(Clone)]
struct Known {
    id: ChunkId,
    bytes: Vec<u8>,
    mark: Resident,
}

struct Ground {
    shared: Arc<Shared>,
    store: Store,
}

impl Ground {
    fn new(slots: u32, workers: usize) -> Self {
        let bytes = slot_bytes(SEGMENT_BYTES_DEFAULT) * slots as usize;
        let arena = Mapping::new(bytes);
        let made = Shared::new(arena, bytes as u64, SEGMENT_BYTES_DEFAULT, workers);
        let (shared, blocks) = made.unwrap();
        let store = Store::new(Arc::clone(&shared), blocks, Publisher::none());
        Self { shared, store }
    }

    /// Stores a chunk, if a slot is free, in its `stays`th stay there.
    fn fill(&mut self, content: u8, stays: u32) -> Option<Known> {
        let slot = self.store.take_free(0)?;
        let bytes = vec![content; 20];
        let id = id_of(content);
        let written = slot.write(&self.shared, id, &bytes).unwrap();
        let ChunkRef { slot, .. } = self.store.publish(written.verify(&self.shared).unwrap());
        let generation = stays * 2 - 1;
        let mark = Resident { slot, generation };
        Some(Known { id, bytes, mark })
    }
}

fn id_of(content: u8) -> ChunkId {
    ChunkId(Sha256::digest([content; 20]).into())
}

/// What a worker does with a steered request: only what is confirmed is read.
fn serve(shared: &Shared, reader: &Reader, known: &Known) {
    let Some(chunk_bytes) = shared.table.confirm(known.mark, &known.id) else {
        return;
    };
    assert_eq!(chunk_bytes as usize, known.bytes.len());
    // Or it was evicted since.
    if let Some(stored) = reader.bytes(known.mark.slot) {
        assert_eq!(stored[16..][..known.bytes.len()], known.bytes);
    }
}

/// A worker against a filler that pushes a chunk out and puts another into its slot. `between` is
/// what the worker does between two batches.
fn worker_against_filler(between: fn(&mut Reader)) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(move || {
        let mut ground = Ground::new(1, 1);
        let shared = Arc::clone(&ground.shared);
        let old = ground.fill(b'a', 1).unwrap();
        let new = Known {
            id: id_of(b'b'),
            bytes: vec![b'b'; 20],
            mark: Resident {
                generation: 3,
                ..old.mark
            },
        };
        let mut reader = shared.epochs.reader(0);
        let worker = thread::spawn({
            let new = new.clone();
            move || {
                for _ in 0..2 {
                    reader.quiescent();
                    serve(&shared, &reader, &old);
                    serve(&shared, &reader, &new);
                    // A pair that belongs to another chunk.
                    assert_eq!(shared.table.confirm(old.mark, &new.id), None);
                    between(&mut reader);
                }
            }
        });
        // It may never get the slot: then the worker was in the way all the time.
        for _ in 0..2 {
            if let Some(filled) = ground.fill(b'b', 2) {
                assert_eq!((filled.id, filled.mark), (new.id, new.mark));
                break;
            }
        }
        worker.join().unwrap();
    });
}

/// I4, I5, I6
#[test]
fn a_worker_reads_no_slot_that_is_being_rewritten() {
    worker_against_filler(|_| {});
}

/// I6: asleep is quiescent, and the first look after it is not.
#[test]
fn a_worker_that_slept_reads_no_slot_that_is_being_rewritten() {
    worker_against_filler(Reader::offline);
}

/// I6: what keeps a reader from bytes that change is not the care of the caller.
#[test]
fn a_reader_that_asks_no_table_reads_no_slot_that_is_being_rewritten() {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(3);
    model.check(|| {
        let mut ground = Ground::new(1, 1);
        let shared = Arc::clone(&ground.shared);
        ground.fill(b'a', 1).unwrap();
        let mut reader = shared.epochs.reader(0);
        let worker = thread::spawn(move || {
            for _ in 0..2 {
                reader.quiescent();
                if let Some(stored) = reader.bytes(0) {
                    let content = stored[16];
                    assert_eq!(stored[16..][..20], [content; 20]);
                }
            }
        });
        for _ in 0..2 {
            if ground.fill(b'b', 2).is_some() {
                break;
            }
        }
        worker.join().unwrap();
    });
}
