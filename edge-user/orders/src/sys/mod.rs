//! In place of `edge-user/src/sys`: memory that loom watches.
#![expect(unsafe_code, reason = "as in the product: what memory is made of")]

/// One direction of an AF_XDP ring: the product's own.
#[path = "../../../src/sys/ring.rs"]
pub mod ring;
/// Blocks on loan to readers: the product's own.
#[path = "../../../src/sys/epochs.rs"]
pub mod epochs;
/// The program's map types: the product's own.
#[path = "../../../src/sys/bpf.rs"]
pub mod bpf;
/// Where a ring lies.
pub mod ring_memory;
/// Blocks of memory, each with one owner.
pub mod slab;
/// Memory by its size.
pub mod mapping;
