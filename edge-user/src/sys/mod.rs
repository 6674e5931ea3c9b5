//! The kernel's interfaces, wrapped so that the rest of the crate needs no `unsafe`: it is written
//! here and nowhere else, one operation to a block, with the fact it relies on.
#![expect(unsafe_code, reason = "this is the place for it")]
#![expect(
    clippy::host_endian_bytes,
    reason = "the kernel is on the same machine"
)]

/// Memory from the kernel, hugepages or not.
pub mod mapping;
/// Memory left out of core dumps, for what names clients.
pub mod undumped;
/// A mapping cut into blocks, each with one owner.
pub mod slab;
/// Blocks on loan to readers, and the way back.
pub mod epochs;
/// One direction of an AF_XDP ring: who may touch which entry when.
pub mod ring;
/// Where a ring lies.
pub mod ring_memory;
/// An AF_XDP socket that receives.
pub mod xsk;
/// Questions to the kernel about interfaces.
pub mod netlink;
/// The service's UDP sockets.
pub mod socket;
/// Addresses and queues that are free a moment later.
mod bind_retry;
/// An `io_uring` of one thread.
mod uring;
/// Sends through io_uring, gathered from a slab.
pub mod send;
/// Receives through io_uring, into provided buffers.
pub mod receive;
/// Wakes a sleeping thread from any other.
pub mod wake;
/// The program's map types, as aya wants them.
pub mod bpf;
