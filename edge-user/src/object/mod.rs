//! The object format: everything that needs no key. Server and reader share it.

/// Where an origin stores a chunk.
pub mod key;
/// The chunks of an object, from its size and its root.
pub mod tree;
/// Public tickets: size and root of an object.
#[cfg(feature = "reader")]
pub mod ticket;
