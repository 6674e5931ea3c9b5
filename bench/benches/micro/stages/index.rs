//! From a chunk's id to its slot: the server's own index, and the table that confirms a hint.

use std::hint::black_box;

use edge_user::cache::lease::Lease;

use super::Meter;
use super::stored::Stored;

/// Numbers of resident chunks. The more, the more memory each probe has to fetch.
const SIZES: [u32; 4] = [1000, 10_000, 100_000, 1_000_000];

pub(super) fn all(meter: &mut impl Meter) {
    for chunks in SIZES {
        if chunks > meter.resident_max() {
            break;
        }
        let set_up = || {
            let mut stored = Stored::new(chunks);
            assert!(lookup(&mut stored) && confirm(&mut stored));
            stored
        };
        let name = |what| format!("{what}, {chunks} resident");
        meter.measure("index", &name("found"), set_up, lookup);
        meter.measure("index", &name("confirmed"), set_up, confirm);
    }
    let set_up = || {
        let mut stored = Stored::new(1000).with_absent_ids();
        assert!(!lookup(&mut stored));
        stored
    };
    meter.measure("index", "absent, 1000 resident", set_up, lookup);
}

fn lookup(stored: &mut Stored) -> bool {
    let (id, _) = stored.turn();
    used(stored.view().lookup(&stored.reader, black_box(&id)))
}

fn confirm(stored: &mut Stored) -> bool {
    let (id, hint) = stored.turn();
    used(
        stored
            .view()
            .confirm(&stored.reader, black_box(hint), black_box(&id)),
    )
}

fn used(lease: Option<Lease<'_>>) -> bool {
    black_box(lease).is_some()
}
