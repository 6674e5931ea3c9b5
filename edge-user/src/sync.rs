//! The atomics by which threads order what they share. `orders/` compiles the modules that use
//! them against loom's, which try every order there can be.

pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering, fence};
