//! From a chunk's id to its slot: the server's own index, and the table that confirms a hint.

use std::hint::black_box;

use edge_user::cache::ChunkRef;

use super::Meter;
use super::stored::Stored;

/// How many chunks are resident. The more, the more memory each probe has to fetch.
const SIZES: [u32; 4] = [1000, 10_000, 100_000, 1_000_000];

pub(super) fn all(meter: &mut impl Meter) {
    for chunks in SIZES {
        if chunks > meter.resident_max() {
            break;
        }
        let set_up = || {
            let mut stored = Stored::new(chunks);
            assert!(find(&mut stored).is_some() && confirm(&mut stored).is_some());
            stored
        };
        let name = |what| format!("{what}, {chunks} resident");
        meter.measure("index", &name("found"), set_up, find);
        meter.measure("index", &name("confirmed"), set_up, confirm);
    }
    let set_up = || {
        let mut stored = Stored::new(1000).asked_in_vain();
        assert_eq!(find(&mut stored), None);
        stored
    };
    meter.measure("index", "absent, 1000 resident", set_up, find);
}

fn find(stored: &mut Stored) -> Option<ChunkRef> {
    let (id, _) = stored.turn();
    stored.store.find(black_box(&id))
}

fn confirm(stored: &mut Stored) -> Option<u32> {
    let (id, mark) = stored.turn();
    let table = &stored.store.shared().table;
    table.confirm(black_box(mark), black_box(&id))
}
