//! What a steered packet is answered with.

use edge_ebpf::cursor::Packet;
use edge_ebpf::frame::{Parsed, parse};
use edge_ebpf::maps::Resident;
use edge_ebpf::wire::{GET_BYTES, Get};

use crate::reply::Request;
use crate::reply::peer::Services;
use crate::store::Stay;
use crate::store::slot::SlotTable;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The chunk is where the program said.
    Data(Request, Stay),
    /// It is not, or no longer: the miss path knows what to do.
    Bounce(Request),
    /// The program steers no such packet.
    Bad,
}

/// Reads the packet again, and compares the program's hint with the slot table (I5). The cookie
/// is not checked again: whatever is in this ring, the program put there.
#[inline]
pub fn answer(
    packet: &[u8],
    mark: Option<Resident>,
    table: &SlotTable,
    services: &Services,
) -> Answer {
    let Parsed::Udp(frame) = parse(packet) else {
        return Answer::Bad;
    };
    let Some(peer) = services.peer(&frame.source, &frame.destination, frame.family) else {
        return Answer::Bad;
    };
    let Some(window) = packet.at::<GET_BYTES>(frame.payload_at()) else {
        return Answer::Bad;
    };
    let Ok(get) = Get::decode(window) else {
        return Answer::Bad;
    };
    let request = Request { peer, get };
    let stay = mark.and_then(|mark| {
        let chunk_bytes = table.confirm(mark, &get.id)?;
        Some(Stay {
            slot: mark.slot,
            chunk_bytes,
        })
    });
    match stay {
        Some(stay) => Answer::Data(request, stay),
        None => Answer::Bounce(request),
    }
}
