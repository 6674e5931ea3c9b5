//! From frame to endpoints and GET: the first step of program, worker and socket front.

use std::hint::black_box;

use edge_ebpf::cursor::Packet;
use edge_ebpf::frame::{Parsed, parse};
use edge_ebpf::wire::{GET_BYTES, Get};

use super::Meter;
use super::packets::golden;

pub(super) fn all(meter: &mut impl Meter) {
    for name in ["a hit over IPv4", "a hit over IPv6", "a hit with two tags"] {
        let set_up = || golden(name).frame;
        meter.measure("parse", name, set_up, |frame| {
            parse(black_box(frame.as_slice()))
        });
    }
    let set_up = || {
        let frame = golden("a hit over IPv4").frame;
        let Parsed::Udp(udp) = parse(frame.as_slice()) else {
            unreachable!("a hit is UDP")
        };
        let payload = frame.as_slice().at::<GET_BYTES>(udp.payload_at());
        *payload.expect("a hit holds a GET")
    };
    meter.measure("parse", "a GET", set_up, |payload| {
        Get::decode(black_box(payload))
    });
}
