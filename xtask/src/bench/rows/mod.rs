//! What is measured, row by row. Each starts its sides anew for each pair, one after the other, and
//! gives its runs as `edge-bench assemble` takes them.

/// A row while it is measured.
mod growing;
/// P1.
mod bulk;
/// P2.
mod small;
/// P3.
mod program;
/// P4.
mod latency;
/// P5.
mod flood;
/// P8.
pub(super) mod memory;

use anyhow::Result;
use serde_json::Value;

use super::field::Field;

pub(super) struct Row {
    pub(super) id: &'static str,
    /// A short title.
    name: &'static str,
    /// What is done, in a sentence.
    pub(super) work: &'static str,
    /// With the sender that was asked for, or the row's own.
    pub(super) measure: fn(&'static Row, &Field<'_>, Option<&str>) -> Result<Value>,
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "P1",
        name: "whole chunks",
        work: "whole chunks of 128 KiB, Zipf 0.9 over 1 GiB resident, closed loop",
        measure: bulk::bulk,
    },
    Row {
        id: "P2",
        name: "single segments",
        work: "single segments of 1216 bytes, Zipf 0.9 over 1 GiB resident, 65536 sources, closed loop",
        measure: small::small,
    },
    Row {
        id: "P3",
        name: "the XDP program",
        work: "the XDP program on a hit over IPv4, the same one each time, by BPF_PROG_TEST_RUN",
        measure: program::hot,
    },
    Row {
        id: "P3-1k",
        name: "cold, 10³ resident",
        work: "as P3, each run another of 65536 requests: source, cookie, chunk; 10³ resident",
        measure: |row, field, _| program::cold(row, field, 1_000),
    },
    Row {
        id: "P3-10k",
        name: "cold, 10⁴ resident",
        work: "as P3, each run another of 65536 requests: source, cookie, chunk; 10⁴ resident",
        measure: |row, field, _| program::cold(row, field, 10_000),
    },
    Row {
        id: "P3-100k",
        name: "cold, 10⁵ resident",
        work: "as P3, each run another of 65536 requests: source, cookie, chunk; 10⁵ resident",
        measure: |row, field, _| program::cold(row, field, 100_000),
    },
    Row {
        id: "P3-1M",
        name: "cold, 10⁶ resident",
        work: "as P3, each run another of 65536 requests: source, cookie, chunk; 10⁶ resident",
        measure: |row, field, _| program::cold(row, field, 1_000_000),
    },
    Row {
        id: "P4",
        name: "latency of a hit",
        work: "99th percentile of a hit's latency, open loop at half of what the slower path can do",
        measure: latency::at_half,
    },
    Row {
        id: "P4-load",
        name: "under load",
        work: "single segments as in P2, open loop at several rates; the median is over all of them",
        measure: latency::under_load,
    },
    Row {
        id: "P5",
        name: "beside a flood",
        work: "whole chunks as in P1, beside a flood of HELLOs, bad cookies, junk and unknown ids",
        measure: flood::flood,
    },
    Row {
        id: "P8",
        name: "memory",
        work: "memory beside the payload that an arena of 4 GiB holds, in chunks of 128 KiB",
        measure: memory::whole_chunks,
    },
    Row {
        id: "P8-4K",
        name: "memory, small objects",
        work: "memory beside the payload that an arena of 4 GiB holds, in objects of 4 KiB",
        measure: memory::small_objects,
    },
];

/// Sides of more than one row.
const REFLECTOR: &str = "bare AF_XDP reflector";
const WITH_GSO: &str = "the edge with sender gso";
const WITH_XSK: &str = "the edge with sender xsk";
/// What they are compared without.
const NO_BUCKETS: &str = "source buckets are not built yet";
/// Requests under way, enough to keep either side busy.
const WINDOW: &str = "1024";

/// The sender that was asked for; or the one a row is about, and the other one beside it.
fn senders<'a>(asked: Option<&'a str>, own: &'a str) -> Vec<(&'static str, &'a str)> {
    match (asked, own) {
        (Some(sender), _) => vec![("edge", sender)],
        (None, "gso") => vec![("edge", own), (WITH_XSK, "xsk")],
        (None, _) => vec![("edge", own), (WITH_GSO, "gso")],
    }
}
