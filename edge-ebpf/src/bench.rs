//! Programs to measure with: what the same packets cost when less is done about them, and the
//! generator's own way past the kernel. Each lets everything pass that its rule does not name.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::{Array, XskMap};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use edge_ebpf::cursor::XdpPacket;
use edge_ebpf::frame::{Family, Frame, Parsed, parse};
use edge_ebpf::maps::QUEUES_MAX;
use edge_ebpf::rewrite;

/// Which packets are meant: those to this UDP port (0: none), and those to an IPv4 address whose
/// upper 16 bits are these (0: none).
#[btf_map]
static RULE: Array<u32, 2> = Array::new();
#[btf_map]
static XSKS: XskMap<{ QUEUES_MAX as usize }> = XskMap::new();

/// To the socket of the queue it came in by.
#[xdp]
fn measure_redirect(ctx: XdpContext) -> u32 {
    match named(&XdpPacket::new(&ctx)) {
        Some(_) => XSKS
            .redirect(ctx.rx_queue_index(), u64::from(XDP_PASS))
            .unwrap_or(XDP_PASS),
        None => XDP_PASS,
    }
}

/// Back to where it came from, as it is.
#[xdp]
fn measure_reflect(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    let Some(frame) = named(&packet) else {
        return XDP_PASS;
    };
    match rewrite::turn(&mut packet, &frame) {
        Some(()) => XDP_TX,
        None => XDP_PASS,
    }
}

#[xdp]
fn measure_drop(ctx: XdpContext) -> u32 {
    match named(&XdpPacket::new(&ctx)) {
        Some(_) => XDP_DROP,
        None => XDP_PASS,
    }
}

/// Reads a packet that the rule names.
#[inline(always)]
fn named(packet: &XdpPacket) -> Option<Frame> {
    let Parsed::Udp(frame) = parse(packet) else {
        return None;
    };
    let to = frame.destination;
    let by_port = *RULE.get(0)? == u32::from(to.port);
    let [.., high, low, _, _] = to.address.bytes();
    let net = u32::from(u16::from_be_bytes([high, low]));
    let by_net = frame.family == Family::V4 && *RULE.get(1)? == net;
    (by_port || by_net).then_some(frame)
}

/// A reachable panic is an endless loop, which the verifier refuses.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[expect(unsafe_code, reason = "the loader looks the licence up by section")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
