//! Safe wrappers of kernel interfaces. `unsafe` is used only in this module, one operation to a
//! block, with the fact it relies on.
#![expect(unsafe_code, reason = "the only module of this crate with unsafe code")]
#![expect(
    clippy::host_endian_bytes,
    reason = "the kernel has the same byte order"
)]

/// Memory from the kernel, hugepages or not.
pub mod mapping;
/// Memory excluded from core dumps, for secrets and client addresses.
pub mod undumped;
/// A mapping divided into blocks, each with one owner.
pub mod slab;
/// Epoch-based reclamation of blocks on loan to readers.
pub mod epochs;
/// One end of an AF_XDP ring.
pub mod ring;
/// The shared memory of a ring.
pub mod ring_memory;
/// An AF_XDP socket.
pub mod xsk;
/// Netlink sockets and the queues of an interface.
pub mod netlink;
/// The service's UDP sockets.
pub mod socket;
/// Retries a bind while the address or queue is in use.
mod bind_retry;
/// An `io_uring` for one thread.
mod uring;
/// Sends through io_uring, gathered from a slab.
pub mod send;
/// Receives through io_uring, into provided buffers.
pub mod receive;
/// The program's map types, for aya.
pub mod bpf;
