//! Benchmarks of Sealedge: what the program `edge-bench` is made of. The micro-benchmarks are
//! under `benches/`.

/// Content to measure with.
pub mod seed;

/// Readers that want to be served fast.
pub mod load;

/// The highest rate that an edge holds.
pub mod capacity;

/// Servers without anything that is not needed.
pub mod ceiling;

/// What the XDP program costs while memory is warm.
pub mod verdict;

/// What it costs when it is not.
pub mod cold;

/// Programs on an interface.
pub mod program;

/// Hugepages.
mod memory;

/// Files, and standard output.
pub mod output;

/// The machine, and an interface of it.
pub mod host;

/// How long it stands still.
pub mod stalls;

/// What was measured, as JSON, and everything made from it.
pub mod report;
