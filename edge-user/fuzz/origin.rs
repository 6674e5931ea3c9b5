//! Bytes that may be a chunk. Into the store come only those that the id names and that fit a
//! chunk (I4); whatever else an origin gives, no slot is lost.
//!
//! Input: the size of segments, how the id is made, a length, and bytes that are repeated to it.

use std::cell::RefCell;
use std::sync::Arc;

use edge_ebpf::wire::ChunkId;
use edge_user::cache::layout::Layout;
use edge_user::cache::lease::CacheView;
use edge_user::cache::publish::Publisher;
use edge_user::cache::store::{Store, divide};
use edge_user::sys::mapping::Mapping;
use sha2::{Digest as _, Sha256};

use crate::input::Input;

const SLOTS: u32 = 64;
const CHUNK_BYTES_MAX: usize = 131_072;
const SEGMENT_BYTES: [u16; 4] = [1024, 1216, 1217, 1440];

thread_local! {
    /// One store for each segment size, and filled ever further: old chunks are pushed out.
    static STORES: [RefCell<Store>; 4] = SEGMENT_BYTES.map(|bytes| RefCell::new(store(bytes)));
}

fn store(segment_bytes: u16) -> Store {
    let layout = Layout::new(segment_bytes);
    let arena_bytes = layout.slot_bytes() * SLOTS as usize;
    let arena = Mapping::anonymous(arena_bytes, false).expect("memory");
    let (view, blocks) = divide(arena, arena_bytes as u64, layout, 1).expect("enough slots");
    Store::new(view, blocks, Publisher::none())
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let (which, how, length) = (input.byte(), input.byte(), input.u32());
    let rest = input.rest();
    let bytes: Vec<u8> = match how & 3 {
        // As given, or repeated to a length around that of a chunk.
        0 => rest.to_vec(),
        _ if rest.is_empty() => vec![0; length as usize % (CHUNK_BYTES_MAX + 9)],
        1 => rest
            .iter()
            .copied()
            .cycle()
            .take(length as usize % 140_000)
            .collect(),
        _ => {
            let len = CHUNK_BYTES_MAX + 4 - (length % 8) as usize;
            rest.iter().copied().cycle().take(len).collect()
        }
    };
    let right = ChunkId(Sha256::digest(&bytes).into());
    let mut id = right;
    if how & 4 != 0 {
        id.0[usize::from(how >> 3)] ^= 1 << (length % 8);
    }
    let place = usize::from(which) % SEGMENT_BYTES.len();
    STORES.with(|stores| fill(&mut stores[place].borrow_mut(), id, right, &bytes));
}

/// The bytes that a reader finds.
fn found(view: &CacheView, id: &ChunkId) -> Vec<u8> {
    let mut reader = view.reader(0);
    reader.quiescent();
    let lease = view.lookup(&reader, id).expect("it was published");
    let datagrams = (0..=lease.geometry().last).filter_map(|index| lease.datagram(index));
    datagrams
        .flat_map(|datagram| &datagram[16..])
        .copied()
        .collect()
}

fn fill(store: &mut Store, id: ChunkId, right: ChunkId, bytes: &[u8]) {
    let view = Arc::clone(store.view());
    let before = store.is_resident(&id);
    let slot = store
        .take_free()
        .expect("no reader is online, so a slot comes free at once");
    // Taking a slot may have pushed this very chunk out.
    let there = store.is_resident(&id);
    assert!(!there || before);
    let fits = (1..=CHUNK_BYTES_MAX).contains(&bytes.len());
    match slot.write(&view, id, bytes) {
        Err(slot) => {
            assert!(!fits, "{} bytes were refused", bytes.len());
            store.put_back(slot);
            assert_eq!(store.is_resident(&id), there);
        }
        Ok(written) => {
            assert!(fits, "{} bytes were written", bytes.len());
            match written.verify(&view) {
                Ok(verified) => {
                    assert_eq!(id, right, "I4: other bytes than the id names");
                    store.publish(verified);
                    assert_eq!(found(&view, &id), bytes);
                }
                Err(slot) => {
                    assert_ne!(id, right, "right bytes were refused");
                    store.put_back(slot);
                    assert_eq!(store.is_resident(&id), there);
                }
            }
        }
    }
    let counts = store.counts();
    let slots = counts.resident + counts.free + counts.withdrawn;
    assert_eq!(slots, u64::from(SLOTS), "a slot was lost");
}
