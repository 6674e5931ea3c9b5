//! The XDP program: maps, context to cursor, verdict to action. All decisions are made in
//! [`edge_ebpf::steer`].
#![no_std]
#![no_main]
#![expect(
    unsafe_code,
    reason = "maps and context are reached through the kernel's pointers"
)]
#![expect(
    clippy::cast_possible_truncation,
    clippy::cast_possible_wrap,
    reason = "lengths of one packet, in the widths the helpers take"
)]

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS, XDP_TX};
use aya_ebpf::btf_maps::{Array, HashMap, PerCpuArray, XskMap};
use aya_ebpf::helpers::{bpf_xdp_adjust_meta, bpf_xdp_adjust_tail};
use aya_ebpf::macros::{btf_map, xdp};
use aya_ebpf::programs::XdpContext;
use edge_ebpf::cursor::{Packet, XdpPacket};
use edge_ebpf::frame::{Address, Frame};
use edge_ebpf::maps::{
    Cookies, INTERFACES_MAX, InterfaceSettings, LOCALS_MAX, QUEUES_MAX, Resident, Settings,
    TALLIES, Tally, row, tally_index,
};
use edge_ebpf::reason::Reason;
use edge_ebpf::rewrite;
use edge_ebpf::steer::{Reply, Tables, Verdict, decide};
use edge_ebpf::wire::ChunkId;

/// The server sets the real sizes of this map, of RESIDENT, XSKS and COUNTERS when it loads the
/// program.
#[btf_map]
static SETTINGS: Array<InterfaceSettings, 1> = Array::new();
#[btf_map]
static LOCALS: HashMap<Address, u32, { LOCALS_MAX as usize }> = HashMap::new();
#[btf_map]
static COOKIES: Array<Cookies, 1> = Array::new();
#[btf_map]
static RESIDENT: HashMap<ChunkId, Resident, 1> = HashMap::new();
#[btf_map]
static XSKS: XskMap<{ QUEUES_MAX as usize }> = XskMap::new();
#[btf_map]
static COUNTERS: PerCpuArray<Tally, { TALLIES as usize }> = PerCpuArray::new();

/// The maps for a frame of one interface.
struct Maps {
    interface: Option<&'static InterfaceSettings>,
}

impl Maps {
    #[inline(always)]
    fn of(ctx: &XdpContext) -> Self {
        let index = ctx.ingress_ifindex() as u32;
        let all = (0..INTERFACES_MAX).map_while(|place| SETTINGS.get(place));
        let mut served = all.filter(|interface| interface.interface_index == index);
        Self {
            interface: served.next(),
        }
    }

    /// The row of the frame's RX queue.
    #[inline(always)]
    fn row(&self, ctx: &XdpContext) -> u32 {
        let first_row = self.interface.map_or(0, |interface| interface.first_row);
        row(first_row, ctx.rx_queue_index())
    }
}

impl Tables for Maps {
    #[inline(always)]
    fn settings(&self) -> Option<&Settings> {
        self.interface?.live()
    }

    #[inline(always)]
    fn cookies(&self) -> Option<&Cookies> {
        COOKIES.get(0)
    }

    #[inline(always)]
    fn is_local(&self, address: &Address) -> bool {
        // A copy: a pointer into the frame would keep the whole frame on the stack.
        let key = *address;
        LOCALS.get_ptr(key).is_some()
    }

    #[inline(always)]
    fn resident(&self, id: &ChunkId) -> Option<Resident> {
        // SAFETY: the element may be reused while it is read; the value is a hint that the worker
        // compares with the slot table (I5).
        unsafe { RESIDENT.get(id) }.copied()
    }
}

#[xdp]
fn edge_xdp(ctx: XdpContext) -> u32 {
    let packet = XdpPacket::new(&ctx);
    let frame_bytes = packet.len_bytes();
    let maps = Maps::of(&ctx);
    let row = maps.row(&ctx);
    let (reason, action) = match decide(&packet, &maps) {
        Verdict::Pass(reason) => (reason, XDP_PASS),
        Verdict::Drop(reason) => (reason, XDP_DROP),
        Verdict::Reply(reason, frame, reply) => answer(&ctx, packet, reason, &frame, &reply),
        Verdict::Steer(resident) => steer(&ctx, row, resident),
    };
    // I10: the only place that counts; every packet passes it once.
    count(row, reason, frame_bytes);
    action
}

#[inline(always)]
fn answer(
    ctx: &XdpContext,
    mut packet: XdpPacket,
    reason: Reason,
    frame: &Frame,
    reply: &Reply,
) -> (Reason, u32) {
    let frame_bytes = packet.len_bytes();
    let Some(resize) = rewrite::reply(&mut packet, frame, reply) else {
        return (Reason::BadLength, XDP_DROP);
    };
    // The kernel fills added bytes with zeros.
    let cut = resize.keep_bytes.wrapping_sub(frame_bytes) as i32;
    let grow = resize.frame_bytes.wrapping_sub(resize.keep_bytes) as i32;
    for delta in [cut, grow] {
        // SAFETY: the context is that of this run; no pointer into the packet is used after this.
        if delta != 0 && unsafe { bpf_xdp_adjust_tail(ctx.ctx, delta) } != 0 {
            return (Reason::ResizeFailed, XDP_DROP);
        }
    }
    (reason, XDP_TX)
}

#[inline(always)]
fn steer(ctx: &XdpContext, row: u32, resident: Resident) -> (Reason, u32) {
    // The driver may have stored metadata of its own: resize the area to exactly our size.
    let present = ctx.metadata_end().wrapping_sub(ctx.metadata()) as i32;
    let delta = present.wrapping_sub(Resident::METADATA_BYTES as i32);
    // SAFETY: as above; the pointers are fetched again below.
    if unsafe { bpf_xdp_adjust_meta(ctx.ctx, delta) } != 0 {
        return (Reason::NoMetadata, XDP_PASS);
    }
    let start = ctx.metadata();
    if start.wrapping_add(Resident::METADATA_BYTES) > ctx.metadata_end() {
        return (Reason::NoMetadata, XDP_PASS);
    }
    let hint = start as *mut [u8; Resident::METADATA_BYTES];
    // SAFETY: the end of the area is checked above.
    unsafe { hint.write(resident.to_metadata()) };
    // I3: only to the socket of the packet's own RX queue; without one, to the kernel.
    if ctx.rx_queue_index() >= QUEUES_MAX {
        return (Reason::NoSocket, XDP_PASS);
    }
    match XSKS.redirect(row, u64::from(XDP_PASS)) {
        Ok(action) => (Reason::Steered, action),
        Err(_) => (Reason::NoSocket, XDP_PASS),
    }
}

#[inline(always)]
fn count(row: u32, reason: Reason, frame_bytes: usize) {
    if let Some(tally) = COUNTERS.get_ptr_mut(tally_index(row, reason)) {
        // SAFETY: the element belongs to this CPU, and XDP runs are not nested.
        let tally = unsafe { &mut *tally };
        tally.packets = tally.packets.wrapping_add(1);
        tally.bytes = tally.bytes.wrapping_add(frame_bytes as u64);
    }
}

/// A reachable panic is an infinite loop, which the verifier rejects.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
