//! One object from one edge: what to send, and what an answer means. Pure: time, randomness and
//! datagrams come in as values, and what is to be done goes out as one `Action` at a time.

use std::collections::VecDeque;
use std::time::Duration;

use edge_ebpf::wire::{
    ChunkId, DATA_HEADER_BYTES, DataHeader, Get, Kind, NACK_BYTES, Nack, NackCode, opening,
};
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::assembly::{Arrival, Assembly};
use super::failure::Failure;
use super::greeting::{DATAGRAM_BYTES_MAX, Greeting, Heard, Step};
use super::pace::{Trips, Window};
use super::walk::{Walk, Wanted};
use crate::object::tree::{Shape, Verified};
use crate::seal::ticket::PublicTicket;

/// Chunks that may be in memory at once, under way or being checked: 8 MiB.
const BUFFERS: usize = 64;
/// An edge that owes an answer and says nothing for this long is greeted anew, on another port.
const SILENCE: Duration = Duration::from_secs(3);
/// Such silences in a row before an edge that never sent DATA counts as dead.
const SILENCES: u8 = 3;
/// How long an edge that sent DATA may be out of reach: two minutes, and the time to come back.
const OUTAGE: Duration = Duration::from_secs(150);
/// The same for an edge that has only greeted: it may just be starting.
const OUTAGE_GREETED: Duration = Duration::from_secs(10);
/// DATA of another segment size has the edge greeted, at most this often: anybody may send it.
const REFRESH_MIN: Duration = Duration::from_secs(1);
/// How long the edge counts as one that must fetch what it is asked for, after it said so.
const COLD_MEMORY: Duration = Duration::from_secs(5);
/// Refusals of the cookie before that are listened to after a renewal.
const STALE_REFUSALS: u32 = 64;
/// Cookies that may be refused in a row, each just given.
const COOKIE_REFUSALS: u8 = 3;
/// How often an edge may change its segment size: each time, incomplete chunks are begun again.
const REFITS: u8 = 3;
/// How long an edge may say BUSY or ORIGIN about one chunk.
const REFUSED_PATIENCE: Duration = Duration::from_secs(6);
/// How long an edge may say PENDING about one chunk.
const PENDING_PATIENCE: Duration = Duration::from_secs(30);
/// Bounds of the wait that a NACK can ask for.
const RETRY_MIN: Duration = Duration::from_millis(20);
const RETRY_MAX: Duration = Duration::from_secs(2);

/// What is to be done now.
#[derive(Debug)]
pub enum Action {
    /// Take a socket on a new port, drop the old one, then call `opened`.
    Open,
    /// Send this many bytes of the buffer that was handed in.
    Send(usize),
    /// Check this chunk, then call `accept`, `learn` or `reject`.
    Check(Complete),
    /// Nothing, until a datagram comes, a chunk was checked, or this moment.
    Wait(Duration),
    /// Every chunk was accepted.
    Done,
    Failed(Failure),
}

/// A chunk that is whole and was not checked yet.
#[derive(Debug)]
pub struct Complete {
    wanted: Wanted,
    bytes: Vec<u8>,
    spoiled: bool,
}

impl Complete {
    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    /// Checks the bytes against the id. They cannot be had in another way.
    pub fn check(self) -> Result<(Wanted, Verified), Self> {
        let Self {
            wanted,
            bytes,
            spoiled,
        } = self;
        match Verified::check(bytes, &wanted.id) {
            Ok(verified) => Ok((wanted, verified)),
            Err(bytes) => Err(Self {
                wanted,
                bytes,
                spoiled,
            }),
        }
    }
}

/// What a transfer cost.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cost {
    /// GETs sent.
    pub requests: u64,
    /// Segments that had to be asked for again.
    pub retransmitted: u64,
    /// Datagrams received, and their bytes (UDP payload), wanted or not.
    pub datagrams_received: u64,
    pub bytes_received: u64,
    /// Data and index chunks that were checked and found right.
    pub chunks: u64,
    /// Sockets used.
    pub ports: u64,
}

pub struct Transfer {
    walk: Walk,
    /// Chunks to fetch again because what came was not what their id says.
    again: Vec<Wanted>,
    active: Vec<Assembly>,
    complete: VecDeque<Complete>,
    /// Buffers at hand, and how many more may be made.
    buffers: Vec<Vec<u8>>,
    buffers_to_make: usize,

