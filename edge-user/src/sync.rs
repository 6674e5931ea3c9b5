//! The atomics that order shared data. `edge-user/orders/` compiles the modules that use them
//! against loom, which tries every interleaving.

/// Random keys for each process; fixed keys under loom.
pub(crate) use hashbrown::DefaultHashBuilder as HashKeys;
pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
