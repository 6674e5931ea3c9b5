//! One object from one edge: what to send, and what a response means. Pure: time, randomness and
//! datagrams are arguments, and the caller performs one `Action` at a time.

use std::collections::VecDeque;
use std::time::Duration;

use edge_ebpf::wire::{
    ChunkId, DATA_HEADER_BYTES, DataHeader, Get, Kind, NACK_BYTES, Nack, NackCode, opening,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::assembly::{Arrival, Assembly};
use super::congestion::CongestionWindow;
use super::failure::Failure;
use super::fetch_order::{FetchOrder, Wanted};
use super::handshake::{DATAGRAM_BYTES_MAX, Event, Handshake, Step};
use super::rtt::RttEstimators;
use crate::object::ticket::PublicTicket;
use crate::object::tree::{Shape, Verified};

/// Chunks in memory, being received or verified: 8 MiB.
const BUFFERS: usize = 64;
/// Without any response for this long, a new handshake begins on another port.
const IDLE_TIMEOUT: Duration = Duration::from_secs(3);
/// Consecutive idle timeouts before an edge that never sent DATA counts as failed.
const IDLE_TIMEOUTS_MAX: u8 = 3;
/// How long an edge that sent DATA may be unreachable: two minutes, and time to recover.
const OUTAGE_MAX: Duration = Duration::from_secs(150);
/// The same for an edge that only sent a WELCOME: it may be starting.
const OUTAGE_MAX_NO_DATA: Duration = Duration::from_secs(10);
/// DATA of another segment size renews the session, at most this often: it may be forged.
const REFRESH_MIN: Duration = Duration::from_secs(1);
/// How long the edge counts as cold after a PENDING.
const COLD_FOR: Duration = Duration::from_secs(5);
/// Refusals of the previous cookie that are accepted after a renewal.
const STALE_REFUSALS: u32 = 64;
/// Consecutive new cookies that the edge may refuse.
const COOKIE_REFUSALS: u8 = 3;
/// How often an edge may change its segment size, which restarts incomplete chunks.
const RESEGMENTATIONS_MAX: u8 = 3;
/// How long an edge may answer BUSY or ORIGIN for one chunk.
const REFUSED_TIMEOUT: Duration = Duration::from_secs(6);
/// How long an edge may answer PENDING for one chunk.
const PENDING_TIMEOUT: Duration = Duration::from_secs(30);
/// Bounds for the retry time of a NACK.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What the caller must do now.
#[derive(Debug)]
pub enum Action {
    /// Open a socket on a new port, close the old one, then call `opened`.
    Open,
    /// Send this many bytes of `out`.
    Send(usize),
    /// Verify this chunk, then call `accept_data`, `accept_index` or `reject`.
    Verify(Complete),
    /// Nothing until a datagram arrives, a chunk was verified, or this time.
    Wait(Duration),
    Done,
    Failed(Failure),
}

/// A chunk with all segments, not verified yet.
#[derive(Debug)]
pub struct Complete {
    wanted: Wanted,
    bytes: Vec<u8>,
    refetched: bool,
}

impl Complete {
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// The only way to the bytes.
    pub fn verify(self) -> Result<(Wanted, Verified), Self> {
        let Self {
            wanted,
            bytes,
            refetched,
        } = self;
        match Verified::check(bytes, &wanted.id) {
            Ok(verified) => Ok((wanted, verified)),
            Err(bytes) => Err(Self {
                wanted,
                bytes,
                refetched,
            }),
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Stats {
    /// GETs sent.
    pub requests: u64,
    pub retransmitted: u64,
    /// Datagrams and UDP payload received, needed or not.
    pub datagrams_received: u64,
    pub bytes_received: u64,
    /// Verified data and index chunks.
    pub chunks: u64,
    /// Sockets used.
    pub ports: u64,
}

pub struct Transfer {
    fetch_order: FetchOrder,
    /// Chunks that did not match their id.
    refetch: Vec<Wanted>,
    active: Vec<Assembly>,
    complete: VecDeque<Complete>,
    /// Free buffers, and how many more may be allocated.
    buffers: Vec<Vec<u8>>,
    buffers_to_allocate: usize,

    handshake: Handshake,
    rtts: RttEstimators,
    window: CongestionWindow,
    /// Requests with it may still get a response.
    previous_cookie: Option<[u8; 8]>,
    /// Refusals of the previous cookie.
    stale_refusals: u32,
    cookie_refusals: u8,
    /// Of the last WELCOME, and how often it changed.
    segment_bytes: Option<u16>,
    resegmentations: u8,
    /// Send time of the first request without any response since.
    unanswered_since: Option<Duration>,
    idle_timeouts: u8,
    /// Since when the edge is unreachable, over all consecutive handshakes.
    outage_since: Option<Duration>,
    data_received: bool,
    /// For whatever cause; without it, each cause has its own.
    timeout: Option<Duration>,
    /// Until when the edge counts as cold.
    cold_until: Duration,
    refresh_at: Duration,
    /// One BUSY shrinks the window for all requests in flight with it.
    busy_ignored_until: Duration,

    random: StdRng,
    failure: Option<Failure>,
    /// DATA with another chunk length than the ticket's is ignored, as it may be forged. If nothing
    /// else arrives, it explains the failure.
    length_mismatch: Option<Failure>,
    stats: Stats,
}

impl Transfer {
    /// The seed must be random: it makes the nonces. `timeout` limits how long the edge may be
    /// unreachable or without the data.
    pub fn new(ticket: &PublicTicket, seed: [u8; 32], timeout: Option<Duration>) -> Self {
        Self {
            fetch_order: FetchOrder::new(ticket.shape().clone(), ticket.root()),
            refetch: Vec::new(),
            active: Vec::with_capacity(BUFFERS),
            complete: VecDeque::new(),
            buffers: Vec::with_capacity(BUFFERS),
            buffers_to_allocate: BUFFERS,
            handshake: Handshake::default(),
            rtts: RttEstimators::default(),
            window: CongestionWindow::new(0),
            previous_cookie: None,
            stale_refusals: 0,
            cookie_refusals: 0,
            segment_bytes: None,
            resegmentations: 0,
            unanswered_since: None,
            idle_timeouts: 0,
            outage_since: None,
            data_received: false,
            timeout,
            cold_until: Duration::ZERO,
            refresh_at: Duration::ZERO,
            busy_ignored_until: Duration::ZERO,
            random: StdRng::from_seed(seed),
            failure: None,
            length_mismatch: None,
            stats: Stats::default(),
        }
    }

    pub fn shape(&self) -> &Shape {
        self.fetch_order.shape()
    }

    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The socket on a new port is open; its receive buffer holds this many segments.
    pub fn opened(&mut self, capacity_segments: u32) {
        // Another port may be another path.
        self.window = CongestionWindow::new(capacity_segments);
        self.rtts = RttEstimators::default();
        self.stats.ports += 1;
        self.previous_cookie = None;
        self.handshake.opened();
    }

    /// Continues after a completed handshake.
    pub fn connected(&mut self, handshake: Handshake, rtt: Duration, capacity_segments: u32) {
        self.opened(capacity_segments);
        self.segment_bytes = handshake.session().map(|session| session.segment_bytes);
        self.handshake = handshake;
        self.rtts.on_welcome(rtt);
        self.window.sample(rtt);
    }

    /// Opening the socket or sending failed: the datagram counts as lost.
    pub fn send_failed(&mut self, now: Duration) {
        self.handshake.send_failed(now);
    }

    /// Returns what to do now. Writes a datagram to send to `out`. Everything that arrived before
    /// `received_until` was handled; timeouts are checked up to then.
    pub fn act(
        &mut self,
        now: Duration,
        received_until: Duration,
        out: &mut [u8; DATAGRAM_BYTES_MAX],
    ) -> Action {
        if let Some(failure) = self.failure.take() {
            return Action::Failed(failure);
        }
        if let Some(complete) = self.complete.pop_front() {
            return Action::Verify(complete);
        }
        if self.fetch_order.is_done() {
            return Action::Done;
        }
        if let Err(failure) = self.check_timeouts(received_until.min(now)) {
            return Action::Failed(failure);
        }
        let until = self.outage_since.unwrap_or(now) + self.outage_max();
        let rto = self.rtts.rto();
        let random = &mut self.random;
        let mut nonce = || {
            let mut bytes = [0; 8];
            random.fill_bytes(&mut bytes);
            bytes
        };
        let wake = match self.handshake.step(now, until, rto, out, &mut nonce) {
            Step::Open => {
                self.outage_since.get_or_insert(now);
                self.forget_requests();
                return Action::Open;
            }
            Step::Send(len_bytes) => return Action::Send(len_bytes),
            Step::Failed(failure) => return Action::Failed(failure),
            Step::Wait(until) => until,
        };
        if let Some(get) = self.next_get(now) {
            let get = get.encode();
            out[..get.len()].copy_from_slice(&get);
            self.stats.requests += 1;
            return Action::Send(get.len());
        }
        Action::Wait(self.next_timeout(now).map_or(wake, |due| due.min(wake)))
    }

    /// Expires requests, and fails if the edge has been unreachable for too long.
    fn check_timeouts(&mut self, now: Duration) -> Result<(), Failure> {
        for chunk in &mut self.active {
            let expired = chunk.expire(now, &self.rtts);
            self.window.lost(expired.lost);
            if expired
                .unanswered_sent_at
                .is_some_and(|sent_at| self.rtts.back_off(sent_at, now))
            {
                self.window.halve();
            }
            let id = chunk.wanted().id;
            if let Some(refused) = chunk.refused() {
                // BUSY and ORIGIN are about the past, PENDING is a state.
                let last_at = if refused.code == NackCode::Pending {
                    now
                } else {
                    refused.last_nack_at
                };
                let (code, waited) = (refused.code, last_at.saturating_sub(refused.since));
                let refused = self.timeout.unwrap_or(REFUSED_TIMEOUT);
                let pending = self.timeout.unwrap_or(PENDING_TIMEOUT);
                match code {
                    NackCode::Busy if waited > refused => return Err(Failure::Busy),
                    NackCode::Origin if waited > refused => return Err(Failure::Origin(id)),
                    NackCode::Pending if waited > pending => return Err(Failure::Pending(id)),
                    NackCode::Absent
                    | NackCode::Pending
                    | NackCode::Busy
                    | NackCode::Cookie
                    | NackCode::Origin
                    | NackCode::Range => {}
                }
            }
        }
        self.window.update(now, self.rtts.smoothed());
        let idle_timeout = self.idle_timeout();
        if let Some(since) = self
            .unanswered_since
            .filter(|since| now >= *since + idle_timeout)
        {
            self.outage_since.get_or_insert(since);
            self.unanswered_since = None;
            self.idle_timeouts = self.idle_timeouts.saturating_add(1);
            if self.timeout.is_none()
                && !self.data_received
                && self.idle_timeouts >= IDLE_TIMEOUTS_MAX
            {
                return Err(self.length_mismatch.take().unwrap_or(Failure::NoData));
            }
            self.handshake.reopen();
        }
        let outage_max = self.outage_max();
        let since = self.outage_since.or(self.unanswered_since);
        if !outage_max.is_zero() && since.is_some_and(|since| now >= since + outage_max) {
            return Err(
                match (self.handshake.session(), self.length_mismatch.take()) {
                    (None, _) => self.handshake.failure(),
                    (Some(_), Some(length_mismatch)) => length_mismatch,
                    (Some(_), None) => Failure::NoData,
                },
            );
        }
        Ok(())
    }

    fn idle_timeout(&self) -> Duration {
        IDLE_TIMEOUT.max(self.rtts.rto())
    }

    /// How long the edge may be unreachable; zero during the first handshake, which counts attempts.
    fn outage_max(&self) -> Duration {
        self.timeout.unwrap_or(if self.data_received {
            OUTAGE_MAX
        } else if self.segment_bytes.is_some() {
            OUTAGE_MAX_NO_DATA
        } else {
            Duration::ZERO
        })
    }

    fn forget_requests(&mut self) {
        for chunk in &mut self.active {
            chunk.forget_requests();
        }
    }

    /// The next GET, if the window has room and segments are missing.
    fn next_get(&mut self, now: Duration) -> Option<Get> {
        let session = *self.handshake.session()?;
        let sum = |of: fn(&Assembly) -> u32| self.active.iter().map(of).sum::<u32>();
        let in_flight = sum(Assembly::segments_in_flight);
        let window = self.window.segments().checked_sub(in_flight);
        let outstanding = sum(Assembly::segments_outstanding);
        let buffer = self.window.limit().checked_sub(outstanding);
        let room = window.min(buffer).filter(|room| *room > 0)?;
        let has_missing = |chunk: &Assembly| chunk.missing(now) != 0;
        let at = match self.active.iter().position(has_missing) {
            Some(at) => at,
            None => self.begin_chunk(session.segment_bytes)?,
        };
        let chunk = &mut self.active[at];
        let missing = chunk.missing(now);
        // As few GETs as possible, of equal size.
        let needed = missing.count_ones();
        let mut size = needed.div_ceil(needed.div_ceil(u32::from(session.max_burst)));
        if chunk.is_empty() && (now < self.cold_until || self.rtts.is_cold()) {
            // Lets the edge fetch many chunks at once, and leaves room for those it has.
            size = 1;
        }
        if in_flight > 0 && room < size.min(self.window.segments() / 4) {
            // Avoids a request per arriving segment.
            return None;
        }
        let want = lowest_bits(missing, size.min(room));
        self.unanswered_since.get_or_insert(now);
        self.stats.retransmitted += u64::from(chunk.request(now, want));
        Some(Get {
            cookie: session.cookie,
            id: chunk.wanted().id,
            want,
        })
    }

    fn begin_chunk(&mut self, segment_bytes: u16) -> Option<usize> {
        if self.buffers.is_empty() {
            self.buffers_to_allocate = self.buffers_to_allocate.checked_sub(1)?;
            self.buffers.push(Vec::new());
        }
        let (wanted, refetched) = match self.refetch.pop() {
            Some(wanted) => (wanted, true),
            None => (self.fetch_order.take_next()?, false),
        };
        let buffer = self.buffers.pop()?;
        self.active
            .push(Assembly::new(wanted, refetched, segment_bytes, buffer));
        Some(self.active.len() - 1)
    }

    fn next_timeout(&self, now: Duration) -> Option<Duration> {
        let due = self
            .active
            .iter()
            .filter_map(|chunk| chunk.next_timeout(now, &self.rtts));
        let outage_max = Some(self.outage_max()).filter(|outage_max| !outage_max.is_zero());
        let since = self.outage_since.or(self.unanswered_since);
        let fails_at = since
            .zip(outage_max)
            .map(|(since, outage_max)| since + outage_max);
        due.chain(
            self.unanswered_since
                .map(|since| since + self.idle_timeout()),
        )
        .chain(fails_at)
        .min()
    }

    /// Handles a datagram from the edge's address and port.
    pub fn on_datagram(&mut self, now: Duration, datagram: &[u8]) {
        self.stats.datagrams_received += 1;
        self.stats.bytes_received += datagram.len() as u64;
        if let Some((header, payload)) = datagram.split_first_chunk::<DATA_HEADER_BYTES>()
            && header[..2] == opening(Kind::Data)
        {
            if let Ok(header) = DataHeader::decode(header) {
                self.on_data(now, &header, payload);
            }
        } else if let Ok(nack) = <&[u8; NACK_BYTES]>::try_from(datagram)
            && let Ok(nack) = Nack::decode(nack)
        {
            self.on_nack(now, &nack);
        } else {
            self.on_welcome(now, datagram);
        }
    }

    fn on_welcome(&mut self, now: Duration, datagram: &[u8]) {
        let before = self.handshake.session().map(|session| session.cookie.value);
        match self.handshake.on_datagram(now, datagram) {
            Event::Ignored | Event::Continue => {}
            Event::Failed(failure) => self.failure = Some(failure),
            Event::Completed { rtt } => {
                if before.is_none() {
                    // No GET was possible meanwhile. A renewal says nothing about DATA.
                    self.unanswered_since = None;
                }
                self.previous_cookie = before;
                self.stale_refusals = 0;
                if let Some(rtt) = rtt {
                    self.rtts.on_welcome(rtt);
                    self.window.sample(rtt);
                }
                if let Some(session) = self.handshake.session() {
                    self.resegment(session.segment_bytes);
                }
            }
        }
    }

    /// The edge uses this segment size from now on.
    fn resegment(&mut self, segment_bytes: u16) {
        let before = self.segment_bytes.replace(segment_bytes);
        if before.is_none_or(|before| before == segment_bytes) {
            return;
        }
        self.resegmentations += 1;
        if self.resegmentations > RESEGMENTATIONS_MAX {
            self.failure = Some(Failure::UnstableSegmentSize);
        }
        for chunk in &mut self.active {
            chunk.resegment(segment_bytes);
        }
    }

    fn on_data(&mut self, now: Duration, header: &DataHeader, payload: &[u8]) {
        // A crafted object may list a chunk twice, so several may have this tag.
        for at in 0..self.active.len() {
            let chunk = &mut self.active[at];
            if chunk.wanted().id.tag() != header.tag {
                continue;
            }
            if header.chunk_bytes != chunk.wanted().chunk_bytes {
                self.length_mismatch = Some(Failure::LengthMismatch {
                    id: chunk.wanted().id,
                    edge_bytes: header.chunk_bytes,
                    ticket_bytes: chunk.wanted().chunk_bytes,
                });
                continue;
            }
            match chunk.insert(now, header, payload, &mut self.rtts) {
                Arrival::Ignored => {
                    if chunk.is_of_another_size(header, payload.len()) && now >= self.refresh_at {
                        self.refresh_at = now + REFRESH_MIN;
                        self.handshake.refresh(now);
                    }
                    continue;
                }
                Arrival::Duplicate => continue,
                Arrival::New { delay, path } => {
                    if let Some(path) = path {
                        self.window.sample(path);
                    }
                    self.window.received(delay);
                }
            }
            let complete = chunk.is_complete();
            self.on_response();
            self.data_received = true;
            self.cookie_refusals = 0;
            if complete {
                let (wanted, bytes, refetched) = self.active.remove(at).into_parts();
                self.complete.push_back(Complete {
                    wanted,
                    bytes,
                    refetched,
                });
            }
            return;
        }
        self.rtts.on_unwanted(now);
    }

    fn on_response(&mut self) {
        self.unanswered_since = None;
        self.outage_since = None;
        self.idle_timeouts = 0;
    }

    fn on_nack(&mut self, now: Duration, nack: &Nack) {
        let Some(session) = self.handshake.session() else {
            return;
        };
        let current = nack.echo == session.cookie.value;
        if !current && Some(nack.echo) != self.previous_cookie {
            return;
        }
        if !current && nack.code == NackCode::Cookie {
            // As many as can have been in flight at the renewal; more are forged.
            self.stale_refusals += 1;
            if self.stale_refusals > STALE_REFUSALS {
                return;
            }
        }
        let is_meant = |chunk: &Assembly| {
            chunk.wanted().id.tag() == nack.tag && chunk.segments_outstanding() > 0
        };
        let Some(at) = self.active.iter().position(is_meant) else {
            return;
        };
        self.on_response();
        let chunk = &mut self.active[at];
        let id: ChunkId = chunk.wanted().id;
        let retry = Duration::from_millis(nack.retry_ms.into()).clamp(RETRY_MIN, RETRY_MAX);
        match nack.code {
            NackCode::Absent => self.on_final_nack(at, nack.code, Failure::Absent(id)),
            NackCode::Range => self.on_final_nack(at, nack.code, Failure::Range(id)),
            NackCode::Busy if nack.retry_ms == 0 => {
                self.on_final_nack(at, nack.code, Failure::Busy);
            }
            NackCode::Origin if nack.retry_ms == 0 => {
                self.on_final_nack(at, nack.code, Failure::Origin(id));
            }
            NackCode::Pending => {
                let wait = if nack.retry_ms == 0 { RETRY_MAX } else { retry };
                chunk.on_pending(now, wait.max(self.rtts.fetch_timeout(0)));
                self.cold_until = now + COLD_FOR;
            }
            NackCode::Busy => {
                chunk.on_refusal(now, nack.code, retry);
                if now >= self.busy_ignored_until {
                    self.window.halve();
                    self.busy_ignored_until = now + self.rtts.fetch_timeout(0);
                }
            }
            NackCode::Origin => chunk.on_refusal(now, nack.code, retry),
            NackCode::Cookie if current => self.cookie_refused(),
            // Request again with the current cookie.
            NackCode::Cookie => chunk.forget_requests(),
        }
    }

    /// A final refusal. One datagram may be damaged or forged, so the chunk is requested again from
    /// another port, with another cookie; a second refusal ends the transfer.
    fn on_final_nack(&mut self, at: usize, code: NackCode, failure: Failure) {
        if self.active[at].is_repeated_refusal(code, self.stats.ports) {
            self.failure = Some(failure);
        } else {
            self.handshake.reopen();
        }
    }

    fn cookie_refused(&mut self) {
        self.cookie_refusals += 1;
        if self.cookie_refusals > COOKIE_REFUSALS {
            self.failure = Some(Failure::CookieRefused);
        }
        // Requests in flight with this cookie will be refused too.
        self.handshake.renew();
        self.forget_requests();
    }

    /// A data chunk was verified and used. Takes its buffer back.
    pub fn accept_data(&mut self, wanted: &Wanted, buffer: Vec<u8>) {
        self.buffers.push(buffer);
        self.fetch_order.finish(wanted.place);
        self.stats.chunks += 1;
        self.resegmentations = 0;
    }

    /// An index chunk was verified.
    pub fn accept_index(&mut self, wanted: &Wanted, chunk: Verified) {
        self.fetch_order.expand(wanted.place, &chunk);
        self.buffers.push(chunk.into_bytes());
        self.stats.chunks += 1;
    }

    /// A chunk does not match its id. An attacker who guessed the port can cause this once, so it is
    /// fetched again from another port; a second mismatch is the edge's fault.
    pub fn reject(&mut self, complete: Complete) {
        let Complete {
            wanted,
            bytes,
            refetched,
        } = complete;
        if refetched {
            self.failure = Some(Failure::Corrupt(wanted.id));
        }
        self.buffers.push(bytes);
        self.refetch.push(wanted);
        self.handshake.reopen();
    }
}

/// The lowest `count` bits that are set.
fn lowest_bits(set: u128, count: u32) -> u128 {
    let mut rest = set;
    for _ in 0..count {
        rest &= rest.wrapping_sub(1);
    }
    set & !rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lowest_bits_are_taken_and_no_more_than_there_are() {
        assert_eq!(lowest_bits(0b1011_0100, 2), 0b1_0100);
        assert_eq!(lowest_bits(0b1011_0100, 9), 0b1011_0100);
        assert_eq!(lowest_bits(u128::MAX, 127), u128::MAX >> 1);
        assert_eq!(lowest_bits(0, 5), 0);
    }
}
