//! The `gso` transmitter: one send gathers the wanted segments from the arena, and the kernel
//! splits it into datagrams (`UDP_SEGMENT`).

use std::net::IpAddr;
use std::sync::Arc;

use edge_ebpf::wire::{DATA_HEADER_BYTES, Nack, WELCOME_HEADER_BYTES, Welcome};

use super::gather::Gather;
use super::reach::{Reach, Reached};
use crate::cache::layout::Layout;
use crate::cache::lease::Lease;
use crate::counters::Sends;
use crate::limits::SEND_BYTES_MAX;
use crate::serve::Unsent;
use crate::serve::peer::Peer;
use crate::serve::plan::Runs;
use crate::sys::send::{Full, Lane, SendEnd, SendQueue, SendRing, Sent};

/// The most sends of a burst: 128 segments, with at least 44 in each send.
const SENDS_PER_BURST: usize = 3;
const _: () = assert!(SENDS_PER_BURST * (SEND_BYTES_MAX / (1440 + DATA_HEADER_BYTES)) >= 128);

/// The transmitter of one thread.
#[derive(Debug)]
pub struct GsoTransmitter<Q = SendRing> {
    pub(super) ring: Q,
    counters: Arc<Sends>,
    gather: Gather,
    reached: Reached,
    /// A probe is queued whose result a flush may bring.
    unflushed_probe: bool,
}

impl<Q: SendQueue> GsoTransmitter<Q> {
    pub fn new(ring: Q, layout: Layout, counters: Arc<Sends>) -> Self {
        Self {
            ring,
            counters,
            gather: Gather::new(layout),
            reached: Reached::default(),
            unflushed_probe: false,
        }
    }

    /// Queues segments of a resident chunk.
    pub fn data(&mut self, peer: &Peer, lease: &Lease<'_>, runs: Runs) -> Result<(), Unsent> {
        let client = peer.client.ip();
        let now = self.ring.seconds();
        let whole = match self.reach(client, now) {
            Reach::Proved => return self.runs(peer, Lane::Open, lease, runs),
            Reach::Unknown { whole } => whole,
            Reach::Waiting => {
                self.counters.unreached.add(runs.segments().into());
                return Err(Unsent::Unreached);
            }
        };
        let segments_max = if whole {
            self.gather.segments_per_send()
        } else {
            1
        };
        let (first, rest) = runs.split(segments_max);
        let bytes = first.segments() * u32::from(self.gather.stride_bytes());
        self.runs(peer, Lane::Probe, lease, first)?;
        self.probe(client, bytes, now);
        if rest.segments() == 0 {
            return Ok(());
        }
        // This brings the kernel's report, unless it has to resolve an address first.
        self.flush();
        if self.reached.look(client, now) == Reach::Proved {
            self.runs(peer, Lane::Open, lease, rest)
        } else {
            self.counters.unreached.add(rest.segments().into());
            Err(Unsent::Partly)
        }
    }

    fn reach(&mut self, client: IpAddr, now: u32) -> Reach {
        let reach = self.reached.look(client, now);
        if reach == Reach::Waiting && self.unflushed_probe {
            // The probe may be one of this batch.
            self.flush();
            return self.reached.look(client, now);
        }
        reach
    }

    fn probe(&mut self, client: IpAddr, bytes: u32, now: u32) {
        self.reached.ask(client, bytes, now);
        self.unflushed_probe = true;
    }

    fn runs(
        &mut self,
        peer: &Peer,
        lane: Lane,
        lease: &Lease<'_>,
        runs: Runs,
    ) -> Result<(), Unsent> {
        self.make_room(SENDS_PER_BURST)?;
        let Self { ring, gather, .. } = self;
        let stride_bytes = gather.stride_bytes();
        gather
            .sends(lease.geometry(), runs, |parts| {
                let (to, loan) = (&peer.client, lease.loan());
                ring.queue_parts(peer.socket, lane, to, loan, parts, stride_bytes)
            })
            .map_err(|Full| Unsent::Full)
    }

    pub fn nack(&mut self, peer: &Peer, nack: &Nack) -> Result<(), Unsent> {
        let bytes = nack.encode();
        self.datagram(peer, &bytes, bytes.len())
    }

    /// As long as the HELLO it answers. The padding is zeros rather than the client's bytes, so
    /// that an edge does not reflect content chosen by the client.
    pub fn welcome(
        &mut self,
        peer: &Peer,
        welcome: &Welcome,
        hello_bytes: usize,
    ) -> Result<(), Unsent> {
        let bytes: [u8; WELCOME_HEADER_BYTES] = welcome.encode();
        self.datagram(peer, &bytes, hello_bytes)
    }

    fn datagram(&mut self, peer: &Peer, bytes: &[u8], len_bytes: usize) -> Result<(), Unsent> {
        self.make_room(1)?;
        let client = peer.client.ip();
        let now = self.ring.seconds();
        let lane = match self.reach(client, now) {
            Reach::Proved => Lane::Open,
            Reach::Unknown { .. } => {
                let bytes = u32::try_from(len_bytes).unwrap_or(u32::MAX);
                self.probe(client, bytes, now);
                Lane::Probe
            }
            Reach::Waiting => {
                self.counters.unreached.add(1);
                return Err(Unsent::Unreached);
            }
        };
        self.ring
            .queue_bytes(peer.socket, lane, &peer.client, bytes, len_bytes)
            .map_err(|Full| Unsent::Full)
    }

    fn make_room(&mut self, sends: usize) -> Result<(), Unsent> {
        if self.ring.room() < sends {
            self.flush();
        }
        if self.ring.room() < sends {
            Err(Unsent::Full)
        } else {
            Ok(())
        }
    }

