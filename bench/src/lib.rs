//! Benchmarks of Sealedge: the parts of the program `edge-bench`. The micro-benchmarks are under
//! `benches/`.

/// Content to measure with.
pub mod seed;

/// Load generators.
pub mod load;

/// The highest rate that an edge sustains.
pub mod capacity;

/// Minimal servers.
pub mod ceiling;

/// Cost of the XDP program with warm caches.
pub mod verdict;

/// The same with cold caches.
pub mod cold;

/// Programs on an interface.
pub mod program;

/// Hugepages.
mod memory;

/// Files, and standard output.
pub mod output;

/// Facts about the host and an interface.
pub mod host;

/// The way between two CPUs.
pub mod core_to_core;

/// Stalls of idle CPUs.
pub mod stalls;

/// Reports: results as JSON, and everything made from them.
pub mod report;
