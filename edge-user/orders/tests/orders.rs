//! Every order in which threads can meet over what they share. Loom runs each model in all of
//! them, with every value that a weakly ordered load may see, and fails it when two threads may
//! touch the same memory without an order between them.

use std::sync::Arc;

use edge_ebpf::maps::Resident;
use edge_ebpf::wire::{ChunkId, SEGMENT_BYTES_DEFAULT};
use edge_orders::cache::layout::Layout;
use edge_orders::cache::lease::{CacheView, Lease};
use edge_orders::cache::publish::Publisher;
use edge_orders::cache::store::{Store, divide};
use edge_orders::sys::epochs::Reader;
use edge_orders::sys::mapping::Mapping;
use edge_orders::sys::ring::Ring;
use edge_orders::sys::ring_memory::RingMemory;
use loom::sync::atomic::{AtomicBool, Ordering};
use loom::thread;
use sha2::{Digest, Sha256};

/// I2: an entry is read as it was written, and a place is written again only when it was read.
#[test]
fn a_ring_hands_every_entry_over_once_and_in_order() {
    loom::model(|| {
        let (one, other) = RingMemory::pair(2);
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

/// A chunk, and the hint that a program's map would have.
#[derive(Clone)]
struct Known {
    id: ChunkId,
    bytes: Vec<u8>,
    hint: Resident,
}

/// A chunk of this content, in its slot's `number`th generation.
fn known(content: u8, number: u32) -> Known {
    let bytes = vec![content; 20];
    Known {
        id: ChunkId(Sha256::digest(&bytes).into()),
        bytes,
        hint: Resident {
            slot: 0,
            generation: number * 2 - 1,
        },
    }
}

/// A store with one slot.
fn store(readers: usize) -> Store {
    let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
    let arena = Mapping::new(layout.slot_bytes());
    let divided = divide(arena, layout.slot_bytes() as u64, layout, readers);
    let (view, blocks) = divided.unwrap();
    Store::new(view, blocks, Publisher::none())
}

/// Stores a chunk, if the slot is free.
fn fill(store: &mut Store, known: &Known) -> bool {
    let Some(slot) = store.take_free() else {
        return false;
    };
    let view = Arc::clone(store.view());
    let written = slot.write(&view, known.id, &known.bytes).unwrap();
    store.publish(written.verify(&view).unwrap());
    true
}

fn check(lease: Option<Lease<'_>>, known: &Known) {
    if let Some(lease) = lease {
        assert_eq!(lease.datagram(0).unwrap()[16..], known.bytes);
    }
}

/// A reader against a writer that evicts a chunk and puts another into its slot. `read` is what
/// the reader does with each of the two, `between` what it does after that.
fn reader_against_writer(
    read: fn(&CacheView, &Reader, &Known),
    between: fn(&mut Reader),
    preemptions: usize,
) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(preemptions);
    model.check(move || {
        let mut store = store(1);
        let view = Arc::clone(store.view());
        let (old, new) = (known(b'a', 1), known(b'b', 2));
        assert!(fill(&mut store, &old));
        let mut reader = view.reader(0);
        let thread = thread::spawn({
            let new = new.clone();
            move || {
                for _ in 0..2 {
                    reader.quiescent();
                    read(&view, &reader, &old);
                    read(&view, &reader, &new);
                    // A pair that belongs to another chunk.
                    assert!(view.confirm(&reader, old.hint, &new.id).is_none());
                    between(&mut reader);
                }
            }
        });
        // It may never get the slot: then the reader was in the way all the time.
        let _filled = fill(&mut store, &new) || fill(&mut store, &new);
        thread.join().unwrap();
    });
}

fn confirm(view: &CacheView, reader: &Reader, known: &Known) {
    check(view.confirm(reader, known.hint, &known.id), known);
}

fn lookup(view: &CacheView, reader: &Reader, known: &Known) {
    check(view.lookup(reader, &known.id), known);
}

/// I4, I5, I6
#[test]
fn a_worker_reads_no_slot_that_is_being_rewritten() {
    reader_against_writer(confirm, |_| {}, 3);
}

/// I6: asleep is quiescent, and the first look after it is not.
#[test]
fn a_worker_that_slept_reads_no_slot_that_is_being_rewritten() {
    reader_against_writer(confirm, Reader::offline, 3);
}

/// I5, I6: by the shared index, which is written meanwhile.
#[test]
fn a_front_that_looks_a_chunk_up_reads_no_slot_that_is_being_rewritten() {
    reader_against_writer(lookup, |_| {}, 3);
}

/// A reader of the only chunk against a writer that puts another into its slot. What reads after the
/// reader has announced itself again raises the flag, which nobody may see once the slot is filled.
fn late_read_against_writer(read: fn(&CacheView, Reader, &Known, &AtomicBool)) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound.get_or_insert(3);
    model.check(move || {
        let mut store = store(1);
        let view = Arc::clone(store.view());
        let (old, new) = (known(b'a', 1), known(b'b', 2));
        assert!(fill(&mut store, &old));
        let reader = view.reader(0);
        let under_way = Arc::new(AtomicBool::new(false));
        let thread = thread::spawn({
            let under_way = Arc::clone(&under_way);
            move || read(&view, reader, &old, &under_way)
        });
        if fill(&mut store, &new) || fill(&mut store, &new) {
            assert!(!under_way.load(Ordering::Relaxed));
        }
        thread.join().unwrap();
    });
}

/// I6: while a send is under way, whatever its reader announces, the slot gets no other chunk.
#[test]
fn a_slot_is_not_rewritten_under_a_send() {
    late_read_against_writer(|view, mut reader, known, under_way| {
        let mut holds = reader.holds();
        reader.quiescent();
        if let Some(lease) = view.lookup(&reader, &known.id) {
            under_way.store(true, Ordering::Relaxed);
            holds.hold(lease.loan());
            reader.quiescent();
            reader.offline();
            under_way.store(false, Ordering::Relaxed);
            holds.release();
            reader.offline();
        }
    });
}

/// I6: an owned lease keeps its slot when its reader has long been quiescent.
#[test]
fn a_slot_is_not_rewritten_under_an_owned_lease() {
    late_read_against_writer(|view, mut reader, known, under_way| {
        reader.quiescent();
        let owned = view
            .lookup(&reader, &known.id)
            .and_then(|lease| lease.to_owned());
        if let Some(owned) = owned {
            under_way.store(true, Ordering::Relaxed);
            reader.offline();
            assert_eq!(owned.segments().next().unwrap(), known.bytes);
            under_way.store(false, Ordering::Relaxed);
        }
    });
}
