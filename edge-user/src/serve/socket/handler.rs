//! What becomes of one datagram, one bounced request, one fetched chunk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge_ebpf::maps::Settings;
use edge_ebpf::reason::Reason;
use edge_ebpf::steer::{Admission, Datagram, Reply, admit};
use edge_ebpf::wire::{ChunkId, NackCode};

use crate::cache::store::Store;
use crate::counters::{Cell, OriginCounts, Reasons, Sends, StoreCounts};
use crate::fetch::flights::{Failure, Flights, Outcome};
use crate::fetch::origin::error::FetchError;
use crate::fetch::schedule::{Fetched, Fetches};
use crate::fetch::source::Source;
use crate::limits::{
    ABSENT_FOR, FAILED_FOR, FAILED_MS, LOG_LINES_PER_WINDOW, LOG_WINDOW, ORIGINS_MAX,
    RESULTS_PER_ROUND, RETRY_MS,
};
use crate::serve::cookies::CookieKeys;
use crate::serve::peer::{Peer, endpoint};
use crate::serve::socket::gso::GsoTransmitter;
use crate::serve::{Decision, Request, Unsent, decide};
use crate::sys::epochs::Reader;
use crate::sys::receive::Received;
use crate::sys::send::{SendQueue, SendRing};

/// What the miss path counts. Every datagram ends in one reason (I10).
#[derive(Debug, Default)]
pub struct MissCells {
    /// Turns of the loop, idle ones included: a sign of life.
    pub turns: Cell,
    pub received: Cell,
    pub reasons: Reasons,
    pub bounced: Cell,
    pub bounce_reasons: Reasons,
    pub sends: Arc<Sends>,
    pub fetches: Cell,
    pub fetched_bytes: Cell,
    pub absent: Cell,
    pub failed: Cell,
    pub corrupt: Cell,
    /// Waiters let go without an answer: too late, or no send could be queued.
    pub unanswered_waiters: Cell,
    /// Requests refused because their source has its share.
    pub source_limited: Cell,
    /// Written once a turn of the loop; this thread may lock.
    pub store: Mutex<StoreCounts>,
    pub in_flight: Cell,
    /// Reads that were given up and have not ended, by origin; how many of these there are.
    pub hung_reads: [Cell; ORIGINS_MAX],
    pub origins: Cell,
}

impl MissCells {
    pub fn origin(&self) -> OriginCounts {
        OriginCounts {
            in_flight: self.in_flight.get(),
            fetches_total: self.fetches.get(),
            bytes_total: self.fetched_bytes.get(),
            absent_total: self.absent.get(),
            failed_total: self.failed.get(),
            corrupt_total: self.corrupt.get(),
            unanswered_waiters_total: self.unanswered_waiters.get(),
            source_limited_total: self.source_limited.get(),
            hung_reads: (self.hung_reads.iter().map(Cell::get))
                .take(usize::try_from(self.origins.get()).unwrap_or(ORIGINS_MAX))
                .collect(),
        }
    }
}

/// The miss path's state, all but the ring it sleeps on.
#[derive(Debug)]
pub struct Handler<Q = SendRing> {
    pub settings: Settings,
    pub cookies: CookieKeys,
    pub store: Store,
    pub flights: Flights<Request>,
    pub origin: Fetches,
    pub sender: GsoTransmitter<Q>,
    /// Of the store's view: this thread sends too.
    pub reader: Reader,
    pub cells: Arc<MissCells>,
    pub log_limiter: LogLimiter,
}

/// Readers choose the chunks that are asked for, so they must not choose how many lines the log
/// has.
#[derive(Debug, Default)]
pub struct LogLimiter {
    window_ends: Option<Instant>,
    count: u64,
}

impl LogLimiter {
    /// How many lines were left out before this one, if this one may be written.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let mut left_out = 0;
        if self.window_ends.is_none_or(|ends| ends <= now) {
            left_out = self.count.saturating_sub(LOG_LINES_PER_WINDOW);
            self.window_ends = Some(now + LOG_WINDOW);
            self.count = 0;
        }
        self.count += 1;
        (self.count <= LOG_LINES_PER_WINDOW).then_some(left_out)
    }
}

impl<Q: SendQueue> Handler<Q> {
    /// A datagram from the kernel.
    pub fn datagram(&mut self, received: &Received<'_>, now: Instant) {
        let payload_bytes = received.payload.len();
        self.cells.received.add(1);
        let reason = self.judge(received, now);
        self.cells.reasons.count(reason, payload_bytes);
    }

    /// Something from the kernel that is no datagram.
    pub fn unreadable(&self) {
        self.cells.received.add(1);
        self.cells.reasons.count(Reason::BadDescriptor, 0);
    }

