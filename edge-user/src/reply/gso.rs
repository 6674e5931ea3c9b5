//! The `gso` sender: one send gathers the wanted segments from the arena, and the kernel cuts it
//! into datagrams (`UDP_SEGMENT`).

use std::sync::Arc;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{DATA_HEADER_BYTES, Geometry, Nack, NackCode, WELCOME_HEADER_BYTES, Welcome};

use super::Request;
use super::gather::Gather;
use super::peer::Peer;
use super::plan::plan;
use crate::counters::Sends;
use crate::limits::SEND_BYTES_MAX;
use crate::store::{Shared, Stay};
use crate::sys::send::{Full, SendEnd, SendQueue, SendRing, Sent};

/// Sends a burst can take: 128 segments, at least 44 of them in each.
const SENDS_PER_BURST: usize = 3;
const _: () = assert!(SENDS_PER_BURST * (SEND_BYTES_MAX / (1440 + DATA_HEADER_BYTES)) >= 128);

/// Sends for one thread.
#[derive(Debug)]
pub struct Sender<Q = SendRing> {
    ring: Q,
    shared: Arc<Shared>,
    counters: Arc<Sends>,
    gather: Gather,
    max_burst: u8,
}

/// Why no DATA went out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoData {
    /// No wanted segment exists.
    Range,
    /// All sends are under way.
    Full,
}

impl<Q: SendQueue> Sender<Q> {
    pub fn new(ring: Q, shared: Arc<Shared>, counters: Arc<Sends>, max_burst: u8) -> Self {
        let gather = Gather::new(shared.segment_bytes);
        Self {
            ring,
            shared,
            counters,
            gather,
            max_burst,
        }
    }

    /// Answers a GET for a resident chunk, and says how that ended.
    pub fn answer(&mut self, request: &Request, stay: Stay) -> Reason {
        let (sent, reason) = match self.data(&request.peer, stay, request.get.want) {
            Ok(()) => (Ok(()), Reason::Served),
            Err(NoData::Range) => {
                let nack = request.nack(NackCode::Range, 0);
                (self.nack(&request.peer, &nack), Reason::NackRange)
            }
            Err(NoData::Full) => (Err(NoData::Full), Reason::SendQueueFull),
        };
        if sent.is_ok() {
            reason
        } else {
            Reason::SendQueueFull
        }
    }

    /// Queues the wanted segments of a resident chunk.
    pub fn data(&mut self, peer: &Peer, stay: Stay, want: u128) -> Result<(), NoData> {
        let geometry = Geometry::new(stay.chunk_bytes, self.shared.segment_bytes)
            .expect("the store holds chunks that have one");
        let runs = plan(want, &geometry, self.max_burst).ok_or(NoData::Range)?;
        self.make_room(SENDS_PER_BURST)?;
        let Self {
            ring,
            shared,
            gather,
            ..
        } = self;
        gather
            .sends(&shared.slab, stay, geometry, runs, |spans| {
                let spans = spans.iter().copied();
                ring.queue_spans(peer.socket, &peer.client, spans, gather.stride())
            })
            .map_err(|Full| NoData::Full)
    }

    pub fn nack(&mut self, peer: &Peer, nack: &Nack) -> Result<(), NoData> {
        let bytes = nack.encode();
        self.datagram(peer, &bytes, bytes.len())
    }

    /// As long as the HELLO it answers. The padding is zeros, not the client's: nobody's words can
    /// be bounced off an edge.
    pub fn welcome(
        &mut self,
        peer: &Peer,
        welcome: &Welcome,
        hello_bytes: usize,
    ) -> Result<(), NoData> {
        let bytes: [u8; WELCOME_HEADER_BYTES] = welcome.encode();
        self.datagram(peer, &bytes, hello_bytes)
    }

    fn datagram(&mut self, peer: &Peer, bytes: &[u8], len_bytes: usize) -> Result<(), NoData> {
        self.make_room(1)?;
        self.ring
            .queue_bytes(peer.socket, &peer.client, bytes, len_bytes)
            .map_err(|Full| NoData::Full)
    }

    fn make_room(&mut self, sends: usize) -> Result<(), NoData> {
        if self.ring.room() < sends {
            self.flush();
        }
        if self.ring.room() < sends {
            Err(NoData::Full)
        } else {
            Ok(())
        }
    }

    /// Hands what is queued to the kernel. Nothing here waits, so nothing stays under way unless
    /// the kernel is out of memory for it.
    pub fn flush(&mut self) {
        let counters = &self.counters;
        let flushed = self.ring.flush(|Sent { datagrams, bytes }, end| {
            let datagrams = u64::from(datagrams);
            match end {
                SendEnd::Done => {
                    counters.datagrams.add(datagrams);
                    counters.bytes.add(u64::from(bytes));
                }
                SendEnd::WouldBlock => counters.would_block.add(datagrams),
                SendEnd::Failed(errno) => {
                    counters.failed.add(datagrams);
                    counters.last_errno.set(u64::from(errno));
                }
            }
        });
        // The ring is ours and its entries are well-formed: any other error is our own mistake.
        flushed.expect("io_uring takes sends");
    }

    /// Sends that the kernel has not finished; their slots must not be reused (I6).
    pub fn in_flight(&self) -> usize {
        self.ring.in_flight()
    }
}
