//! The `xsk` transmitter: copies each segment into a frame of the umem, behind the request's
//! headers with source and destination swapped, and sends it from the queue that received the
//! request. VLAN tags are kept.

use std::sync::Arc;

use edge_ebpf::frame::{ETHERNET_BYTES, Frame, IPV6_BYTES, UDP_BYTES, VLAN_BYTES, VLAN_TAGS_MAX};
use edge_ebpf::rewrite::{headers, payload_sum};
use edge_ebpf::wire::{DATA_HEADER_BYTES, NACK_BYTES, Nack, SEGMENT_BYTES_MAX};

use crate::cache::lease::Lease;
use crate::counters::Sends;
use crate::limits::XSK_SENDING;
use crate::serve::Unsent;
use crate::serve::plan::Runs;
use crate::serve::transmit::{Incoming, Transmitter};
use crate::sys::xsk::Xsk;

/// Ethernet, two VLAN tags, IPv6 and UDP.
const HEADERS_BYTES_MAX: usize =
    ETHERNET_BYTES + VLAN_TAGS_MAX * VLAN_BYTES + IPV6_BYTES + UDP_BYTES;
const _: () = assert!(
    HEADERS_BYTES_MAX + DATA_HEADER_BYTES + SEGMENT_BYTES_MAX as usize
        <= XSK_SENDING.frame_bytes as usize,
    "the longest packet fits a frame"
);

#[derive(Debug)]
pub struct XskTransmitter {
    counters: Arc<Sends>,
}

/// The request's headers, from which those of the reply are made.
struct ReplyHeaders<'a> {
    headers: [u8; HEADERS_BYTES_MAX],
    frame: &'a Frame,
}

impl<'a> ReplyHeaders<'a> {
    fn of(to: &Incoming<'a>) -> Option<Self> {
        let mut headers = [0; HEADERS_BYTES_MAX];
        let copy = headers.get_mut(..to.frame.payload_at())?;
        copy.copy_from_slice(to.xsk.bytes(to.packet).get(..to.frame.payload_at())?);
        Some(Self {
            headers,
            frame: to.frame,
        })
    }
}

impl XskTransmitter {
    pub const fn new(counters: Arc<Sends>) -> Self {
        Self { counters }
    }

    fn datagram(
        &self,
        xsk: &mut Xsk,
        reply: &ReplyHeaders<'_>,
        datagram: &[u8],
    ) -> Result<(), Unsent> {
        let Some(mut sending) = xsk.take_tx() else {
            self.counters.would_block.add(1);
            return Err(Unsent::Full);
        };
        let payload_at = reply.frame.payload_at();
        let end = payload_at.saturating_add(datagram.len());
        let built = build(xsk.tx_bytes(&mut sending), reply, payload_at, end, datagram);
        if built.is_none() {
            xsk.put_back_tx(sending);
            return Err(Unsent::BadDescriptor);
        }
        xsk.send(sending, end);
        self.counters.datagrams.add(1);
        self.counters.bytes.add(datagram.len() as u64);
        Ok(())
    }
}

fn build(
    buffer: &mut [u8],
    reply: &ReplyHeaders<'_>,
    payload_at: usize,
    end: usize,
    datagram: &[u8],
) -> Option<()> {
    let packet = buffer.get_mut(..end)?;
    let (front, payload) = packet.split_at_mut_checked(payload_at)?;
    front.copy_from_slice(reply.headers.get(..payload_at)?);
    payload.copy_from_slice(datagram);
    let sum = payload_sum(payload);
    let udp_bytes = u16::try_from(payload.len().checked_add(UDP_BYTES)?).ok()?;
    headers(packet, reply.frame, udp_bytes, sum)
}

impl Transmitter for XskTransmitter {
    fn data(&mut self, to: &mut Incoming<'_>, lease: &Lease<'_>, runs: Runs) -> Result<(), Unsent> {
        let reply = ReplyHeaders::of(to).ok_or(Unsent::BadDescriptor)?;
        let mut sent_any = false;
        for index in runs.flat_map(|run| run.first..run.first.saturating_add(run.count)) {
            let Some(datagram) = lease.datagram(index) else {
                continue;
            };
            match self.datagram(to.xsk, &reply, datagram) {
                Ok(()) => sent_any = true,
                // The client requests the rest again.
                Err(Unsent::Full) if sent_any => return Err(Unsent::Partly),
                Err(unsent) => return Err(unsent),
            }
        }
        Ok(())
    }

    fn nack(&mut self, to: &mut Incoming<'_>, nack: &Nack) -> Result<(), Unsent> {
        let reply = ReplyHeaders::of(to).ok_or(Unsent::BadDescriptor)?;
        let bytes: [u8; NACK_BYTES] = nack.encode();
        self.datagram(to.xsk, &reply, &bytes)
    }

    /// Only the first segment: the hardware prefetcher follows the sequential reads after it.
    fn prefetch(&self, lease: &Lease<'_>, runs: &Runs) {
        lease.prefetch(runs.first());
    }

    fn flush(&mut self, xsk: &mut Xsk) {
        xsk.kick();
    }

    fn has_unsent(&self, xsk: &Xsk) -> bool {
        xsk.has_unsent()
    }
}
