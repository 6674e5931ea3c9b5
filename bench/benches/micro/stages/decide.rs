//! Judging a packet, without the cost of fetching its memory.

use std::hint::black_box;

use edge_ebpf::steer;

use super::Meter;
use super::packets::golden;

/// One packet for each way through `decide`.
const CASES: [&str; 5] = [
    "another port",
    "a HELLO over IPv4",
    "a GET with a wrong cookie over IPv4",
    "a GET over IPv4 for a chunk that is not here",
    "a hit over IPv6",
];

pub(super) fn all(meter: &mut impl Meter) {
    for name in CASES {
        meter.measure(
            "decide",
            name,
            || golden(name),
            |case| steer::decide(black_box(case.frame.as_slice()), &case.world),
        );
    }
}
