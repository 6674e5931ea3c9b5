//! The modules by which Sealedge's threads share memory, as they stand in `edge-user/src`, compiled
//! against [loom] instead of the machine's atomics. `tests/orders.rs` has loom try every order in
//! which they can meet, weak ones too (docs/adr/0014).
//!
//! What they are made of is stood in for under the same paths: memory that loom watches.

// Their unit tests belong to edge-user.
#![cfg(not(test))]

/// The cache: the product's own.
#[path = "../../src/cache/mod.rs"]
pub mod cache;
/// As the product has it.
#[path = "../../src/counters.rs"]
pub mod counters;
/// Rings of the product, over memory that loom watches.
pub mod sys;

/// Loom's atomics in place of the machine's.
mod sync {
    pub(crate) type HashKeys = std::hash::BuildHasherDefault<std::hash::DefaultHasher>;
    pub(crate) use loom::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
}

/// Small, because loom tries everything.
mod limits {
    pub(crate) const SLOTS_MIN: u32 = 1;
    pub(crate) const SLOTS_AHEAD: usize = 1;
    pub(crate) const OWNED_LEASES: u32 = 1;
}