    greeting: Greeting,
    trips: Trips,
    window: Window,
    /// The cookie before the present one: what was asked with it may still be answered.
    cookie_before: Option<[u8; 8]>,
    /// GETs with that one which were refused since.
    stale_refusals: u32,
    cookie_refusals: u8,
    /// The segment size of the last WELCOME, and how often it was another than before.
    segment_bytes: Option<u16>,
    refits: u8,
    /// Since when the edge has owed an answer and said nothing at all.
    owes_since: Option<Duration>,
    silences: u8,
    /// Since when nothing has come, over all silences and greetings of the row.
    out_since: Option<Duration>,
    /// Whether DATA ever came.
    flowed: bool,
    /// How long to be patient with whatever it is; without it, each cause has its own limit.
    patience: Option<Duration>,
    /// Until when chunks are asked for as if the edge had to fetch them.
    cold_until: Duration,
    refresh_at: Duration,
    /// A refusal that shrank the window counts for all that were on the way with it.
    refusals_counted_until: Duration,

    random: StdRng,
    failure: Option<Failure>,
    /// A chunk came with a length that is not the ticket's. Such DATA is ignored, as anybody may
    /// have sent it; when nothing else comes, it is the explanation.
    misfit: Option<Failure>,
    cost: Cost,
}

impl Transfer {
    /// A transfer of the object a ticket names. The seed makes nonces: it must be random. With a
    /// patience, that is how long the edge may be silent or say that it has no data.
    pub fn new(ticket: &PublicTicket, seed: [u8; 32], patience: Option<Duration>) -> Self {
        Self {
            walk: Walk::new(ticket.shape().clone(), ticket.root()),
            again: Vec::new(),
            active: Vec::with_capacity(BUFFERS),
            complete: VecDeque::new(),
            buffers: Vec::with_capacity(BUFFERS),
            buffers_to_make: BUFFERS,
            greeting: Greeting::default(),
            trips: Trips::default(),
            window: Window::new(0),
            cookie_before: None,
            stale_refusals: 0,
            cookie_refusals: 0,
            segment_bytes: None,
            refits: 0,
            owes_since: None,
            silences: 0,
            out_since: None,
            flowed: false,
            patience,
            cold_until: Duration::ZERO,
            refresh_at: Duration::ZERO,
            refusals_counted_until: Duration::ZERO,
            random: StdRng::from_seed(seed),
            failure: None,
            misfit: None,
            cost: Cost::default(),
        }
    }

    pub fn shape(&self) -> &Shape {
        self.walk.shape()
    }

    pub fn cost(&self) -> Cost {
        self.cost
    }

    /// The socket on a new port is there; its receive buffer holds this many segments.
    pub fn opened(&mut self, segments_held: u32) {
        // Another port may be another path.
        self.window = Window::new(segments_held);
        self.trips = Trips::default();
        self.cost.ports += 1;
        self.cookie_before = None;
        self.greeting.opened();
    }

    /// The edge was greeted already, over a socket that holds this many segments.
    pub fn greeted(&mut self, greeting: Greeting, rtt: Duration, segments_held: u32) {
        self.opened(segments_held);
        self.segment_bytes = greeting.session().map(|session| session.segment_bytes);
        self.greeting = greeting;
        self.trips.welcomed(rtt);
        self.window.sample(rtt);
    }

    /// The network of this host refused the new socket, or the datagram that was to be sent: that
    /// is loss, and nothing that was asked for stays unasked.
    pub fn unsent(&mut self, now: Duration) {
        self.greeting.unsent(now);
    }

