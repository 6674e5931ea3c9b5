//! From a want set to the parts of sends: all that is done for a reply before the kernel is asked.

use std::convert::Infallible;
use std::hint::black_box;
use std::ops::Range;

use edge_ebpf::wire::{CHUNK_BYTES_MAX, Geometry, SEGMENT_BYTES_DEFAULT};
use edge_user::cache::layout::Layout;
use edge_user::serve::plan::plan;
use edge_user::serve::socket::gather::Gather;

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
    gather: Gather,
    want: u128,
}

impl Wanted {
    fn new(want: u128) -> Self {
        Self {
            gather: Gather::new(Layout::new(SEGMENT_BYTES_DEFAULT)),
            want,
        }
    }

    /// Hands every part to `each`, as a sender does.
    fn gather(&self, mut each: impl FnMut(&Range<usize>)) {
        let geometry = Geometry::new(black_box(CHUNK_BYTES_MAX), SEGMENT_BYTES_DEFAULT);
        let geometry = geometry.expect("a whole chunk has one");
        let runs = plan(black_box(self.want), &geometry, 128).expect("a segment is wanted");
        let send = |parts: &[Range<usize>]| {
            parts.iter().for_each(&mut each);
            Ok::<(), Infallible>(())
        };
        let Ok(()) = self.gather.sends(&geometry, runs, send);
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
            wanted.gather(|part| {
                black_box(part);
            });
        });
    }
}
