//! Where chunks come from.

/// The threads that ask origins.
pub mod pool;
/// An origin that is a local directory.
pub mod local;
/// Slots that chunks are read into.
pub mod slots;
/// Why an origin did not give a chunk.
pub mod error;

use edge_ebpf::wire::ChunkId;

use self::error::ReadError;
use self::slots::Slots;
use crate::cache::fill::Verified;

/// One origin. It is asked by threads of its own, which may wait.
pub trait Origin: Send + Sync + 'static {
    /// Reads a chunk into a slot and checks it there. A slot is taken as late as possible: whether
    /// the chunk exists can be found out without one.
    fn fetch(&self, id: ChunkId, slots: &Slots) -> Result<Verified, ReadError>;
}
