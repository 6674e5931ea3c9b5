//! What becomes of one datagram, one bounced request, one fetched chunk.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use edge_ebpf::maps::Settings;
use edge_ebpf::reason::Reason;
use edge_ebpf::steer::{Admission, Datagram, Reply, admit};
use edge_ebpf::wire::NackCode;

use super::cookies::CookieJar;
use super::flight::{Failure, Flights, Outcome};
use super::origin::{FetchResult, Fetched, OriginDesk};
use crate::counters::{Cell, OriginCounts, Reasons, Sends, StoreCounts};
use crate::limits::{ABSENT_FOR, COMPLAINT_WINDOW, COMPLAINTS, FAILED_FOR, FAILED_MS, RETRY_MS};
use crate::reply::Request;
use crate::reply::gso::Sender;
use crate::reply::peer::{Peer, endpoint};
use crate::store::Store;
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
    /// Written once a turn of the loop; this thread may lock.
    pub store: Mutex<StoreCounts>,
    pub in_flight: Cell,
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
        }
    }
}

/// The miss path's state, all but the ring it sleeps on.
#[derive(Debug)]
pub struct Desk<Q = SendRing> {
    pub settings: Settings,
    pub cookies: CookieJar,
    pub store: Store,
    pub flights: Flights,
    pub origin: OriginDesk,
    pub sender: Sender<Q>,
    pub cells: Arc<MissCells>,
    /// A fetched chunk that waits for a slot; those behind it wait in the origin's queue.
    pub parked: Option<Fetched>,
    pub complaints: Complaints,
}

/// Readers choose the chunks that are asked for, so they must not choose how many lines the log
/// has.
#[derive(Debug, Default)]
pub struct Complaints {
    window_ends: Option<Instant>,
    count: u64,
}

impl Complaints {
    /// How many lines were left out before this one, if this one may be written.
    fn admit(&mut self, now: Instant) -> Option<u64> {
        let mut left_out = 0;
        if self.window_ends.is_none_or(|ends| ends <= now) {
            left_out = self.count.saturating_sub(COMPLAINTS);
            self.window_ends = Some(now + COMPLAINT_WINDOW);
            self.count = 0;
        }
        self.count += 1;
        (self.count <= COMPLAINTS).then_some(left_out)
    }
}

impl<Q: SendQueue> Desk<Q> {
    /// A datagram from the kernel.
    pub fn datagram(&mut self, received: &Received<'_>, now: Instant) {
        let payload_bytes = received.payload.len();
        self.cells.received.add(1);
        let reason = self.judge(received, now);
        self.cells.reasons.count(reason, payload_bytes);
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
                if sent.is_ok() {
                    reason
                } else {
                    Reason::SendQueueFull
                }
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
        if let Some(stay) = self.store.find(&request.get.id) {
            return self.sender.answer(request, stay);
        }
        let (reason, code, retry_ms) = match self.flights.request(*request, now) {
            Outcome::Joined => (Reason::Joined, NackCode::Pending, RETRY_MS),
            Outcome::Start => match self.origin.ask(request.get.id, now) {
                Ok(()) => {
                    self.cells.fetches.add(1);
                    (Reason::FetchStarted, NackCode::Pending, RETRY_MS)
                }
                Err(id) => {
                    self.flights.land(&id);
                    (Reason::Busy, NackCode::Busy, RETRY_MS)
                }
            },
            Outcome::Negative(Failure::Absent) => (Reason::Negative, NackCode::Absent, 0),
            Outcome::Negative(Failure::Unreachable) => {
                (Reason::OriginFailed, NackCode::Origin, FAILED_MS)
            }
            Outcome::Full => (Reason::Busy, NackCode::Busy, RETRY_MS),
        };
        match self
            .sender
            .nack(&request.peer, &request.nack(code, retry_ms))
        {
            Ok(()) => reason,
            Err(_) => Reason::SendQueueFull,
        }
    }

    /// Stores what was fetched and answers who waited. Says whether something is left that waits
    /// for a slot.
    pub fn settle(&mut self, now: Instant) -> bool {
        while let Some(fetched) = self.parked.take().or_else(|| self.origin.next()) {
            match &fetched.result {
                FetchResult::Bytes(bytes) => {
                    if self.sender.in_flight() > 0 {
                        self.sender.flush();
                    }
                    let Some(slot) = self.store.take_free(self.sender.in_flight()) else {
                        self.parked = Some(fetched);
                        return true;
                    };
                    self.cells.fetched_bytes.add(bytes.len() as u64);
                    let shared = Arc::clone(self.store.shared());
                    let verified = slot
                        .write(&shared, fetched.id, bytes)
                        .and_then(|written| written.verify(&shared));
                    match verified {
                        Ok(verified) => {
                            let stay = self.store.publish(verified);
                            for request in self.flights.land(&fetched.id) {
                                // The request itself was counted when it began to wait.
                                if self.sender.answer(&request, stay) == Reason::SendQueueFull {
                                    self.cells.unanswered_waiters.add(1);
                                }
                            }
                        }
                        Err(slot) => {
                            self.store.put_back(slot);
                            self.cells.corrupt.add(1);
                            self.refuse(&fetched, "is not what its name says: altered or cut", now);
                        }
                    }
                }
                FetchResult::Absent => {
                    self.cells.absent.add(1);
                    self.land(&fetched, Failure::Absent, ABSENT_FOR, now);
                }
                FetchResult::Failed(reason) => {
                    self.cells.failed.add(1);
                    self.refuse(&fetched, reason, now);
                }
                FetchResult::WrongSize(size_bytes) => {
                    self.cells.corrupt.add(1);
                    let reason = format!("has {size_bytes} bytes, which no chunk has");
                    self.refuse(&fetched, &reason, now);
                }
            }
        }
        false
    }

    fn refuse(&mut self, fetched: &Fetched, reason: &str, now: Instant) {
        if let Some(left_out) = self.complaints.admit(now) {
            tracing::warn!(
                chunk = %fetched.id, reason, left_out, "an origin's chunk cannot be used"
            );
        }
        self.land(fetched, Failure::Unreachable, FAILED_FOR, now);
    }

    fn land(&mut self, fetched: &Fetched, failure: Failure, time: Duration, now: Instant) {
        self.flights.remember(fetched.id, failure, now, time);
        let (code, retry_ms) = match failure {
            Failure::Absent => (NackCode::Absent, 0),
            Failure::Unreachable => (NackCode::Origin, FAILED_MS),
        };
        for request in self.flights.land(&fetched.id) {
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
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;

    #[test]
    fn the_log_hears_a_bounded_number_of_complaints_and_how_many_it_did_not() {
        // I9
        let mut complaints = Complaints::default();
        let now = clock::now();
        let heard = (0..1000).filter_map(|_| complaints.admit(now)).count() as u64;
        assert_eq!(heard, COMPLAINTS);
        let later = now + COMPLAINT_WINDOW;
        assert_eq!(complaints.admit(later), Some(1000 - COMPLAINTS));
        assert_eq!(complaints.admit(later), Some(0));
    }
}
