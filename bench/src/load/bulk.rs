//! Whole chunks, requested in a closed or an open loop, with a limit per client of chunks in
//! flight.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use edge_ebpf::wire::{ChunkId, DATA_HEADER_BYTES, DataHeader, Geometry, Kind, opening};
use edge_testbed::pace::{Pace, Schedule};
use edge_user::client::handshake::Session;
use edge_user::clock;
use edge_user::object::tree::id_of;

use super::catalogue::Chunk;
use super::lane::{self, Inbox, Lane};
use super::mix::Picker;
use super::tally::Tally;
use crate::ceiling::{GROUP, GROUP_CHUNKS};

/// One of this many chunks is reassembled and compared with its id.
pub const VERIFIED_ONE_IN: u64 = 64;
/// Least time after which missing segments are requested again.
const LOST_AFTER: Duration = Duration::from_millis(40);
/// The same for a chunk that the edge may have to fetch first: the wait that PENDING asks for.
const FETCHED_WITHIN: Duration = Duration::from_millis(250);
/// The wait doubles with each timeout up to this: more requests do not help an edge that is late.
const WAIT_MAX: Duration = Duration::from_secs(2);
/// The edge counts as dead after this time without progress.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A chunk in flight.
struct Asked {
    chunk: Chunk,
    missing: u128,
    /// Segments requested once the first one has arrived: while the edge fetches the chunk, a
    /// second GET would replace the first.
    held_back: u128,
    /// The first segment has arrived.
    begun: bool,
    due: Instant,
    last_at: Instant,
    /// Time from `last_at` to the next repetition.
    patience: Duration,
    /// Received bytes, if the chunk is to be verified.
    bytes: Option<Vec<u8>>,
}

struct Client {
    lane: Lane,
    asked: Vec<Asked>,
    lost_after: Duration,
}

/// The clients of one thread.
pub struct Bulk {
    clients: Vec<Client>,
    inbox: Inbox,
    /// Maximum number of chunks in flight per client.
    pub chunks_per_client: usize,
    /// The client that sends the next request: round-robin.
    turn: usize,
    /// The chunks are those of a ceiling: requested in groups, and not verified.
    pub numbered: bool,
    pub tally: Tally,
}

/// How much of a chunk is requested.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    /// All of it, at once: the edge holds it.
    Resident,
    /// All of it, but only the first burst until something arrives: the edge may have to fetch it.
    Absent,
    /// One segment, so that the edge fetches the chunk.
    First,
}

/// A chunk to request.
struct Wanted {
    chunk: Chunk,
    part: Part,
    /// Whether it is verified.
    compared: bool,
    /// When it should be requested.
    due: Instant,
}

/// What to request next.
enum Next {
    Ask(Wanted),
    /// Nothing before this time.
    At(Instant),
    /// No more.
    Nothing,
}

