//! Whole chunks, closed loop: a fixed number of chunks is under way, and each that is complete
//! makes room for the next.

use std::net::SocketAddr;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use edge_ebpf::wire::{ChunkId, DATA_HEADER_BYTES, DataHeader, Geometry, Kind, opening};
use edge_user::clock;
use edge_user::seal::tree::id_of;

use super::catalogue::Chunk;
use super::lane::{self, Inbox, Lane};
use super::mix::Picker;
use super::tally::Tally;
use crate::ceiling::{GROUP, GROUP_CHUNKS};

/// One chunk in so many is put together and compared with its id.
pub const VERIFIED_ONE_IN: u64 = 64;
/// What did not come in this time is asked for again.
const LOST_AFTER: Duration = Duration::from_millis(40);
/// The same, of a chunk that the edge may have to fetch first: as long as PENDING bids to wait.
const FETCHED_WITHIN: Duration = Duration::from_millis(250);
/// How long the edge may give nothing at all.
const SILENCE_MAX: Duration = Duration::from_secs(5);

/// A chunk under way.
struct Asked {
    chunk: Chunk,
    missing: u128,
    /// Segments that are asked for once the first one has come: at an edge that must fetch the
    /// chunk, a second GET would replace the first.
    held_back: u128,
    /// Something has come.
    begun: bool,
    first_at: Instant,
    last_at: Instant,
    /// Its bytes, if it is one of those that are compared.
    bytes: Option<Vec<u8>>,
}

struct Client {
    lane: Lane,
    asked: Vec<Asked>,
}

/// The clients of one thread.
pub struct Bulk {
    clients: Vec<Client>,
    inbox: Inbox,
    chunks_per_client: usize,
    /// Chunks are those of a ceiling: asked for in groups, and compared with nothing.
    pub numbered: bool,
    pub tally: Tally,
}

/// What the edge is driven to.
#[derive(Clone, Copy, Debug)]
enum Goal {
    /// Everything, whether the edge has it yet or not.
    Fetch,
    /// To have everything: one segment of each chunk.
    Touch,
    /// As much as it can until then, of what it has. What is under way at the end stays so.
    Measure { until: Instant },
}

/// What is to be fetched next, and whether it is compared with its id.
type Next<'a> = &'a mut dyn FnMut() -> Option<(Chunk, bool)>;

impl Bulk {
    pub fn open(edge: SocketAddr, clients: usize, chunks_per_client: usize) -> Result<Self> {
        let clients = (0..clients)
            .map(|_| {
                let lane = Lane::open(edge)?;
                let asked = Vec::with_capacity(chunks_per_client);
                Ok(Client { lane, asked })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            clients,
            inbox: Inbox::default(),
            chunks_per_client,
            numbered: false,
            tally: Tally::default(),
        })
    }

    /// One chunk, for the caller to compare.
    pub fn fetch(&mut self, chunk: &Chunk) -> Result<Vec<u8>> {
        let mut next = Some((*chunk, true));
        let mut fetched = None;
        self.drive(&mut || next.take(), Goal::Fetch, &mut |_, asked| {
            fetched = asked.bytes;
        })?;
        fetched.context("the edge gave nothing")
    }

    /// Every chunk once, each compared with its id.
    pub fn fetch_all(&mut self, chunks: &[Chunk]) -> Result<()> {
        let mut rest = chunks.iter().map(|chunk| (*chunk, true));
        self.drive(&mut || rest.next(), Goal::Fetch, &mut settle)
    }

    /// One segment of every chunk, so that the edge has it. Compared with nothing.
    pub fn touch_all(&mut self, chunks: &[Chunk]) -> Result<()> {
        let mut rest = chunks.iter().map(|chunk| (*chunk, false));
        self.drive(&mut || rest.next(), Goal::Touch, &mut settle)
    }

    /// Keeps the edge busy for this time.
    pub fn run(&mut self, chunks: &[Chunk], picker: &mut Picker, time: Duration) -> Result<()> {
        let (compare, mut count) = (!self.numbered, 0_u64);
        let mut group = 0..0;
        let mut next = || {
            count += 1;
            if compare {
                return Some((chunks[picker.pick()], count.is_multiple_of(VERIFIED_ONE_IN)));
            }
            if group.is_empty() {
                let first = picker.pick();
                group = first..first + GROUP_CHUNKS as usize;
            }
            let number = group.next()? % chunks.len();
            Some((chunks[number], false))
        };
        let until = clock::now() + time;
        self.drive(&mut next, Goal::Measure { until }, &mut settle)
    }

    fn drive(
        &mut self,
        next: Next<'_>,
        goal: Goal,
        done: &mut dyn FnMut(&mut Tally, Asked),
    ) -> Result<()> {
        let mut heard_at = clock::now();
        loop {
            let now = clock::now();
            if let Goal::Measure { until } = goal
                && now >= until
            {
                return Ok(());
            }
            for client in &mut self.clients {
                client.ask_again(goal, now, &mut self.tally)?;
                client.ask_rest(&mut self.tally)?;
                if self.numbered {
                    client.ask_groups(self.chunks_per_client, next, now, &mut self.tally)?;
                } else {
                    while client.asked.len() < self.chunks_per_client
                        && let Some((chunk, verify)) = next()
                    {
                        client.ask(chunk, verify, goal, now, &mut self.tally)?;
                    }
                }
                client.lane.flush()?;
            }
            if self.clients.iter().all(|client| client.asked.is_empty()) {
                return Ok(());
            }
            let fds: Vec<BorrowedFd<'_>> =
                self.clients.iter().map(|client| client.lane.fd()).collect();
            lane::wait(&fds, LOST_AFTER)?;
            let before = self.tally.datagrams;
            for client in &mut self.clients {
                client.hear(&mut self.inbox, &mut self.tally, done)?;
            }
            let now = clock::now();
            if self.tally.datagrams > before {
                heard_at = now;
            } else if now.saturating_duration_since(heard_at) > SILENCE_MAX {
                bail!("the edge has sent nothing for {} s", SILENCE_MAX.as_secs());
            }
        }
    }
}