    fn judge(&mut self, received: &Received<'_>, now: Instant) -> Reason {
        if received.truncated {
            return Reason::BadLength;
        }
        let payload = received.payload;
        let (source, family) = endpoint(&received.source);
        let datagram = Datagram {
            source,
            family,
            payload_bytes: payload.len(),
            from_here: self.settings.serves(&source.address),
            loopback: self.settings.addresses[received.socket].is_loopback(),
        };
        let peer = Peer {
            socket: received.socket,
            client: received.source,
        };
        match admit(
            payload,
            0,
            &datagram,
            &self.settings,
            self.cookies.cookies(),
        ) {
            Admission::Refuse(reason) => reason,
            Admission::Reply(reason, reply) => {
                let sent = match reply {
                    Reply::Welcome(welcome) => self.sender.welcome(&peer, &welcome, payload.len()),
                    Reply::Nack(nack) => self.sender.nack(&peer, &nack),
                };
                sent.map_or_else(Unsent::reason, |()| reason)
            }
            Admission::Get(get) => self.answer(&Request { peer, get }, now),
        }
    }

    /// A request that a worker could not answer.
    pub fn bounced(&mut self, request: &Request, now: Instant) {
        self.cells.bounced.add(1);
        let reason = self.answer(request, now);
        self.cells.bounce_reasons.count(reason, 0);
    }

    /// A GET with a good cookie: from the store, or from the origin.
    fn answer(&mut self, request: &Request, now: Instant) -> Reason {
        if let Some(reason) = self.answer_resident(request) {
            return reason;
        }
        let (reason, code, retry_ms) = match self.flights.request(*request, now) {
            Outcome::Joined => (Reason::Joined, NackCode::Pending, RETRY_MS),
            Outcome::Start => {
                let source = Source::of(&request.peer.client);
                self.origin.ask(request.get.id, source, now);
                self.cells.fetches.add(1);
                (Reason::FetchStarted, NackCode::Pending, RETRY_MS)
            }
            Outcome::Negative(Failure::Absent) => (Reason::Negative, NackCode::Absent, 0),
            Outcome::Negative(Failure::Unreachable) => {
                (Reason::OriginFailed, NackCode::Origin, FAILED_MS)
            }
            Outcome::Full => (Reason::Busy, NackCode::Busy, RETRY_MS),
            Outcome::Share => {
                self.cells.source_limited.add(1);
                (Reason::Busy, NackCode::Busy, RETRY_MS)
            }
        };
        let nack = request.nack(code, retry_ms);
        let sent = self.sender.nack(&request.peer, &nack);
        sent.map_or_else(Unsent::reason, |()| reason)
    }

    /// Answers from the cache, if the chunk is resident.
    fn answer_resident(&mut self, request: &Request) -> Option<Reason> {
        self.reader.resume();
        let lease = self.store.view().lookup(&self.reader, &request.get.id);
        let (sent, reason) = match decide(request, lease, self.settings.max_burst) {
            Decision::Data(lease, runs) => {
                let sent = self.sender.data(&request.peer, &lease, runs);
                (sent, Reason::Served)
            }
            Decision::Nack(nack) => (self.sender.nack(&request.peer, &nack), Reason::NackRange),
            Decision::Miss => return None,
        };
        Some(sent.map_or_else(Unsent::reason, |()| reason))
    }

    /// Publishes what was fetched and answers those that wait for it; a few at a time, since
    /// datagrams wait meanwhile.
    pub fn settle(&mut self, now: Instant) {
        self.origin.hear(now);
        for _ in 0..RESULTS_PER_ROUND {
            let Some(fetched) = self.origin.take() else {
                break;
            };
            self.finish(fetched, now);
        }
        if self.origin.under_way() > 0 {
            // Slots that were withdrawn come free when this thread too is quiescent.
            if self.sender.in_flight() > 0 {
                self.sender.flush();
            }
            self.reader.quiescent();
        }
        self.origin.begin(&mut self.store);
    }

    /// Whether `settle` has more to do.
    pub fn has_more(&self) -> bool {
        self.origin.landed() > 0
    }

    fn finish(&mut self, fetched: Fetched, now: Instant) {
        let id = fetched.id;
        match fetched.result {
            Ok(verified) => {
                self.cells.fetched_bytes.add(verified.chunk_bytes().into());
                self.store.publish(verified);
                for request in self.flights.land(&id) {
                    // The request itself was counted when it began to wait.
                    let answer = self.answer_resident(&request);
                    if let None | Some(Reason::SendQueueFull | Reason::Unreached) = answer {
                        self.cells.unanswered_waiters.add(1);
                    }
                }
            }
            Err(FetchError::Absent) => {
                self.cells.absent.add(1);
                self.land(id, Failure::Absent, ABSENT_FOR, now);
            }
            Err(FetchError::Corrupt(reason)) => {
                self.cells.corrupt.add(1);
                self.refuse(id, &reason, now);
            }
            Err(FetchError::Transient(reason)) => {
                self.cells.failed.add(1);
                self.refuse(id, &reason, now);
            }
            // It waits for one, as long as its time is not over.
            Err(FetchError::NoSlot) => {
                self.cells.failed.add(1);
                self.refuse(id, "no slot was free", now);
            }
        }
    }