impl Bulk {
    pub fn open(edge: SocketAddr, clients: usize, chunks_per_client: usize) -> Result<Self> {
        let clients = (0..clients)
            .map(|_| {
                let lane = Lane::open(edge)?;
                let asked = Vec::with_capacity(chunks_per_client);
                let lost_after = LOST_AFTER;
                Ok(Client {
                    lane,
                    asked,
                    lost_after,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            clients,
            inbox: Inbox::default(),
            chunks_per_client,
            turn: 0,
            numbered: false,
            tally: Tally::default(),
        })
    }

    /// Adapts the retransmission timeout to replies that take this long.
    pub fn wait_for(&mut self, answers: Duration) {
        for client in &mut self.clients {
            client.lost_after = answers.clamp(LOST_AFTER, WAIT_MAX);
        }
    }

    /// The session of the first client.
    pub fn session(&self) -> Option<&Session> {
        self.clients.first().map(|client| client.lane.session())
    }

    /// How many chunks the receive buffer of each client holds.
    pub fn chunks_max(&self) -> Result<usize> {
        self.clients.iter().try_fold(usize::MAX, |least, client| {
            Ok(least.min(client.lane.chunks_max()?))
        })
    }

    /// Fetches one chunk, for the caller to verify.
    pub fn fetch(&mut self, chunk: &Chunk) -> Result<Vec<u8>> {
        let mut next = Some(*chunk);
        let mut fetched = None;
        self.drive(
            &mut |now| ask_now(next.take(), Part::Absent, now),
            None,
            &mut |_, asked| {
                fetched = asked.bytes;
            },
        )?;
        fetched.context("the edge sent no chunk")
    }

    /// Fetches and verifies each chunk once, and reports its length to `each`.
    pub fn fetch_all(&mut self, chunks: &[Chunk], mut each: impl FnMut(u32)) -> Result<()> {
        let mut rest = chunks.iter();
        let mut next = |now| ask_now(rest.next().copied(), Part::Absent, now);
        self.drive(&mut next, None, &mut |tally, asked| {
            each(asked.chunk.bytes);
            settle(tally, asked);
        })
    }

    /// Requests one segment of each chunk, so that the edge fetches it. Nothing is verified.
    pub fn touch_all(&mut self, chunks: &[Chunk]) -> Result<()> {
        let mut rest = chunks.iter();
        let mut next = |now| ask_now(rest.next().copied(), Part::First, now);
        self.drive(&mut next, None, &mut settle)
    }

    /// Loads the edge for this time.
    pub fn run(
        &mut self,
        chunks: &[Chunk],
        picker: &mut Picker,
        pace: Pace,
        time: Duration,
    ) -> Result<()> {
        let (compare, mut count) = (!self.numbered, 0_u64);
        let mut group = 0..0;
        let mut pick = || {
            count += 1;
            if compare {
                return (picker.pick(), count.is_multiple_of(VERIFIED_ONE_IN));
            }
            if group.is_empty() {
                let first = picker.pick();
                group = first..first + GROUP_CHUNKS as usize;
            }
            (group.next().unwrap_or(0) % chunks.len(), false)
        };
        let begin = clock::now();
        let mut schedule = Schedule::new(pace, begin);
        let mut next = |now| {
            let due = schedule.next_due(now);
            if due > now {
                return Next::At(due);
            }
            schedule.take();
            let (number, compared) = pick();
            let chunk = chunks[number];
            Next::Ask(Wanted {
                chunk,
                part: Part::Resident,
                compared,
                due,
            })
        };
        let until = begin + time;
        self.drive(&mut next, Some(until), &mut settle)?;
        self.tally.unasked = schedule.behind(until);
        Ok(())
    }

    /// Waits for what is in flight, at most this long. What has not arrived then is given up and
    /// counts with its age as latency.
    pub fn finish(&mut self, most: Duration) -> Result<()> {
        let until = clock::now() + most;
        self.drive(&mut |_| Next::Nothing, Some(until), &mut settle)?;
        let now = clock::now();
        for client in &mut self.clients {
            for asked in client.asked.drain(..) {
                let age = now.saturating_duration_since(asked.due);
                self.tally.latency(age);
            }
        }
        Ok(())
    }

    /// Runs until the given time, leaving what is in flight then, or until all is done.
    fn drive(
        &mut self,
        next: &mut dyn FnMut(Instant) -> Next,
        until: Option<Instant>,
        done: &mut dyn FnMut(&mut Tally, Asked),
    ) -> Result<()> {
        let mut progress_at = clock::now();
        let refused_before = self.tally.refused;
        loop {
            let now = clock::now();
            if until.is_some_and(|until| now >= until) {
                return Ok(());
            }
            let again = self.ask(next, now)?;
            if self.clients.iter().all(|client| client.asked.is_empty()) {
                if again.is_none() {
                    return Ok(());
                }
                progress_at = now;
            }
            let most = again
                .into_iter()
                .chain(until)
                .map(|at| at.saturating_duration_since(now))
                .fold(LOST_AFTER, Duration::min);
            let fds: Vec<BorrowedFd<'_>> =
                self.clients.iter().map(|client| client.lane.fd()).collect();
            lane::wait(&fds, most)?;
            let before = self.tally.bytes;
            for client in &mut self.clients {
                client.receive(&mut self.inbox, &mut self.tally, done)?;
            }
            let now = clock::now();
            if self.tally.bytes > before {
                progress_at = now;
            } else if now.saturating_duration_since(progress_at) > SILENCE_MAX {
                bail!(
                    "the edge has sent no requested data for {} s, and {} refusals; does its \
                     origin have this content?",
                    SILENCE_MAX.as_secs(),
                    self.tally.refused - refused_before
                );
            }
        }
    }

    /// Sends all requests that are due; returns when the next one is.
    fn ask(
        &mut self,
        next: &mut dyn FnMut(Instant) -> Next,
        now: Instant,
    ) -> Result<Option<Instant>> {
        for client in &mut self.clients {
            client.lane.keep(now)?;
            client.ask_again(now, &mut self.tally)?;
            client.ask_rest(&mut self.tally)?;
        }
        let again = if self.numbered {
            for client in &mut self.clients {
                client.ask_groups(self.chunks_per_client, next, now, &mut self.tally)?;
            }
            None
        } else {
            self.ask_in_turn(next, now)?
        };
        for client in &mut self.clients {
            client.lane.flush()?;
        }
        Ok(again)
    }

    fn ask_in_turn(
        &mut self,
        next: &mut dyn FnMut(Instant) -> Next,
        now: Instant,
    ) -> Result<Option<Instant>> {
        let count = self.clients.len();
        loop {
            let mut turns = (self.turn..self.turn + count).map(|turn| turn % count);
            let room = turns.find(|turn| {
                let asked = &self.clients[*turn].asked;
                asked.len() < self.chunks_per_client
            });
            let Some(turn) = room else {
                return Ok(None);
            };
            match next(now) {
                Next::Ask(wanted) => self.clients[turn].ask(wanted, now, &mut self.tally)?,
                Next::At(at) => return Ok(Some(at)),
                Next::Nothing => return Ok(None),
            }
            self.turn = turn + 1;
        }
    }
}

impl Client {
    fn ask(&mut self, wanted: Wanted, now: Instant, tally: &mut Tally) -> Result<()> {
        let asked = self.noted(wanted, now, tally)?;
        want(&mut self.lane, &asked, tally)?;
        self.asked.push(asked);
        Ok(())
    }

    fn noted(&self, wanted: Wanted, now: Instant, tally: &mut Tally) -> Result<Asked> {
        let Wanted {
            chunk,
            part,
            compared,
            due,
        } = wanted;
        let geometry = Geometry::new(chunk.bytes, self.lane.session().segment_bytes)
            .context("the edge's segments do not fit the chunk")?;
        let missing = match part {
            Part::Resident | Part::Absent => geometry.all(),
            Part::First => 1,
        };
        let first_burst = !u128::MAX.unbounded_shl(u32::from(self.lane.session().max_burst));
        tally.segments += u64::from(missing.count_ones());
        tally.asked_after(now.saturating_duration_since(due));
        Ok(Asked {
            chunk,
            missing,
            held_back: match part {
                Part::Resident | Part::First => 0,
                Part::Absent => missing & !first_burst,
            },
            begun: false,
            due,
            last_at: now,
            patience: match part {
                Part::Resident => self.lost_after,
                Part::Absent | Part::First => FETCHED_WITHIN.max(self.lost_after),
            },
            bytes: compared.then(|| vec![0; chunk.bytes as usize]),
        })
    }

    /// Requests whole groups of a ceiling's chunks, one GET each.
    fn ask_groups(
        &mut self,
        most: usize,
        next: &mut dyn FnMut(Instant) -> Next,
        now: Instant,
        tally: &mut Tally,
    ) -> Result<()> {
        while self.asked.len() + GROUP_CHUNKS as usize <= most {
            let mut first = None;
            for _ in 0..GROUP_CHUNKS {
                let Next::Ask(wanted) = next(now) else {
                    return Ok(());
                };
                first.get_or_insert(wanted.chunk.id);
                let asked = self.noted(wanted, now, tally)?;
                self.asked.push(asked);
            }
            let first = first.context("a group has chunks")?;
            self.lane.get(first, GROUP)?;
            tally.requests += 1;
        }
        Ok(())
    }

    /// Requests the rest of each chunk whose first segment has arrived.
    fn ask_rest(&mut self, tally: &mut Tally) -> Result<()> {
        for asked in &mut self.asked {
            if asked.begun {
                let rest = std::mem::take(&mut asked.held_back);
                want_set(&mut self.lane, asked.chunk.id, rest, tally)?;
            }
        }
        Ok(())
    }

    fn ask_again(&mut self, now: Instant, tally: &mut Tally) -> Result<()> {
        for asked in &mut self.asked {
            if now.saturating_duration_since(asked.last_at) > asked.patience {
                asked.last_at = now;
                asked.patience = (asked.patience * 2).min(WAIT_MAX);
                tally.repeats += 1;
                tally.overdue += u64::from(asked.missing.count_ones());
                want(&mut self.lane, asked, tally)?;
            }
        }
        Ok(())
    }

    fn receive(
        &mut self,
        inbox: &mut Inbox,
        tally: &mut Tally,
        done: &mut dyn FnMut(&mut Tally, Asked),
    ) -> Result<()> {
        let now = clock::now();
        let segment_bytes = self.lane.session().segment_bytes;
        let asked = &mut self.asked;
        self.lane.receive(inbox, |datagram| {
            tally.datagrams += 1;
            if let Some(place) = take(asked, datagram, segment_bytes, now, tally) {
                done(tally, asked.swap_remove(place));
            }
        })?;
        Ok(())
    }
}

/// Due at once; verified if the whole chunk is requested.
fn ask_now(chunk: Option<Chunk>, part: Part, now: Instant) -> Next {
    chunk.map_or(Next::Nothing, |chunk| {
        Next::Ask(Wanted {
            chunk,
            part,
            compared: part != Part::First,
            due: now,
        })
    })
}

/// Sends GETs for all that is missing, one burst each.
fn want(lane: &mut Lane, asked: &Asked, tally: &mut Tally) -> Result<()> {
    let rest = asked.missing & !asked.held_back;
    want_set(lane, asked.chunk.id, rest, tally)
}

fn want_set(lane: &mut Lane, id: ChunkId, mut rest: u128, tally: &mut Tally) -> Result<()> {
    while rest != 0 {
        let mut burst = 0_u128;
        for _ in 0..lane.session().max_burst {
            burst |= rest & rest.wrapping_neg();
            rest &= rest.wrapping_sub(1);
        }
        lane.get(id, burst)?;
        tally.requests += 1;
    }
    Ok(())
}

/// Stores a segment; returns the index of the chunk that is now complete, if any.
fn take(
    asked: &mut [Asked],
    datagram: &[u8],
    segment_bytes: u16,
    now: Instant,
    tally: &mut Tally,
) -> Option<usize> {
    let Some((header, payload)) = datagram.split_first_chunk::<DATA_HEADER_BYTES>() else {
        tally.strange += 1;
        return None;
    };
    let Ok(data) = DataHeader::decode(header) else {
        tally.refused += u64::from(is_nack(datagram));
        tally.strange += u64::from(!is_nack(datagram));
        return None;
    };
    let bit = 1_u128.checked_shl(u32::from(data.index)).unwrap_or(0);
    // A chunk that was requested twice gets each segment twice; duplicates are not strange.
    let (place, asked) = asked
        .iter_mut()
        .enumerate()
        .find(|(_, asked)| asked.chunk.id.tag() == data.tag && asked.missing & bit != 0)?;
    let start = data.place(payload.len(), segment_bytes);
    let Some(start) = start.filter(|_| data.chunk_bytes == asked.chunk.bytes) else {
        tally.strange += 1;
        return None;
    };
    asked.missing &= !bit;
    asked.begun = true;
    asked.last_at = now;
    tally.bytes += payload.len() as u64;
    if let Some(bytes) = &mut asked.bytes {
        bytes[start..start + payload.len()].copy_from_slice(payload);
    }
    (asked.missing == 0).then_some(place)
}

fn settle(tally: &mut Tally, asked: Asked) {
    tally.chunks += 1;
    tally.latency(clock::now().saturating_duration_since(asked.due));
    if let Some(bytes) = asked.bytes {
        let right = id_of(&bytes) == asked.chunk.id;
        tally.verified += u64::from(right);
        tally.wrong += u64::from(!right);
    }
}

fn is_nack(datagram: &[u8]) -> bool {
    datagram.starts_with(&opening(Kind::Nack))
}

#[cfg(test)]
mod tests {
    use edge_ebpf::wire::{ChunkId, SEGMENT_BYTES_DEFAULT};

    use super::*;

    /// Segment `index` of a chunk of two.
    fn segment(index: u8) -> Vec<u8> {
        let header = DataHeader {
            index,
            last: 1,
            chunk_bytes: 2000,
            tag: [7; 8],
        };
        let mut datagram = header.encode().to_vec();
        datagram.resize(DATA_HEADER_BYTES + [1216, 784][usize::from(index)], 0);
        datagram
    }

    #[test]
    fn a_chunk_that_is_asked_for_twice_takes_each_segment_twice() {
        let now = clock::now();
        let asked = || Asked {
            chunk: Chunk {
                id: ChunkId([7; 32]),
                bytes: 2000,
            },
            missing: 0b11,
            held_back: 0,
            begun: false,
            due: now,
            last_at: now,
            patience: LOST_AFTER,
            bytes: None,
        };
        let mut asked = vec![asked(), asked()];
        let mut tally = Tally::default();
        let mut receive = |index| {
            let datagram = segment(index);
            take(
                &mut asked,
                &datagram,
                SEGMENT_BYTES_DEFAULT,
                now,
                &mut tally,
            )
        };
        // The second segment of the first reply was lost.
        let places = [receive(0), receive(0), receive(1), receive(1), receive(1)];
        assert_eq!(places, [None, None, Some(0), Some(1), None]);
        assert_eq!((tally.bytes, tally.strange), (4000, 0));
    }
}
