//! Handles datagrams, bounced requests and completed flights.

use std::sync::Arc;
use std::time::Instant;

use edge_ebpf::maps::Settings;
use edge_ebpf::reason::Reason;
use edge_ebpf::steer::{Admission, Datagram, Reply, admit};
use edge_ebpf::wire::NackCode;

use crate::cache::lease::CacheView;
use crate::counters::{Cell, Reasons, Sends};
use crate::fetch::flights::{Failure, Outcome};
use crate::fetch::front::{Completed, Front};
use crate::limits::{COMPLETIONS_PER_ROUND, FAILED_MS, RETRY_MS};
use crate::serve::cookies::CookieKeys;
use crate::serve::peer::{Peer, endpoint};
use crate::serve::socket::gso::GsoTransmitter;
use crate::serve::{Decision, Request, Unsent, decide};
use crate::sys::epochs::Reader;
use crate::sys::receive::Received;
use crate::sys::send::{SendQueue, SendRing};

/// Counters of the socket front. Every datagram ends in one reason (I10).
#[derive(Debug, Default)]
pub struct SocketCells {
    /// Turns of the loop, idle ones included, for the heartbeat.
    pub turns: Cell,
    pub received: Cell,
    pub reasons: Reasons,
    pub bounced: Cell,
    pub bounce_reasons: Reasons,
    pub sends: Arc<Sends>,
    /// Waiters dropped without an answer: expired, or no send could be queued.
    pub unanswered_waiters: Cell,
    /// Requests refused because their source has used its share.
    pub source_limited: Cell,
}

/// The socket front's state, except for the ring it sleeps on.
#[derive(Debug)]
pub struct Handler<Q = SendRing> {
    pub settings: Settings,
    pub cookies: CookieKeys,
    pub view: Arc<CacheView>,
    pub reader: Reader,
    pub front: Front<Request>,
    pub sender: GsoTransmitter<Q>,
    pub cells: Arc<SocketCells>,
}

impl<Q: SendQueue> Handler<Q> {
    /// A datagram from the kernel.
    pub fn datagram(&mut self, received: &Received<'_>, now: Instant) {
        let payload_bytes = received.payload.len();
        self.cells.received.add(1);
        let reason = self.admit(received, now);
        self.cells.reasons.count(reason, payload_bytes);
    }

    /// A received buffer that holds no valid datagram.
    pub fn unreadable(&self) {
        self.cells.received.add(1);
        self.cells.reasons.count(Reason::BadDescriptor, 0);
    }