impl Client {
    fn ask(
        &mut self,
        chunk: Chunk,
        verify: bool,
        goal: Goal,
        now: Instant,
        tally: &mut Tally,
    ) -> Result<()> {
        let mut asked = self.noted(chunk, verify, now)?;
        match goal {
            Goal::Fetch => {
                let first_burst = !u128::MAX.unbounded_shl(u32::from(self.lane.max_burst));
                asked.held_back = asked.missing & !first_burst;
            }
            Goal::Touch => asked.missing = 1,
            Goal::Measure { .. } => {}
        }
        want(&mut self.lane, &asked, tally)?;
        self.asked.push(asked);
        Ok(())
    }

    /// The rest of each chunk of which something has come by now.
    fn ask_rest(&mut self, tally: &mut Tally) -> Result<()> {
        for asked in &mut self.asked {
            if asked.begun {
                let rest = std::mem::take(&mut asked.held_back);
                want_set(&mut self.lane, asked.chunk.id, rest, tally)?;
            }
        }
        Ok(())
    }

    fn noted(&self, chunk: Chunk, verify: bool, now: Instant) -> Result<Asked> {
        let geometry = Geometry::new(chunk.bytes, self.lane.segment_bytes)
            .context("the edge's segments do not fit the chunk")?;
        Ok(Asked {
            chunk,
            missing: geometry.all(),
            held_back: 0,
            begun: false,
            first_at: now,
            last_at: now,
            bytes: verify.then(|| vec![0; chunk.bytes as usize]),
        })
    }

    /// Whole groups of a ceiling's chunks, each for one request.
    fn ask_groups(
        &mut self,
        most: usize,
        next: Next<'_>,
        now: Instant,
        tally: &mut Tally,
    ) -> Result<()> {
        while self.asked.len() + GROUP_CHUNKS as usize <= most {
            let mut first = None;
            for _ in 0..GROUP_CHUNKS {
                let Some((chunk, _)) = next() else {
                    return Ok(());
                };
                first.get_or_insert(chunk.id);
                let asked = self.noted(chunk, false, now)?;
                self.asked.push(asked);
            }
            let first = first.context("a group has chunks")?;
            self.lane.get(first, GROUP)?;
            tally.requests += 1;
        }
        Ok(())
    }

    fn ask_again(&mut self, goal: Goal, now: Instant, tally: &mut Tally) -> Result<()> {
        for asked in &mut self.asked {
            let waits = match goal {
                Goal::Fetch | Goal::Touch if !asked.begun => FETCHED_WITHIN,
                Goal::Fetch | Goal::Touch | Goal::Measure { .. } => LOST_AFTER,
            };
            if now.saturating_duration_since(asked.last_at) > waits {
                asked.last_at = now;
                tally.repeats += 1;
                want(&mut self.lane, asked, tally)?;
            }
        }
        Ok(())
    }

    fn hear(
        &mut self,
        inbox: &mut Inbox,
        tally: &mut Tally,
        done: &mut dyn FnMut(&mut Tally, Asked),
    ) -> Result<()> {
        let now = clock::now();
        let segment_bytes = self.lane.segment_bytes;
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

/// GETs for all that is missing, a burst each.
fn want(lane: &mut Lane, asked: &Asked, tally: &mut Tally) -> Result<()> {
    want_set(
        lane,
        asked.chunk.id,
        asked.missing & !asked.held_back,
        tally,
    )
}

fn want_set(lane: &mut Lane, id: ChunkId, mut rest: u128, tally: &mut Tally) -> Result<()> {
    while rest != 0 {
        let mut burst = 0_u128;
        for _ in 0..lane.max_burst {
            burst |= rest & rest.wrapping_neg();
            rest &= rest.wrapping_sub(1);
        }
        lane.get(id, burst)?;
        tally.requests += 1;
    }
    Ok(())
}

/// Puts a datagram where it belongs; gives the place of a chunk that is now complete.
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
    // A repetition of what has come meanwhile is nothing strange.
    let (place, asked) = asked
        .iter_mut()
        .enumerate()
        .find(|(_, asked)| asked.chunk.id.tag() == data.tag)?;
    let start = data.place(payload.len(), segment_bytes);
    let bit = 1_u128.checked_shl(u32::from(data.index)).unwrap_or(0);
    let Some(start) = start.filter(|_| data.chunk_bytes == asked.chunk.bytes) else {
        tally.strange += 1;
        return None;
    };
    if asked.missing & bit == 0 {
        return None;
    }
    asked.missing &= !bit;
    asked.last_at = now;
    asked.begun = true;
    tally.bytes += payload.len() as u64;
    if let Some(bytes) = &mut asked.bytes {
        bytes[start..start + payload.len()].copy_from_slice(payload);
    }
    (asked.missing == 0).then_some(place)
}

fn settle(tally: &mut Tally, asked: Asked) {
    tally.chunks += 1;
    tally.latency(clock::now().saturating_duration_since(asked.first_at));
    if let Some(bytes) = asked.bytes {
        let right = id_of(&bytes) == asked.chunk.id;
        tally.verified += u64::from(right);
        tally.wrong += u64::from(!right);
    }
}

fn is_nack(datagram: &[u8]) -> bool {
    datagram.starts_with(&opening(Kind::Nack))
}
