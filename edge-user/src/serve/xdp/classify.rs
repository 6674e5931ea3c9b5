//! What a steered packet is answered with.

use edge_ebpf::cursor::Packet;
use edge_ebpf::frame::{Frame, Parsed, parse};
use edge_ebpf::maps::Resident;
use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{GET_BYTES, Get};

use crate::cache::ChunkRef;
use crate::cache::slot_table::SlotTable;
use crate::serve::Request;
use crate::serve::peer::Listeners;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// The chunk is where the program said. The frame is that of the request.
    Data(Frame, Request, ChunkRef),
    /// It is not, or no longer: the miss path knows what to do.
    Bounce(Request),
    /// The program steers no such packet.
    Bad(Reason),
}

/// Reads the packet again, and compares the program's hint with the slot table (I5). The cookie
/// is not checked again: whatever is in this ring, the program put there.
#[inline]
pub fn answer(
    packet: &[u8],
    mark: Option<Resident>,
    table: &SlotTable,
    services: &Listeners,
) -> Answer {
    let bad = Answer::Bad(Reason::BadDescriptor);
    let Parsed::Udp(frame) = parse(packet) else {
        return bad;
    };
    let Some(peer) = services.peer(&frame.source, &frame.destination, frame.family) else {
        return bad;
    };
    let Some(window) = packet.at::<GET_BYTES>(frame.payload_at()) else {
        return bad;
    };
    let Ok(get) = Get::decode(window) else {
        return bad;
    };
    let request = Request { peer, get };
    let stay = mark.and_then(|mark| {
        let chunk_bytes = table.confirm(mark, &get.id)?;
        Some(ChunkRef {
            slot: mark.slot,
            chunk_bytes,
        })
    });
    match stay {
        Some(stay) => Answer::Data(frame, request, stay),
        None => Answer::Bounce(request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::Shared;
    use crate::sys::mapping::Mapping;
    use edge_ebpf::golden::{self, Expect};
    use edge_ebpf::wire::SEGMENT_BYTES_DEFAULT;

    #[test]
    fn what_the_program_steers_is_read_the_same_way_again_and_nothing_else_is_answered() {
        let arena_bytes = 16 << 20;
        let arena = Mapping::anonymous(arena_bytes, false).unwrap();
        let (shared, _pieces) =
            Shared::new(arena, arena_bytes as u64, SEGMENT_BYTES_DEFAULT, 0).unwrap();
        let listen = ["192.0.2.10:7347", "[2001:db8::10]:7347"];
        let services = Listeners::new(&listen.map(|address| address.parse().unwrap()), 1);
        let mut bounced = 0;
        for case in golden::all() {
            // No chunk is resident, so even the program's own mark must not be believed (I5).
            let mark = Some(case.world.resident);
            match answer(&case.frame, mark, &shared.table, &services) {
                Answer::Bounce(request) => {
                    bounced += 1;
                    assert_eq!(request.peer.client.is_ipv4(), request.peer.socket == 0);
                }
                Answer::Bad(reason) => {
                    assert_eq!(reason, Reason::BadDescriptor);
                    assert!(!matches!(case.expect, Expect::Steer(_)), "{}", case.name);
                }
                Answer::Data(..) => panic!("{}: answered from an empty store", case.name),
            }
        }
        assert!(bounced > 5);
    }
}
