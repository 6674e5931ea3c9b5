//! The atomics by which threads order what they share. `edge-user/orders/` compiles the modules that use
//! them against loom's, which try every order there can be.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering, fence};
