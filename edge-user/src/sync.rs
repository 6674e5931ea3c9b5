//! The atomics by which threads order what they share. `edge-user/orders/` compiles the modules that use
//! them against loom's, which try every order there can be.

/// Keys of its own in each process. Under loom each run hashes alike.
pub(crate) use hashbrown::DefaultHashBuilder as HashKeys;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
