//! Origins and the threads that read from them.

/// The threads that read from origins.
pub mod pool;
/// An origin that is a local directory.
pub mod local;
/// Slots that chunks are read into.
pub mod slots;
/// Errors of fetches and reads.
pub mod error;

use edge_ebpf::wire::ChunkId;

use self::error::ReadError;
use self::slots::Slots;
use crate::cache::fill::Verified;

/// A source of chunks, read by threads of its own, which may block.
pub trait Origin: Send + Sync {
    /// Reads a chunk into a slot and verifies it. Takes the slot as late as possible: none is
    /// needed to find whether the chunk exists.
    fn fetch(&self, id: ChunkId, slots: &Slots) -> Result<Verified, ReadError>;
}
