//! What the XDP program and the server share, in the order a packet meets it.
//!
//! The same code is compiled twice: for the kernel, over packet pointers, and for the host, over
//! slices. A packet therefore gets the same verdict whichever of the two sees it first.
#![no_std]
#![cfg_attr(
    not(test),
    deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)
)]
#![cfg_attr(
    not(test),
    deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)
)]

#[cfg(not(target_arch = "bpf"))]
extern crate alloc;

/// Bounds-checked windows into a packet.
pub mod cursor;
/// Ethernet, VLAN, IP and UDP: whom a packet is from and whom it is for.
pub mod frame;
/// The five datagrams of the protocol, byte by byte.
pub mod wire;
/// The proof that a client receives at the address it sends from.
pub mod cookie;
/// What happens to a packet: the whole policy, as pure functions.
pub mod steer;
/// Turns a request into its answer, in place.
pub mod rewrite;
/// Maps between program and server: names, keys, values, ABI version.
pub mod maps;
/// How a packet ended.
pub mod reason;
/// One GET as many, to measure with.
pub mod rotate;
/// Named packets with the verdict each must get, on the host and in the kernel.
#[cfg(not(target_arch = "bpf"))]
pub mod golden;
