//! Code shared by the XDP program and the server, in the order a packet meets it.
//!
//! It is compiled twice: for the kernel, over packet pointers, and for the host, over slices. So a
//! packet gets the same verdict from both.
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
/// Parses Ethernet, VLAN, IP and UDP headers.
pub mod frame;
/// The five datagrams of the protocol, byte by byte.
pub mod wire;
/// Cookies: the proof that a client receives at its source address.
pub mod cookie;
/// The verdict on a packet: the whole policy, as pure functions.
pub mod steer;
/// Rewrites a request into its answer, in place.
pub mod rewrite;
/// Maps between program and server: names, keys, values, ABI version.
pub mod maps;
/// The reasons in which packets end.
pub mod reason;
/// Varies the GET of a benchmark.
pub mod rotate;
/// Named packets with the verdict each must get, on the host and in the kernel.
#[cfg(not(target_arch = "bpf"))]
pub mod golden;