    /// Submits queued sends to the kernel. They complete at once, except for those that the kernel
    /// has no memory for.
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
        // Any other error would be a bug: the ring's entries are well-formed.
        flushed.expect("io_uring takes sends");
        self.unflushed_probe = false;
        let now = self.ring.seconds();
        if self.reached.waits(now) {
            let reached = &mut self.reached;
            self.ring.passed(|client| reached.prove(client, now));
        }
    }

    /// Sends that the kernel has not finished.
    pub fn in_flight(&self) -> usize {
        self.ring.in_flight()
    }
}

#[cfg(test)]
pub(super) mod link {
    use std::collections::HashMap;
    use std::io;
    use std::net::SocketAddr;
    use std::ops::Range;

    use edge_ebpf::wire::NackCode;

    use super::*;
    use crate::sys::epochs::Loan;

    /// A link on which the neighbours of 10.0.0.0/8 do not resolve, so their packets stay queued.
    #[derive(Debug, Default)]
    pub(in crate::serve::socket) struct Link {
        pub(super) seconds: u32,
        pub(in crate::serve::socket) nacks: Vec<NackCode>,
        queued: Vec<(Lane, IpAddr, usize)>,
        passed: Vec<IpAddr>,
        /// Bytes waiting for a neighbour, by whether the lane is open; and bytes sent.
        pub(super) waits: HashMap<bool, usize>,
        pub(super) left: HashMap<IpAddr, usize>,
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

        fn queue_parts(
            &mut self,
            _socket: usize,
            lane: Lane,
            to: &SocketAddr,
            _loan: &Loan<'_>,
            parts: &[Range<usize>],
            _segment_bytes: u16,
        ) -> Result<(), Full> {
            let bytes = parts.iter().map(Range::len).sum();
            self.queued.push((lane, to.ip(), bytes));
            Ok(())
        }

        fn queue_bytes(
            &mut self,
            _socket: usize,
            lane: Lane,
            to: &SocketAddr,
            bytes: &[u8],
            len_bytes: usize,
        ) -> Result<(), Full> {
            let nack = bytes
                .first_chunk()
                .and_then(|bytes| Nack::decode(bytes).ok());
            self.nacks.extend(nack.map(|nack| nack.code));
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
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use edge_ebpf::wire::{ChunkId, SEGMENT_BYTES_DEFAULT};

    use super::link::Link;
    use super::*;
    use crate::cache::lease::CacheView;
    use crate::cache::store::holding;
    use crate::limits::UNREACHED_BYTES;
    use crate::serve::plan::plan;
    use crate::sys::epochs::Reader;

    /// A cache with one whole chunk, a reader of it, and a transmitter.
    struct Fixture {
        view: Arc<CacheView>,
        reader: Reader,
        id: ChunkId,
        sender: GsoTransmitter<Link>,
    }

    impl Fixture {
        fn new() -> Self {
            let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
            let (store, id) = holding(&vec![7; 131_072], layout, 1);
            let view = Arc::clone(store.view());
            let mut reader = view.reader(0);
            reader.quiescent();
            let mut sender = GsoTransmitter::new(Link::default(), layout, Arc::default());
            sender.ring.seconds = 1;
            Self {
                view,
                reader,
                id,
                sender,
            }
        }

        fn ask(&mut self, client: [u8; 4]) -> Result<(), Unsent> {
            let lease = self.view.lookup(&self.reader, &self.id).unwrap();
            let runs = plan(u128::MAX, lease.geometry(), 128).unwrap();
            let client = (client, 4000).into();
            self.sender.data(&Peer { socket: 0, client }, &lease, runs)
        }
    }

    #[test]
    fn a_reachable_client_gets_all_it_asks_for_from_the_first_request_on() {
        let mut bed = Fixture::new();
        for _ in 0..3 {
            assert_eq!(bed.ask([192, 0, 2, 1]), Ok(()));
        }
        bed.sender.flush();
        let left = bed.sender.ring.left[&[192, 0, 2, 1].into()];
        assert_eq!(left, 3 * (131_072 + 108 * DATA_HEADER_BYTES));
    }

    #[test]
    fn silent_neighbours_do_not_fill_the_send_buffer_of_reachable_clients() {
        let mut bed = Fixture::new();
        let mut results: HashMap<_, usize> = HashMap::new();
        for round in 0..3000_u32 {
            bed.sender.ring.seconds = 1 + round / 1000;
            let number = u16::try_from(round % 600).unwrap().to_be_bytes();
            let silent = bed.ask([10, 9, number[0], number[1]]);
            *results.entry(format!("{silent:?}")).or_default() += 1;
            assert_eq!(bed.ask([192, 0, 2, 1]), Ok(()));
            bed.sender.flush();
        }
        assert_eq!(
            bed.sender.ring.waits.get(&true),
            None,
            "in the lane of reachable clients"
        );
        let waits = bed.sender.ring.waits[&false];
        // Each is probed twice in these seconds, and a few more often because their set is full.
        let limit = UNREACHED_BYTES as usize + 65_507 + (2 * 600 + 3 * 40) * 1232;
        assert!(waits <= limit, "{waits} bytes wait for neighbours");
        assert!(results["Err(Partly)"] >= 600, "{results:?}");
        assert!(results["Err(Unreached)"] >= 1000, "{results:?}");
        assert_eq!(results.values().sum::<usize>(), 3000, "{results:?}");
        assert!(bed.sender.counters.unreached.get() > 0);
    }
}