    /// What to do now, where everything was heard that came before `heard_until`: of what came
    /// later, nothing can be overdue. A datagram to send is written to `out`.
    pub fn act(
        &mut self,
        now: Duration,
        heard_until: Duration,
        out: &mut [u8; DATAGRAM_BYTES_MAX],
    ) -> Action {
        if let Some(failure) = self.failure.take() {
            return Action::Failed(failure);
        }
        if let Some(complete) = self.complete.pop_front() {
            return Action::Check(complete);
        }
        if self.walk.is_done() {
            return Action::Done;
        }
        if let Err(failure) = self.watch(heard_until.min(now)) {
            return Action::Failed(failure);
        }
        let until = self.out_since.unwrap_or(now) + self.outage();
        let measured = self.trips.longest();
        let random = &mut self.random;
        let mut nonce = || {
            let mut bytes = [0; 8];
            random.fill_bytes(&mut bytes);
            bytes
        };
        let wake = match self.greeting.step(now, until, measured, out, &mut nonce) {
            Step::Open => {
                self.out_since.get_or_insert(now);
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
            self.cost.requests += 1;
            return Action::Send(get.len());
        }
        Action::Wait(self.due(now).map_or(wake, |due| due.min(wake)))
    }

    /// Gives up what is overdue, and the edge itself if it has been silent for too long.
    fn watch(&mut self, now: Duration) -> Result<(), Failure> {
        for chunk in &mut self.active {
            let expired = chunk.expire(now, &self.trips);
            self.window.lost(expired.lost);
            if expired
                .silent
                .is_some_and(|sent_at| self.trips.silent(sent_at, now))
            {
                self.window.halve();
            }
            let id = chunk.wanted().id;
            if let Some(refused) = chunk.refused() {
                // BUSY and ORIGIN say that it did not work up to then; of later nothing is known.
                let heard = if refused.code == NackCode::Pending {
                    now
                } else {
                    refused.heard_at
                };
                let (code, waited) = (refused.code, heard.saturating_sub(refused.since));
                let refused = self.patience.unwrap_or(REFUSED_PATIENCE);
                let pending = self.patience.unwrap_or(PENDING_PATIENCE);
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
        self.window.turn(now, self.trips.smooth());
        let silence = self.silence();
        if let Some(since) = self.owes_since.filter(|since| now >= *since + silence) {
            self.out_since.get_or_insert(since);
            self.owes_since = None;
            self.silences = self.silences.saturating_add(1);
            if self.patience.is_none() && !self.flowed && self.silences >= SILENCES {
                return Err(self.misfit.take().unwrap_or(Failure::Silent));
            }
            self.greeting.reopen();
        }
        let outage = self.outage();
        let since = self.out_since.or(self.owes_since);
        if !outage.is_zero() && since.is_some_and(|since| now >= since + outage) {
            return Err(match (self.greeting.session(), self.misfit.take()) {
                (None, _) => self.greeting.failure(),
                (Some(_), Some(misfit)) => misfit,
                (Some(_), None) => Failure::Silent,
            });
        }
        Ok(())
    }

    /// How long a silence is: at least as long as an answer may be on its way.
    fn silence(&self) -> Duration {
        SILENCE.max(self.trips.longest())
    }

    /// How long the edge may be out of reach; zero where only greetings are counted.
    fn outage(&self) -> Duration {
        self.patience.unwrap_or(if self.flowed {
            OUTAGE
        } else if self.segment_bytes.is_some() {
            OUTAGE_GREETED
        } else {
            Duration::ZERO
        })
    }

    fn forget_requests(&mut self) {
        for chunk in &mut self.active {
            chunk.forget_requests();
        }
    }

    /// The next GET, if the window has room and there is something to ask for.
    fn next_get(&mut self, now: Duration) -> Option<Get> {
        let session = *self.greeting.session()?;
        let sum = |of: fn(&Assembly) -> u32| self.active.iter().map(of).sum::<u32>();
        let under_way = sum(Assembly::segments_under_way);
        let window = self.window.segments().checked_sub(under_way);
        let held = sum(Assembly::segments_owed);
        let buffer = self.window.most().checked_sub(held);
        let room = window.min(buffer).filter(|room| *room > 0)?;
        let asks = |chunk: &Assembly| chunk.missing(now) != 0;
        let at = match self.active.iter().position(asks) {
            Some(at) => at,
            None => self.begin_chunk(session.segment_bytes)?,
        };
        let chunk = &mut self.active[at];
        let missing = chunk.missing(now);
        // As few GETs as possible, and those of equal size.
        let needed = missing.count_ones();
        let mut size = needed.div_ceil(needed.div_ceil(u32::from(session.max_burst)));
        if chunk.is_new() && (now < self.cold_until || self.trips.cold()) {
            // Has the edge fetch many chunks at a time, and leaves room for those that are there.
            size = 1;
        }
        if under_way > 0 && room < size.min(self.window.segments() / 4) {
            // A request for one segment each time one arrives would cost more than it brings.
            return None;
        }
        let want = lowest_bits(missing, size.min(room));
        self.owes_since.get_or_insert(now);
        self.cost.retransmitted += u64::from(chunk.ask(now, want));
        Some(Get {
            cookie: session.cookie,
            id: chunk.wanted().id,
            want,
        })
    }

    fn begin_chunk(&mut self, segment_bytes: u16) -> Option<usize> {
        if self.buffers.is_empty() {
            self.buffers_to_make = self.buffers_to_make.checked_sub(1)?;
            self.buffers.push(Vec::new());
        }
        let (wanted, spoiled) = match self.again.pop() {
            Some(wanted) => (wanted, true),
            None => (self.walk.take_next()?, false),
        };
        let buffer = self.buffers.pop()?;
        self.active
            .push(Assembly::new(wanted, spoiled, segment_bytes, buffer));
        Some(self.active.len() - 1)
    }

    fn due(&self, now: Duration) -> Option<Duration> {
        let due = self
            .active
            .iter()
            .filter_map(|chunk| chunk.due(now, &self.trips));
        let outage = Some(self.outage()).filter(|outage| !outage.is_zero());
        let since = self.out_since.or(self.owes_since);
        let out = since.zip(outage).map(|(since, outage)| since + outage);
        due.chain(self.owes_since.map(|since| since + self.silence()))
            .chain(out)
            .min()
    }

    /// Takes in a datagram from the edge's address and port.
    pub fn hear(&mut self, now: Duration, datagram: &[u8]) {
        self.cost.datagrams_received += 1;
        self.cost.bytes_received += datagram.len() as u64;
        if let Some((header, payload)) = datagram.split_first_chunk::<DATA_HEADER_BYTES>()
            && header[..2] == opening(Kind::Data)
        {
            if let Ok(header) = DataHeader::decode(header) {
                self.hear_data(now, &header, payload);
            }
        } else if let Ok(nack) = <&[u8; NACK_BYTES]>::try_from(datagram)
            && let Ok(nack) = Nack::decode(nack)
        {
            self.hear_nack(now, &nack);
        } else {
            self.hear_welcome(now, datagram);
        }
    }

    fn hear_welcome(&mut self, now: Duration, datagram: &[u8]) {
        let before = self.greeting.session().map(|session| session.cookie.value);
        match self.greeting.hear(now, datagram) {
            Heard::Nothing | Heard::More => {}
            Heard::Failed(failure) => self.failure = Some(failure),
            Heard::Welcome { rtt } => {
                if before.is_none() {
                    // Nothing could be asked for meanwhile. A renewal says nothing about DATA.
                    self.owes_since = None;
                }
                self.cookie_before = before;
                self.stale_refusals = 0;
                if let Some(rtt) = rtt {
                    self.trips.welcomed(rtt);
                    self.window.sample(rtt);
                }
                if let Some(session) = self.greeting.session() {
                    self.refit(session.segment_bytes);
                }
            }
        }
    }

    /// The edge has segments of this size from now on.
    fn refit(&mut self, segment_bytes: u16) {
        let before = self.segment_bytes.replace(segment_bytes);
        if before.is_none_or(|before| before == segment_bytes) {
            return;
        }
        self.refits += 1;
        if self.refits > REFITS {
            self.failure = Some(Failure::Unsteady);
        }
        for chunk in &mut self.active {
            chunk.refit(segment_bytes);
        }
    }

    fn hear_data(&mut self, now: Duration, header: &DataHeader, payload: &[u8]) {
        // A crafted object may list a chunk twice, so the first with this tag is not always it.
        for at in 0..self.active.len() {
            let chunk = &mut self.active[at];
            if chunk.wanted().id.tag() != header.tag {
                continue;
            }
            if header.chunk_bytes != chunk.wanted().chunk_bytes {
                self.misfit = Some(Failure::Misfit {
                    id: chunk.wanted().id,
                    edge_bytes: header.chunk_bytes,
                    ticket_bytes: chunk.wanted().chunk_bytes,
                });
                continue;
            }
            match chunk.take(now, header, payload, &mut self.trips) {
                Arrival::Nothing => {
                    if chunk.is_of_another_size(header, payload.len()) && now >= self.refresh_at {
                        self.refresh_at = now + REFRESH_MIN;
                        self.greeting.refresh(now);
                    }
                    continue;
                }
                Arrival::Again => continue,
                Arrival::Segment { delay, path } => {
                    if let Some(path) = path {
                        self.window.sample(path);
                    }
                    self.window.arrived(delay);
                }
            }
            let complete = chunk.is_complete();
            self.answers();
            self.flowed = true;
            self.cookie_refusals = 0;
            if complete {
                let (wanted, bytes, spoiled) = self.active.remove(at).into_parts();
                self.complete.push_back(Complete {
                    wanted,
                    bytes,
                    spoiled,
                });
            }
            return;
        }
        self.trips.useless(now);
    }

    /// The edge is there.
    fn answers(&mut self) {
        self.owes_since = None;
        self.out_since = None;
        self.silences = 0;
    }

    fn hear_nack(&mut self, now: Duration, nack: &Nack) {
        let Some(session) = self.greeting.session() else {
            return;
        };
        let current = nack.echo == session.cookie.value;
        if !current && Some(nack.echo) != self.cookie_before {
            return;
        }
        if !current && nack.code == NackCode::Cookie {
            // As many as can have been under way at the renewal; more are no answers to us.
            self.stale_refusals += 1;
            if self.stale_refusals > STALE_REFUSALS {
                return;
            }
        }
        let asked =
            |chunk: &Assembly| chunk.wanted().id.tag() == nack.tag && chunk.segments_owed() > 0;
        let Some(at) = self.active.iter().position(asked) else {
            return;
        };
        self.answers();
        let chunk = &mut self.active[at];
        let id: ChunkId = chunk.wanted().id;
        let retry = Duration::from_millis(nack.retry_ms.into()).clamp(RETRY_MIN, RETRY_MAX);
        match nack.code {
            NackCode::Absent => self.doubt(at, nack.code, Failure::Absent(id)),
            NackCode::Range => self.doubt(at, nack.code, Failure::Range(id)),
            NackCode::Busy if nack.retry_ms == 0 => self.doubt(at, nack.code, Failure::Busy),
            NackCode::Origin if nack.retry_ms == 0 => {
                self.doubt(at, nack.code, Failure::Origin(id));
            }
            NackCode::Pending => {
                let wait = if nack.retry_ms == 0 { RETRY_MAX } else { retry };
                chunk.wait(now, wait.max(self.trips.first_timeout(0)));
                self.cold_until = now + COLD_MEMORY;
            }
            NackCode::Busy => {
                chunk.refuse(now, nack.code, retry);
                if now >= self.refusals_counted_until {
                    self.window.halve();
                    self.refusals_counted_until = now + self.trips.first_timeout(0);
                }
            }
            NackCode::Origin => chunk.refuse(now, nack.code, retry),
            NackCode::Cookie if current => self.cookie_refused(),
            // It was asked for with the cookie before: ask again with the one at hand.
            NackCode::Cookie => chunk.forget_requests(),
        }
    }

    /// The edge refuses a chunk for good. One datagram may be damaged or forged, so the chunk is
    /// asked for again, from another port and with another cookie; a repetition is believed.
    fn doubt(&mut self, at: usize, code: NackCode, failure: Failure) {
        if self.active[at].is_repeated(code, self.cost.ports) {
            self.failure = Some(failure);
        } else {
            self.greeting.reopen();
        }
    }

    fn cookie_refused(&mut self) {
        self.cookie_refusals += 1;
        if self.cookie_refusals > COOKIE_REFUSALS {
            self.failure = Some(Failure::CookieRefused);
        }
        // Whatever was asked with this cookie will be refused too.
        self.greeting.renew();
        self.forget_requests();
    }

    /// A data chunk is right and its bytes were used; its buffer comes back.
    pub fn accept(&mut self, wanted: &Wanted, buffer: Vec<u8>) {
        self.buffers.push(buffer);
        self.walk.settle(wanted.place);
        self.cost.chunks += 1;
        self.refits = 0;
    }

    /// An index chunk is right.
    pub fn learn(&mut self, wanted: &Wanted, chunk: Verified) {
        self.walk.learn(wanted.place, &chunk);
        self.buffers.push(chunk.into_bytes());
        self.cost.chunks += 1;
    }

    /// A chunk is not what its id says. Somebody who guessed the port can do that once, so it is
    /// fetched again from another port; twice is the edge's doing.
    pub fn reject(&mut self, complete: Complete) {
        let Complete {
            wanted,
            bytes,
            spoiled,
        } = complete;
        if spoiled {
            self.failure = Some(Failure::Altered(wanted.id));
        }
        self.buffers.push(bytes);
        self.again.push(wanted);
        self.greeting.reopen();
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
