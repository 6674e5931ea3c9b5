//! The `gso` sender: one send gathers the wanted segments from the arena, and the kernel cuts it
//! into datagrams (`UDP_SEGMENT`).

use std::net::IpAddr;
use std::sync::Arc;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{DATA_HEADER_BYTES, Geometry, Nack, NackCode, WELCOME_HEADER_BYTES, Welcome};

use super::gather::Gather;
use super::reach::{Reach, Reached};
use crate::cache::{ChunkRef, Shared};
use crate::counters::Sends;
use crate::limits::SEND_BYTES_MAX;
use crate::serve::Request;
use crate::serve::peer::Peer;
use crate::serve::plan::{Runs, plan};
use crate::sys::send::{Full, Lane, SendEnd, SendQueue, SendRing, Sent};

/// Sends a burst can take: 128 segments, at least 44 of them in each.
const SENDS_PER_BURST: usize = 3;
const _: () = assert!(SENDS_PER_BURST * (SEND_BYTES_MAX / (1440 + DATA_HEADER_BYTES)) >= 128);

/// Sends for one thread.
#[derive(Debug)]
pub struct GsoTransmitter<Q = SendRing> {
    ring: Q,
    shared: Arc<Shared>,
    counters: Arc<Sends>,
    gather: Gather,
    max_burst: u8,
    reached: Reached,
    /// Something was queued whose report would be there after a flush.
    unflushed_probe: bool,
}

/// Why an answer did not go out, or not all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum NoData {
    /// No wanted segment exists.
    Range,
    /// All sends are under way.
    Full,
    /// The client was sent something that it has not been reached with yet.
    Unreached,
    /// The first part went out; the client was not reached with it yet.
    Partly,
}

impl NoData {
    /// How a request ends that is answered so.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Range => Reason::NackRange,
            Self::Full => Reason::SendQueueFull,
            Self::Unreached => Reason::Unreached,
            Self::Partly => Reason::ServedPartly,
        }
    }
}

impl<Q: SendQueue> GsoTransmitter<Q> {
    pub fn new(ring: Q, shared: Arc<Shared>, counters: Arc<Sends>, max_burst: u8) -> Self {
        let gather = Gather::new(shared.segment_bytes);
        Self {
            ring,
            shared,
            counters,
            gather,
            max_burst,
            reached: Reached::default(),
            unflushed_probe: false,
        }
    }

    /// Answers a GET for a resident chunk, and says how that ended.
    pub fn answer(&mut self, request: &Request, stay: ChunkRef) -> Reason {
        match self.data(&request.peer, stay, request.get.want) {
            Ok(()) => Reason::Served,
            Err(NoData::Range) => {
                let nack = request.nack(NackCode::Range, 0);
                let sent = self.nack(&request.peer, &nack);
                sent.map_or_else(NoData::reason, |()| Reason::NackRange)
            }
            Err(no_data) => no_data.reason(),
        }
    }

    /// Queues the wanted segments of a resident chunk.
    pub fn data(&mut self, peer: &Peer, stay: ChunkRef, want: u128) -> Result<(), NoData> {
        let geometry = Geometry::new(stay.chunk_bytes, self.shared.segment_bytes)
            .expect("the store holds chunks that have one");
        let runs = plan(want, &geometry, self.max_burst).ok_or(NoData::Range)?;
        let client = peer.client.ip();
        let now = self.ring.seconds();
        let whole = match self.look(client, now) {
            Reach::Proved => return self.runs(peer, Lane::Open, stay, geometry, runs),
            Reach::Unknown { whole } => whole,
            Reach::Waiting => {
                self.counters.unreached.add(runs.segments().into());
                return Err(NoData::Unreached);
            }
        };
        let most = if whole {
            self.gather.segments_per_send()
        } else {
            1
        };
        let (first, rest) = runs.split(most);
        let bytes = first.segments() * u32::from(self.gather.stride());
        self.runs(peer, Lane::Probe, stay, geometry, first)?;
        self.ask(client, bytes, now);
        if rest.segments() == 0 {
            return Ok(());
        }
        // Unless the kernel has to resolve an address, its report is there after this.
        self.flush();
        if self.reached.look(client, now) == Reach::Proved {
            self.runs(peer, Lane::Open, stay, geometry, rest)
        } else {
            self.counters.unreached.add(rest.segments().into());
            Err(NoData::Partly)
        }
    }

    fn look(&mut self, client: IpAddr, now: u32) -> Reach {
        let reach = self.reached.look(client, now);
        if reach == Reach::Waiting && self.unflushed_probe {
            // It may have been asked just now, in this same batch.
            self.flush();
            return self.reached.look(client, now);
        }
        reach
    }

    fn ask(&mut self, client: IpAddr, bytes: u32, now: u32) {
        self.reached.ask(client, bytes, now);
        self.unflushed_probe = true;
    }

    fn runs(
        &mut self,
        peer: &Peer,
        lane: Lane,
        stay: ChunkRef,
        geometry: Geometry,
        runs: Runs,
    ) -> Result<(), NoData> {
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
                ring.queue_spans(peer.socket, lane, &peer.client, spans, gather.stride())
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
        let client = peer.client.ip();
        let now = self.ring.seconds();
        let lane = match self.look(client, now) {
            Reach::Proved => Lane::Open,
            Reach::Unknown { .. } => {
                let bytes = u32::try_from(len_bytes).unwrap_or(u32::MAX);
                self.ask(client, bytes, now);
                Lane::Probe
            }
            Reach::Waiting => {
                self.counters.unreached.add(1);
                return Err(NoData::Unreached);
            }
        };
        self.ring
            .queue_bytes(peer.socket, lane, &peer.client, bytes, len_bytes)
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
        self.unflushed_probe = false;
        let now = self.ring.seconds();
        if self.reached.waits(now) {
            let reached = &mut self.reached;
            self.ring.passed(|client| reached.prove(client, now));
        }
    }

