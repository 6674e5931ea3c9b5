//! The rows. Each restarts its sides for each pair, one after the other, and returns its runs in
//! the format of `edge-bench assemble`.
//!
//! The rows take turns, pair by pair: a disturbance of a minute then shows in the spread of each
//! row, and not as a difference between two runs.

/// A row during the measurement.
pub(super) mod growing;
/// P1.
mod bulk;
/// P2.
mod small;
/// P3.
mod program;
/// P4.
pub(super) mod latency;
/// P5.
mod flood;
/// P8.
pub(super) mod memory;

use std::path::Path;

use anyhow::Result;

use self::Beside::{Mark, Peer, Side};
use self::growing::{ANSWERS_A_SECOND, BYTES_A_SECOND, Growing};
use super::peers::{self, KNOT, NGINX};
use super::testbed::Testbed;

pub(super) struct Row {
    pub(super) id: &'static str,
    /// A short title.
    name: &'static str,
    /// The work, in a sentence.
    pub(super) work: &'static str,
    unit: &'static str,
    /// `higher` or `lower`.
    better: &'static str,
    /// Sides without a target are only measured.
    beside: &'static [Beside],
    /// What the row cannot measure yet.
    lacks: Option<&'static str>,
    pub(super) pair: Pair,
}

/// The rows that can be compared with a baseline.
pub(super) const WITH_BASELINE: [&str; 3] = ["P1", "P2", "P5"];
/// Accepted ratio to the build before a change.
const BASELINE_TARGET: f64 = 0.97;
const BASELINE: &str = "baseline";
const EDGE: &str = "edge";

/// Measures one pair.
type Pair = fn(&mut Growing, &Testbed<'_>, Turn<'_>) -> Result<()>;

