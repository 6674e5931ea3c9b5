//! Passes every packet, for the client's end of a veth pair: without a program there, the kernel
//! silently drops the edge's `XDP_TX` packets.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::XDP_PASS;
use aya_ebpf::macros::xdp;
use aya_ebpf::programs::XdpContext;

#[xdp]
fn edge_pass(_: XdpContext) -> u32 {
    XDP_PASS
}

/// A reachable panic is an infinite loop, which the verifier rejects.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[expect(unsafe_code, reason = "the loader looks the licence up by section")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
