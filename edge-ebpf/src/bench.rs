//! Programs for benchmarks: baselines that do less with the same packets, and the generator's
//! kernel bypass. Each passes the packets that its rule does not match.
//!
//! In test runs, `measure_rotate` runs before another program and varies the request.
//! `measure_bare` and `measure_nothing` are baselines for the edge's program.
#![no_std]
#![no_main]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use aya_ebpf::btf_maps::{Array, HashMap, ProgramArray, XskMap};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use edge_ebpf::cursor::{Packet as _, PacketMut as _, XdpPacket, tail_call};
use edge_ebpf::frame::{ETHERNET_BYTES, Family, Frame, Parsed, parse};
use edge_ebpf::maps::{QUEUES_MAX, Resident};
use edge_ebpf::rewrite;
use edge_ebpf::rotate::{self, REQUEST_BYTES};
use edge_ebpf::wire::{ChunkId, GET_BYTES, Get};

/// The packets to match: those to this UDP port (0: none), and those to an IPv4 address with these
/// upper 16 bits (0: none).
#[btf_map]
static RULE: Array<u32, 2> = Array::new();
#[btf_map]
static XSKS: XskMap<{ QUEUES_MAX as usize }> = XskMap::new();
/// The requests of `measure_rotate`. This map and RESIDENT get their sizes when they are loaded.
#[btf_map]
static REQUESTS: Array<[u8; REQUEST_BYTES], 1> = Array::new();
/// Like the edge's.
#[btf_map]
static RESIDENT: HashMap<ChunkId, Resident, 1> = HashMap::new();
/// The program under test.
#[btf_map]
static TESTED: ProgramArray<1> = ProgramArray::new();

/// Redirects to the socket of the packet's RX queue.
#[xdp]
fn measure_redirect(ctx: XdpContext) -> u32 {
    match matching(&XdpPacket::new(&ctx)) {
        Some(_) => XSKS
            .redirect(ctx.rx_queue_index(), u64::from(XDP_PASS))
            .unwrap_or(XDP_PASS),
        None => XDP_PASS,
    }
}

/// Returns the packet to its sender.
#[xdp]
fn measure_reflect(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    let Some(frame) = matching(&packet) else {
        return XDP_PASS;
    };
    match rewrite::turn(&mut packet, &frame) {
        Some(()) => XDP_TX,
        None => XDP_PASS,
    }
}

#[xdp]
fn measure_drop(ctx: XdpContext) -> u32 {
    match matching(&XdpPacket::new(&ctx)) {
        Some(_) => XDP_DROP,
        None => XDP_PASS,
    }
}

/// Writes the next request into the packet, and calls the program under test.
#[xdp]
fn measure_rotate(ctx: XdpContext) -> u32 {
    if rotate(&mut XdpPacket::new(&ctx)).is_some() {
        tail_call(&ctx, &TESTED, 0);
    }
    XDP_PASS
}

/// The minimum work of a hit: parse, look up, redirect to the socket of the RX queue.
#[xdp]
fn measure_bare(ctx: XdpContext) -> u32 {
    let mut packet = XdpPacket::new(&ctx);
    let Some(id) = wanted(&packet) else {
        return XDP_PASS;
    };
    if RESIDENT.get_ptr(id).is_some() {
        return XSKS
            .redirect(ctx.rx_queue_index(), u64::from(XDP_PASS))
            .unwrap_or(XDP_PASS);
    }
    // The kernel reports only the action of the last test run. Destroying the packet makes all
    // further runs fail, so that a single miss shows.
    if let Some(ethernet) = packet.at_mut::<ETHERNET_BYTES>(0) {
        *ethernet = [0; ETHERNET_BYTES];
    }
    XDP_PASS
}

/// The action of a hit, without any work.
#[xdp]
fn measure_nothing(_: XdpContext) -> u32 {
    XDP_REDIRECT
}

#[inline(always)]
fn rotate(packet: &mut XdpPacket) -> Option<()> {
    let request = REQUESTS.get(u32::from(rotate::number(packet)?))?;
    rotate::write(packet, request)
}

#[inline(always)]
fn wanted(packet: &XdpPacket) -> Option<ChunkId> {
    let Parsed::Udp(frame) = parse(packet) else {
        return None;
    };
    let get = Get::decode(packet.at::<GET_BYTES>(frame.payload_at())?).ok()?;
    Some(get.id)
}

/// Parses a packet that the rule matches.
#[inline(always)]
fn matching(packet: &XdpPacket) -> Option<Frame> {
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

/// A reachable panic is an infinite loop, which the verifier rejects.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[expect(unsafe_code, reason = "the loader looks the licence up by section")]
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