/// What a row is compared with.
enum Beside {
    /// Another side, and its target ratio.
    Side(&'static str, f64),
    /// The same, with its Debian packages and programs.
    Peer(&'static str, f64, &'static [(&'static str, &'static str)]),
    /// A fixed figure that the edge must not exceed.
    Mark(&'static str, f64),
}

/// Number of the pair, and the sender; the row's own if none was selected.
#[derive(Clone, Copy)]
pub(super) struct Turn<'a> {
    pub(super) pair: u32,
    pub(super) sender: Option<&'a str>,
}

#[rustfmt::skip] // two or three lines a row
pub(super) const ROWS: &[Row] = &[
    Row { id: "P1", name: "whole chunks", unit: BYTES_A_SECOND, better: "higher", lacks: None, pair: bulk::bulk,
        work: "whole chunks of 128 KiB, Zipf 0.9 over 1 GiB resident, closed loop",
        beside: &[Side(bulk::GSO_CEILING, 0.90), Peer(NGINX, 1.5, peers::NGINX_PROGRAMS)] },
    Row { id: "P2", name: "single segments", unit: ANSWERS_A_SECOND, better: "higher", lacks: None, pair: small::small,
        work: "single segments of 1216 bytes, Zipf 0.9 over 1 GiB resident, 65536 sources, closed loop",
        beside: &[Side(REFLECTOR, 0.85), Peer(KNOT, 2.0, peers::KNOT_PROGRAMS), Peer(NGINX, 15.0, peers::NGINX_PROGRAMS)] },
    Row { id: "P3", name: "the XDP program", unit: "ns", better: "lower", lacks: NO_BUCKETS, pair: program::hot,
        work: "the XDP program on a hit over IPv4, the same one each time, by BPF_PROG_TEST_RUN",
        beside: &[Mark("the mark of 220 ns", 220.0)] },
    cold("P3-1k", "cold, 10³ resident", |row, testbed, turn| program::cold(row, testbed, turn, 1_000),
        "as P3, each run another of 65536 requests: source, cookie, chunk; 10³ resident"),
    cold("P3-10k", "cold, 10⁴ resident", |row, testbed, turn| program::cold(row, testbed, turn, 10_000),
        "as P3, each run another of 65536 requests: source, cookie, chunk; 10⁴ resident"),
    cold("P3-100k", "cold, 10⁵ resident", |row, testbed, turn| program::cold(row, testbed, turn, 100_000),
        "as P3, each run another of 65536 requests: source, cookie, chunk; 10⁵ resident"),
    cold("P3-1M", "cold, 10⁶ resident", |row, testbed, turn| program::cold(row, testbed, turn, 1_000_000),
        "as P3, each run another of 65536 requests: source, cookie, chunk; 10⁶ resident"),
    Row { id: "P4", name: "latency of a hit", unit: "ns", better: "lower", lacks: None, pair: |row, testbed, turn| latency::at_half(row, testbed, turn, "p99"),
        work: "99th percentile of a hit's latency, open loop at half of what the slower path can do",
        beside: &[Side(latency::XDP_OFF, 0.5), Side(REFLECTOR, 1.5)] },
    Row { id: "P4-median", name: "median latency of a hit", unit: "ns", better: "lower", lacks: None, pair: |row, testbed, turn| latency::at_half(row, testbed, turn, "p50"),
        work: "50th percentile of the same requests as in P4",
        beside: &[] },
    Row { id: "P4-load", name: "under load", unit: ANSWERS_A_SECOND, better: "higher", lacks: None, pair: latency::under_load,
        work: "single segments as in P2, open loop at several rates; the median is over all of them",
        beside: &[] },
    Row { id: "P5", name: "beside a flood", unit: BYTES_A_SECOND, better: "higher", lacks: NO_BUCKETS, pair: flood::flood,
        work: "whole chunks as in P1, beside a flood of HELLOs, bad cookies, junk and unknown ids",
        beside: &[Side(flood::DROPPED, 0.8)] },
    Row { id: "P8", name: "memory", unit: "%", better: "lower", lacks: None, pair: |row, testbed, turn| memory::memory(row, testbed, turn, 131_072.0),
        work: "memory beside the payload that an arena of 4 GiB holds, in chunks of 128 KiB",
        beside: &[Mark("the mark of 4 %", 4.0)] },
    Row { id: "P8-4K", name: "memory, small objects", unit: "%", better: "lower", lacks: Some("slots for small objects are not built yet: each takes a whole chunk's"), pair: |row, testbed, turn| memory::memory(row, testbed, turn, 4096.0),
        work: "memory beside the payload that an arena of 4 GiB holds, in objects of 4 KiB",
        beside: &[Mark("the mark of 12 %", 12.0)] },
];

/// A row of the program on requests with cold caches.
const fn cold(id: &'static str, name: &'static str, pair: Pair, work: &'static str) -> Row {
    Row {
        id,
        name,
        work,
        unit: "ns",
        better: "lower",
        beside: &[Side(program::ALLOWED, 1.0)],
        lacks: NO_BUCKETS,
        pair,
    }
}

/// Sides of several rows.
const REFLECTOR: &str = "bare AF_XDP reflector";
const WITH_GSO: &str = "the edge with sender gso";
const WITH_XSK: &str = "the edge with sender xsk";
/// What some rows lack.
const NO_BUCKETS: Option<&str> = Some("source buckets are not built yet");
/// Requests in flight, enough to keep either side busy.
const WINDOW: &str = "1024";

/// The builds and senders to measure: the selected sender, or the row's own and the other one. With
/// a baseline the two builds take turns in going first.
fn sides<'a>(
    testbed: &'a Testbed<'_>,
    turn: Turn<'a>,
    own: &'a str,
) -> Vec<(&'static str, &'a Path, &'a str)> {
    let programs = testbed.programs();
    let Some(baseline) = &testbed.baseline else {
        let senders = senders(turn.sender, own).into_iter();
        return senders
            .map(|(side, sender)| (side, programs, sender))
            .collect();
    };
    let sender = turn.sender.unwrap_or(own);
    let mut sides = vec![
        (EDGE, programs, sender),
        (BASELINE, baseline.as_path(), sender),
    ];
    if turn.pair.is_multiple_of(2) {
        sides.reverse();
    }
    sides
}

fn senders<'a>(asked: Option<&'a str>, own: &'a str) -> Vec<(&'static str, &'a str)> {
    match (asked, own) {
        (Some(sender), _) => vec![(EDGE, sender)],
        (None, "gso") => vec![(EDGE, own), (WITH_XSK, "xsk")],
        (None, _) => vec![(EDGE, own), (WITH_GSO, "gso")],
    }
}