    fn refuse(&mut self, id: ChunkId, reason: &str, now: Instant) {
        if let Some(left_out) = self.log_limiter.admit(now) {
            tracing::warn!(chunk = %id, reason, left_out, "an origin's chunk cannot be used");
        }
        self.land(id, Failure::Unreachable, FAILED_FOR, now);
    }

    fn land(&mut self, id: ChunkId, failure: Failure, time: Duration, now: Instant) {
        let (code, retry_ms) = match failure {
            Failure::Absent => (NackCode::Absent, 0),
            Failure::Unreachable => (NackCode::Origin, FAILED_MS),
        };
        for request in self.flights.fail(&id, failure, now, time) {
            if self
                .sender
                .nack(&request.peer, &request.nack(code, retry_ms))
                .is_err()
            {
                self.cells.unanswered_waiters.add(1);
            }
        }
    }

    /// What is due once a turn: new cookie keys, waiters whose time is over, counts.
    pub fn turn(&mut self, epoch: u32, now: Instant) {
        if let Err(error) = self.cookies.turn_to(epoch) {
            tracing::warn!(%error, "the program still has the cookie keys of before; trying again");
        }
        self.origin.expire(now);
        let expired = self.flights.expire(now);
        self.cells.unanswered_waiters.add(expired as u64);
    }