    fn admit(&mut self, received: &Received<'_>, now: Instant) -> Reason {
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

    /// Answers a GET with a valid cookie, from the cache or once the engine has the chunk.
    fn answer(&mut self, request: &Request, now: Instant) -> Reason {
        if let Some(reason) = self.answer_resident(request) {
            return reason;
        }
        let (reason, code, retry_ms) = match self.front.request(*request, now) {
            Outcome::Joined => (Reason::Joined, NackCode::Pending, RETRY_MS),
            Outcome::Start => (Reason::FetchStarted, NackCode::Pending, RETRY_MS),
            Outcome::Negative(failure) => failed(failure),
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

    /// Answers from the cache; `None` if the chunk is not resident.
    fn answer_resident(&mut self, request: &Request) -> Option<Reason> {
        self.reader.resume();
        let lease = self.view.lookup(&self.reader, &request.get.id);
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

    /// Answers the waiters of completed flights; a few at a time, so that datagrams do not wait.
    pub fn complete(&mut self, now: Instant) {
        for _ in 0..COMPLETIONS_PER_ROUND {
            let Some(completed) = self.front.next_completed(now) else {
                break;
            };
            self.answer_waiters(completed);
        }
    }

    fn answer_waiters(&mut self, Completed { result, waiters }: Completed<Request>) {
        for request in waiters {
            // The request was already counted when it began to wait.
            let answered = match result {
                Ok(()) => !matches!(
                    self.answer_resident(&request),
                    None | Some(Reason::SendQueueFull | Reason::Unreached)
                ),
                Err(failure) => {
                    let (_, code, retry_ms) = failed(failure);
                    let nack = request.nack(code, retry_ms);
                    self.sender.nack(&request.peer, &nack).is_ok()
                }
            };
            self.cells.unanswered_waiters.add(u64::from(!answered));
        }
    }

    /// Rotates cookie keys and drops expired waiters.
    pub fn tick(&mut self, epoch: u32, now: Instant) {
        if let Err(error) = self.cookies.rotate_to(epoch) {
            tracing::warn!(%error, "cannot update the program's cookie keys; retrying");
        }
        let expired = self.front.expire(now);
        self.cells.unanswered_waiters.add(expired as u64);
    }
}

/// The answer to a request for a chunk that could not be fetched.
const fn failed(failure: Failure) -> (Reason, NackCode, u32) {
    match failure {
        Failure::Absent => (Reason::Negative, NackCode::Absent, 0),
        Failure::Unreachable => (Reason::OriginFailed, NackCode::Origin, FAILED_MS),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::layout::Layout;
    use crate::cache::publish::Publisher;
    use crate::cache::store::{Store, divide};
    use crate::clock;
    use crate::event_fd::EventFd;
    use crate::fetch::engine::Engine;
    use crate::fetch::origin::error::FetchError;
    use crate::fetch::schedule::{Ended, Fetches};
    use crate::serve::socket::gso::link::Link;
    use crate::sys::mapping::Mapping;
    use edge_ebpf::wire::{ChunkId, Cookie, Get, SEGMENT_BYTES_DEFAULT};

    const SLOTS: usize = 64;

    #[test]
    fn datagrams_wait_for_a_few_completed_flights_and_not_for_all() {
        let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
        let arena_bytes = layout.slot_bytes() * SLOTS;
        let arena = Mapping::anonymous(arena_bytes, false).unwrap();
        let (view, blocks) = divide(arena, arena_bytes as u64, layout, 1).unwrap();
        let store = Store::new(Arc::clone(&view), blocks, Publisher::none());
        let (fetches, (_reads, ended)) = Fetches::new(1, SLOTS, SLOTS, &view);
        let mut engine = Engine::new(store, fetches, EventFd::new().unwrap());
        let cells = Arc::new(SocketCells::default());
        let mut handler = Handler {
            settings: Settings::NONE,
            cookies: CookieKeys::new(None, None).unwrap(),
            reader: view.reader(0),
            view,
            front: engine.front(EventFd::new().unwrap()),
            sender: GsoTransmitter::new(Link::default(), layout, Arc::clone(&cells.sends)),
            cells,
        };
        let now = clock::now();
        for number in 0..60 {
            let id = ChunkId([number; 32]);
            let peer = Peer {
                socket: 0,
                client: ([192, 0, 2, number], 4000).into(),
            };
            let (cookie, want) = (Cookie::default(), 1);
            let get = Get { cookie, id, want };
            handler.bounced(&Request { peer, get }, now);
            let (origin, result) = (0, Err(FetchError::Absent.into()));
            engine.poll_once(now);
            assert!(ended.push(Ended { origin, id, result }).is_ok());
        }
        engine.poll_once(now);
        for round in 1..=7 {
            handler.complete(now);
            assert_eq!(handler.front.in_flight(), 60 - 8 * round);
            assert!(handler.front.completions() > 0, "the loop must not sleep");
        }
        handler.complete(now);
        assert!(handler.front.in_flight() == 0 && handler.front.completions() == 0);
        let nacks = &handler.sender.ring.nacks;
        assert_eq!(nacks[..60], [NackCode::Pending; 60]);
        assert_eq!(nacks[60..], [NackCode::Absent; 60]);
    }
}
