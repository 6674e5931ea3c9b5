//! From a want set to the parts of sends: all that is done for a reply before the kernel is asked.

use std::convert::Infallible;
use std::hint::black_box;

use edge_ebpf::wire::{CHUNK_BYTES_MAX, Geometry, SEGMENT_BYTES_DEFAULT};
use edge_user::cache::{ChunkRef, slot_bytes};
use edge_user::serve::plan::plan;
use edge_user::serve::socket::gather::Gather;
use edge_user::sys::mapping::Mapping;
use edge_user::sys::slab::{Slab, Span};

use super::Meter;

/// What is wanted of a whole chunk, and in how many parts it is sent.
const CASES: [(&str, u128, usize); 4] = [
    ("one segment", 1 << 17, 1),
    ("the whole chunk", u128::MAX, 3),
    ("every other segment", u128::MAX / 3, 54),
    (
        "a window with two holes",
        0xffff_ffff_ffbf_fffe_ffff << 9,
        4,
    ),
];

struct Wanted {
    slab: Slab,
    gather: Gather,
    want: u128,
}

impl Wanted {
    fn new(want: u128) -> Self {
        let slot_bytes = slot_bytes(SEGMENT_BYTES_DEFAULT);
        let mapping = Mapping::anonymous(slot_bytes, false);
        let mapping = mapping.expect("there is memory for one slot");
        let (slab, _pieces) = Slab::partition(mapping, slot_bytes, 1);
        Self {
            slab,
            gather: Gather::new(SEGMENT_BYTES_DEFAULT),
            want,
        }
    }

    /// Hands every part to `each`, as a sender does.
    fn gather(&self, mut each: impl FnMut(&Span)) {
        let stay = ChunkRef {
            slot: 0,
            chunk_bytes: CHUNK_BYTES_MAX,
        };
        let geometry = Geometry::new(black_box(stay.chunk_bytes), SEGMENT_BYTES_DEFAULT);
        let geometry = geometry.expect("a whole chunk has one");
        let runs = plan(black_box(self.want), &geometry, 128).expect("a segment is wanted");
        let send = |spans: &[Span]| {
            spans.iter().for_each(&mut each);
            Ok::<(), Infallible>(())
        };
        let Ok(()) = self.gather.sends(&self.slab, stay, geometry, runs, send);
    }
}

pub(super) fn all(meter: &mut impl Meter) {
    for (name, want, parts) in CASES {
        let set_up = || {
            let wanted = Wanted::new(want);
            let mut count = 0;
            wanted.gather(|_| count += 1);
            assert_eq!(count, parts, "{name}");
            wanted
        };
        meter.measure("gather", name, set_up, |wanted| {
            wanted.gather(|span| {
                black_box(span);
            });
        });
    }
}