    /// Sends that the kernel has not finished; their slots must not be reused (I6).
    pub fn in_flight(&self) -> usize {
        self.ring.in_flight()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::io;
    use std::net::SocketAddr;

    use edge_ebpf::wire::{ChunkId, Cookie, Get, SEGMENT_BYTES_DEFAULT};

    use super::*;
    use crate::cache::slot_bytes;
    use crate::limits::UNREACHED_BYTES;
    use crate::sys::mapping::Mapping;
    use crate::sys::slab::Span;

    /// A link on which the addresses of 10.0.0.0/8 belong to nobody: what is sent there stays.
    #[derive(Default)]
    struct Link {
        seconds: u32,
        queued: Vec<(Lane, IpAddr, usize)>,
        passed: Vec<IpAddr>,
        /// Bytes that wait for a neighbour, by lane, and those that left.
        waits: HashMap<bool, usize>,
        left: HashMap<IpAddr, usize>,
    }

    fn is_silent(client: IpAddr) -> bool {
        matches!(client, IpAddr::V4(client) if client.octets()[0] == 10)
    }

    impl SendQueue for Link {
        fn in_flight(&self) -> usize {
            self.queued.len()
        }

        fn room(&self) -> usize {
            256 - self.queued.len()
        }

        fn queue_spans(
            &mut self,
            _socket: usize,
            lane: Lane,
            to: &SocketAddr,
            spans: impl Iterator<Item = Span>,
            _segment_bytes: u16,
        ) -> Result<(), Full> {
            let bytes = spans.map(|span| span.len_bytes()).sum();
            self.queued.push((lane, to.ip(), bytes));
            Ok(())
        }

        fn queue_bytes(
            &mut self,
            _socket: usize,
            lane: Lane,
            to: &SocketAddr,
            _bytes: &[u8],
            len_bytes: usize,
        ) -> Result<(), Full> {
            self.queued.push((lane, to.ip(), len_bytes));
            Ok(())
        }

        fn flush(&mut self, mut each: impl FnMut(Sent, SendEnd)) -> io::Result<()> {
            for (lane, to, bytes) in self.queued.drain(..) {
                if is_silent(to) {
                    *self.waits.entry(lane == Lane::Open).or_default() += bytes;
                } else {
                    *self.left.entry(to).or_default() += bytes;
                    if lane == Lane::Probe {
                        self.passed.push(to);
                    }
                }
                each(Sent::default(), SendEnd::Done);
            }
            Ok(())
        }

        fn passed(&mut self, each: impl FnMut(IpAddr)) {
            self.passed.drain(..).for_each(each);
        }

        fn seconds(&self) -> u32 {
            self.seconds
        }
    }

    const STAY: ChunkRef = ChunkRef {
        slot: 0,
        chunk_bytes: 131_072,
    };

    fn sender() -> GsoTransmitter<Link> {
        let bytes = slot_bytes(SEGMENT_BYTES_DEFAULT) * 64;
        let arena = Mapping::sparse(bytes).unwrap();
        let (shared, _) = Shared::new(arena, bytes as u64, SEGMENT_BYTES_DEFAULT, 1).unwrap();
        let link = Link {
            seconds: 1,
            ..Link::default()
        };
        GsoTransmitter::new(link, shared, Arc::default(), 128)
    }

    fn request(client: [u8; 4]) -> Request {
        Request {
            peer: Peer {
                socket: 0,
                client: (client, 4000).into(),
            },
            get: Get {
                cookie: Cookie::default(),
                id: ChunkId([1; 32]),
                want: u128::MAX,
            },
        }
    }

    #[test]
    fn a_client_that_is_reached_gets_all_it_asks_for_from_the_first_request_on() {
        let mut sender = sender();
        let client = request([192, 0, 2, 1]);
        for _ in 0..3 {
            assert_eq!(sender.answer(&client, STAY), Reason::Served);
        }
        sender.flush();
        let left = sender.ring.left[&client.peer.client.ip()];
        assert_eq!(left, 3 * (131_072 + 108 * DATA_HEADER_BYTES));
    }

    #[test]
    fn silent_neighbours_fill_no_buffer_that_others_are_answered_from() {
        let mut sender = sender();
        let reader = request([192, 0, 2, 1]);
        let mut reasons: HashMap<Reason, usize> = HashMap::new();
        for round in 0..3000_u32 {
            sender.ring.seconds = 1 + round / 1000;
            let number = u16::try_from(round % 600).unwrap().to_be_bytes();
            let silent = request([10, 9, number[0], number[1]]);
            *reasons.entry(sender.answer(&silent, STAY)).or_default() += 1;
            assert_eq!(sender.answer(&reader, STAY), Reason::Served);
            sender.flush();
        }
        assert_eq!(sender.ring.waits.get(&true), None, "among those reached");
        let waits = sender.ring.waits[&false];
        let most = UNREACHED_BYTES as usize + 65_507 + 2 * 600 * 1232;
        assert!(waits <= most, "{waits} bytes wait for neighbours");
        assert!(reasons[&Reason::ServedPartly] >= 600, "{reasons:?}");
        assert!(reasons[&Reason::Unreached] >= 1000, "{reasons:?}");
        assert_eq!(reasons.values().sum::<usize>(), 3000, "{reasons:?}");
        assert!(sender.counters.unreached.get() > 0);
    }
}
