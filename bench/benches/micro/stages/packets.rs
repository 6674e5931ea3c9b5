//! The packets that the stages read.

use edge_ebpf::golden::{self, Case};

/// The golden packet of this name.
pub(super) fn golden(name: &str) -> Case {
    let mut cases = golden::all().into_iter();
    let case = cases.find(|case| case.name == name);
    case.expect("the packet is in the golden table")
}
