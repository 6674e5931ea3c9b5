//! The object format, as far as it needs no key. Server and reader share it.

/// Where a chunk lies at an origin.
pub mod key;
/// An object's chunks, from its size and its root.
pub mod tree;
