//! The `xsk` sender: each segment is copied into a frame of the umem, behind the request's own
//! headers turned round, and leaves by the queue the request came in by. A VLAN tag comes back
//! with it.

use std::ops::Range;
use std::sync::Arc;

use edge_ebpf::frame::{ETHERNET_BYTES, Frame, IPV6_BYTES, UDP_BYTES, VLAN_BYTES, VLAN_TAGS_MAX};
use edge_ebpf::reason::Reason;
use edge_ebpf::rewrite::{headers, payload_sum};
use edge_ebpf::wire::{DATA_HEADER_BYTES, Geometry, NACK_BYTES, NackCode, SEGMENT_BYTES_MAX};

use crate::cache::{ChunkRef, Shared};
use crate::counters::Sends;
use crate::limits::XSK_SENDING;
use crate::serve::Request;
use crate::serve::plan::plan;
use crate::serve::transmit::Transmitter;
use crate::sys::xsk::{RxFrame, Xsk};

/// Ethernet, two tags, IPv6 and UDP: the longest way to a payload.
const HEADERS_BYTES_MAX: usize =
    ETHERNET_BYTES + VLAN_TAGS_MAX * VLAN_BYTES + IPV6_BYTES + UDP_BYTES;
const _: () = assert!(
    HEADERS_BYTES_MAX + DATA_HEADER_BYTES + SEGMENT_BYTES_MAX as usize
        <= XSK_SENDING.frame_bytes as usize,
    "the longest packet fits a frame"
);

#[derive(Debug)]
pub struct XskTransmitter {
    shared: Arc<Shared>,
    counters: Arc<Sends>,
    max_burst: u8,
}

/// The headers of the reply, made from those of the request.
struct ReplyHeaders<'a> {
    headers: [u8; HEADERS_BYTES_MAX],
    frame: &'a Frame,
}

impl XskTransmitter {
    pub fn new(shared: Arc<Shared>, counters: Arc<Sends>, max_burst: u8) -> Self {
        Self {
            shared,
            counters,
            max_burst,
        }
    }

    /// Where a stored datagram lies in its slot, if the chunk has that segment.
    fn place(&self, geometry: Geometry, index: u8) -> Option<Range<usize>> {
        let (_, payload_bytes) = geometry.segment(index)?;
        let stride = usize::from(self.shared.segment_bytes).saturating_add(DATA_HEADER_BYTES);
        let start = stride.saturating_mul(usize::from(index));
        let len_bytes = payload_bytes.saturating_add(DATA_HEADER_BYTES);
        Some(start..start.saturating_add(len_bytes))
    }

    /// Sends one datagram that `write` makes, or says with which reason there is none.
    fn datagram(
        &self,
        xsk: &mut Xsk,
        reply: &ReplyHeaders<'_>,
        len_bytes: usize,
        write: impl FnOnce(&mut [u8]),
    ) -> Result<(), Reason> {
        let Some(mut sending) = xsk.take_tx() else {
            self.counters.would_block.add(1);
            return Err(Reason::SendQueueFull);
        };
        let payload_at = reply.frame.payload_at();
        let end = payload_at.saturating_add(len_bytes);
        let made = make(xsk.tx_bytes(&mut sending), reply, payload_at, end, write);
        if made.is_none() {
            xsk.put_back_tx(sending);
            return Err(Reason::BadDescriptor);
        }
        xsk.send(sending, end);
        self.counters.datagrams.add(1);
        self.counters.bytes.add(len_bytes as u64);
        Ok(())
    }
}

fn make(
    room: &mut [u8],
    reply: &ReplyHeaders<'_>,
    payload_at: usize,
    end: usize,
    write: impl FnOnce(&mut [u8]),
) -> Option<()> {
    let packet = room.get_mut(..end)?;
    let (before, payload) = packet.split_at_mut_checked(payload_at)?;
    before.copy_from_slice(reply.headers.get(..payload_at)?);
    write(payload);
    let sum = payload_sum(payload);
    let udp_bytes = u16::try_from(payload.len().checked_add(UDP_BYTES)?).ok()?;
    headers(packet, reply.frame, udp_bytes, sum)
}

impl Transmitter for XskTransmitter {
    /// The first segment is on its way from memory while the answers before it are made; behind it
    /// the processor sees for itself what comes next.
    fn expect(&self, request: &Request, stay: ChunkRef) {
        let Some(geometry) = Geometry::new(stay.chunk_bytes, self.shared.segment_bytes) else {
            return;
        };
        let first = u8::try_from(request.get.want.trailing_zeros()).unwrap_or(u8::MAX);
        if let Some(place) = self.place(geometry, first) {
            let slab = &self.shared.slab;
            slab.prefetch(slab.span(stay.slot, place.start, place.len()));
        }
    }

    fn answer(
        &mut self,
        xsk: &mut Xsk,
        received: &RxFrame,
        frame: &Frame,
        request: &Request,
        stay: ChunkRef,
        stored: &[u8],
    ) -> Reason {
        let mut reply = ReplyHeaders {
            headers: [0; HEADERS_BYTES_MAX],
            frame,
        };
        let there = reply.headers.get_mut(..frame.payload_at());
        let here = xsk.bytes(received).get(..frame.payload_at());
        let (Some(there), Some(here)) = (there, here) else {
            return Reason::BadDescriptor;
        };
        there.copy_from_slice(here);

        let geometry = Geometry::new(stay.chunk_bytes, self.shared.segment_bytes);
        let runs = geometry.and_then(|geometry| {
            Some((geometry, plan(request.get.want, &geometry, self.max_burst)?))
        });
        let Some((geometry, runs)) = runs else {
            let nack = request.nack(NackCode::Range, 0).encode();
            let write = |payload: &mut [u8]| payload.copy_from_slice(&nack);
            let sent = self.datagram(xsk, &reply, NACK_BYTES, write);
            return sent.map_or_else(|reason| reason, |()| Reason::NackRange);
        };
        let mut sent_any = false;
        for index in runs.flat_map(|run| run.first..run.first.saturating_add(run.count)) {
            let place = self.place(geometry, index);
            let Some(datagram) = place.and_then(|place| stored.get(place)) else {
                continue;
            };
            let write = |payload: &mut [u8]| payload.copy_from_slice(datagram);
            match self.datagram(xsk, &reply, datagram.len(), write) {
                Ok(()) => sent_any = true,
                // The rest is left to the next request.
                Err(Reason::SendQueueFull) if sent_any => return Reason::ServedPartly,
                Err(reason) => return reason,
            }
        }
        Reason::Served
    }

    fn flush(&mut self, xsk: &mut Xsk) {
        xsk.kick();
    }

    fn holds_slots(&self) -> bool {
        // Every datagram was copied before `answer` returned.
        false
    }

    fn has_unsent(&self, xsk: &Xsk) -> bool {
        xsk.has_unsent()
    }
}
