//! From the segments of a reply to the parts of its sends.

use std::convert::Infallible;
use std::hint::black_box;
use std::ops::Range;

use edge_ebpf::wire::{CHUNK_BYTES_MAX, Geometry, SEGMENT_BYTES_DEFAULT};
use edge_user::cache::layout::Layout;
use edge_user::serve::plan::{Runs, plan};
use edge_user::serve::socket::gather::Gather;

use super::Meter;

/// The want set of a whole chunk, and the number of parts it is sent in.
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
    geometry: Geometry,
    runs: Runs,
}

impl Wanted {
    fn new(want: u128) -> Self {
        let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
        let geometry = layout.geometry(CHUNK_BYTES_MAX);
        let geometry = geometry.expect("a whole chunk has one");
        Self {
            gather: Gather::new(layout),
            geometry,
            runs: plan(want, &geometry, 128).expect("a segment is wanted"),
        }
    }

    /// Passes every part to `each`, as a transmitter does.
    fn gather(&self, mut each: impl FnMut(&Range<usize>)) {
        let send = |parts: &[Range<usize>]| {
            parts.iter().for_each(&mut each);
            Ok::<(), Infallible>(())
        };
        let (geometry, runs) = (black_box(&self.geometry), black_box(&self.runs));
        let Ok(()) = self.gather.sends(geometry, runs.clone(), send);
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
