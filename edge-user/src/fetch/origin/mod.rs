//! Where chunks come from.

/// The threads that read origins.
pub mod pool;
/// An origin that is a local directory.
pub mod local;