    /// Lets others see the store's counts.
    pub fn report(&self) {
        let counts = self.store.counts();
        *self
            .cells
            .store
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = counts;
        self.cells.in_flight.set(self.flights.in_flight() as u64);
        for (cell, hung) in self.cells.hung_reads.iter().zip(self.origin.hung()) {
            cell.set(hung as u64);
        }
        self.cells.origins.set(self.origin.hung().count() as u64);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fill::Verified;
    use crate::cache::layout::Layout;
    use crate::cache::publish::Publisher;
    use crate::cache::store::divide;
    use crate::clock;
    use crate::fetch::schedule::{Ended, Ends};
    use crate::sys::epochs::Loan;
    use crate::sys::mapping::Mapping;
    use crate::sys::send::{Full, Lane, SendEnd, Sent};
    use edge_ebpf::wire::{Cookie, Get, Nack, SEGMENT_BYTES_DEFAULT};
    use sha2::{Digest as _, Sha256};
    use std::cell::RefCell;
    use std::io;
    use std::net::{IpAddr, SocketAddr};
    use std::ops::Range;
    use std::rc::Rc;

    const SLOTS: usize = 64;

    /// Keeps the NACKs it is given to send, and forgets the DATA.
    #[derive(Clone, Default)]
    struct Nacks(Rc<RefCell<Vec<(SocketAddr, NackCode)>>>);

    impl SendQueue for Nacks {
        fn in_flight(&self) -> usize {
            0
        }

        fn room(&self) -> usize {
            SLOTS
        }

        fn queue_parts(
            &mut self,
            _socket: usize,
            _lane: Lane,
            _to: &SocketAddr,
            _loan: &Loan<'_>,
            _parts: &[Range<usize>],
            _segment_bytes: u16,
        ) -> Result<(), Full> {
            Ok(())
        }

        fn queue_bytes(
            &mut self,
            _socket: usize,
            _lane: Lane,
            to: &SocketAddr,
            bytes: &[u8],
            _len_bytes: usize,
        ) -> Result<(), Full> {
            let nack = Nack::decode(bytes.first_chunk().unwrap()).unwrap();
            self.0.borrow_mut().push((*to, nack.code));
            Ok(())
        }

        fn flush(&mut self, _each: impl FnMut(Sent, SendEnd)) -> io::Result<()> {
            Ok(())
        }

        fn passed(&mut self, mut each: impl FnMut(IpAddr)) {
            for (to, _) in self.0.borrow().iter() {
                each(to.ip());
            }
        }

        fn seconds(&self) -> u32 {
            1
        }
    }

    /// A handler with an empty store, for so many workers; the ends of one origin's threads; and what
    /// is sent.
    fn handler(workers: usize) -> (Handler<Nacks>, Ends, Nacks) {
        let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
        let arena_bytes = layout.slot_bytes() * SLOTS;
        let arena = Mapping::anonymous(arena_bytes, false).unwrap();
        let (view, blocks) = divide(arena, arena_bytes as u64, layout, workers + 1).unwrap();
        let cells = Arc::new(MissCells::default());
        let (origin, ends) = Fetches::new(1, SLOTS, SLOTS, &view);
        let sends = Arc::clone(&cells.sends);
        let nacks = Nacks::default();
        let handler = Handler {
            settings: Settings::NONE,
            cookies: CookieKeys::new(None, None).unwrap(),
            reader: view.reader(workers),
            store: Store::new(view, blocks, Publisher::none()),
            flights: Flights::default(),
            origin,
            sender: GsoTransmitter::new(nacks.clone(), layout, sends),
            cells,
            log_limiter: LogLimiter::default(),
        };
        (handler, ends, nacks)
    }

    fn client(number: u8) -> SocketAddr {
        ([192, 0, 2, number], 4000).into()
    }

    fn chunk(number: u8) -> (ChunkId, Vec<u8>) {
        let bytes = vec![number; 100];
        (ChunkId(Sha256::digest(&bytes).into()), bytes)
    }

    /// A client of this number asks for the chunk of this number.
    fn ask(handler: &mut Handler<Nacks>, number: u8, now: Instant) {
        let peer = Peer {
            socket: 0,
            client: client(number),
        };
        let get = Get {
            cookie: Cookie::default(),
            id: chunk(number).0,
            want: 1,
        };
        handler.bounced(&Request { peer, get }, now);
    }

    fn end((_, ended): &Ends, number: u8, result: Result<Verified, FetchError>) {
        let (origin, id) = (0, chunk(number).0);
        let pushed = ended.push(Ended { origin, id, result });
        assert!(pushed.is_ok());
    }

    /// An origin's thread reads the chunk of this number.
    fn read(ends: &Ends, number: u8) {
        let (id, bytes) = chunk(number);
        let (_, slots) = &ends.0[0];
        let result = slots.take(id, bytes.len() as u64).and_then(|mut filling| {
            filling.segments()[0].copy_from_slice(&bytes);
            filling.verify()
        });
        end(ends, number, result);
    }

    #[test]
    fn what_needs_no_slot_is_answered_while_chunks_wait_for_one() {
        let (mut handler, ends, nacks) = handler(1);
        let now = clock::now();
        // A worker that is held inside of a batch announces nothing more, so no slot comes free.
        let mut reader = handler.store.view().reader(0);
        reader.quiescent();
        let mut filled = 0;
        while !handler.origin.wants_slot() {
            ask(&mut handler, filled, now);
            handler.settle(now);
            read(&ends, filled);
            handler.settle(now);
            filled += 1;
        }
        for number in [201, 202, 203] {
            ask(&mut handler, number, now);
        }
        handler.settle(now);
        read(&ends, 201);
        end(&ends, 202, Err(FetchError::Absent));
        let failed = FetchError::Transient("a disk error".to_owned());
        end(&ends, 203, Err(failed));
        handler.settle(now);
        assert!(nacks.0.borrow().ends_with(&[
            (client(202), NackCode::Absent),
            (client(203), NackCode::Origin)
        ]));
        assert!(
            handler.origin.wants_slot() && !handler.has_more(),
            "it waits for the slot"
        );
        // Nothing was lost on the way.
        reader.quiescent();
        handler.settle(now);
        for number in [filled - 1, 201] {
            read(&ends, number);
        }
        handler.settle(now);
        assert_eq!(handler.flights.in_flight(), 0);
        assert!(handler.store.is_resident(&chunk(201).0));
    }

    #[test]
    fn datagrams_wait_for_a_few_results_and_not_for_all() {
        let (mut handler, ends, _) = handler(0);
        let now = clock::now();
        for number in 0..60 {
            ask(&mut handler, number, now);
            end(&ends, number, Err(FetchError::Absent));
        }
        for round in 1..=7 {
            handler.settle(now);
            assert_eq!(handler.flights.in_flight(), 60 - 8 * round);
            assert!(handler.has_more(), "so the loop comes back at once");
        }
        handler.settle(now);
        assert!(handler.flights.in_flight() == 0 && !handler.has_more());
    }

    #[test]
    fn the_log_hears_a_bounded_number_of_complaints_and_how_many_it_did_not() {
        // I9
        let mut log_limiter = LogLimiter::default();
        let now = clock::now();
        let heard = (0..1000).filter_map(|_| log_limiter.admit(now)).count() as u64;
        assert_eq!(heard, LOG_LINES_PER_WINDOW);
        let later = now + LOG_WINDOW;
        assert_eq!(log_limiter.admit(later), Some(1000 - LOG_LINES_PER_WINDOW));
        assert_eq!(log_limiter.admit(later), Some(0));
    }
}
