//! Benchmarks of Sealedge. The micro-benchmarks are under `benches/`.
