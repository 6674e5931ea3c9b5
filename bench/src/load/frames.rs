//! Single segments, requested from many source addresses, bypassing the kernel: requests are frames
//! built here, and replies come from an AF_XDP ring.

use std::collections::VecDeque;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use edge_ebpf::frame::{Address, Endpoint, Family, Frame, Tags, UDP_BYTES};
use edge_ebpf::rewrite::{headers, payload_sum};
use edge_ebpf::wire::{
    ChunkId, Cookie, DATA_HEADER_BYTES, DataHeader, GET_BYTES, Geometry, Get, HELLO_HEADER_BYTES,
    Hello, SEGMENT_BYTES_DEFAULT, WELCOME_HEADER_BYTES, Welcome,
};
use edge_testbed::pace::{Pace, Schedule};
use edge_user::client::handshake::HELLO_BYTES_DEFAULT;
use edge_user::clock;
use edge_user::limits::BATCH;
use edge_user::object::tree::id_of;
use edge_user::sys::xsk::{Xsk, XskSizes};
use hashbrown::HashMap;
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use super::bulk::VERIFIED_ONE_IN;
use super::catalogue::Chunk;
use super::mix::Picker;
use super::tally::Tally;
use crate::memory::memory;
use crate::program::{Action, Program, Rule};

/// Ethernet, IPv4 and UDP.
const HEADERS_BYTES: usize = 42;
const IP_AT: usize = 14;
const UDP_AT: usize = 34;
/// Sources share addresses, each with a port of its own.
const PORTS_PER_ADDRESS: u32 = 256;
const FIRST_PORT: u16 = 20_000;
/// Requests without a reply by then count as lost.
const LOST_AFTER: Duration = Duration::from_millis(100);
/// How long the rest of a sampled chunk may take.
const COMPLETE_WITHIN: Duration = Duration::from_secs(2);
const SAMPLES_MAX: u64 = 64;
const HANDSHAKE_WITHIN: Duration = Duration::from_secs(20);

/// More frames than are ever in flight.
const SIZES: XskSizes = XskSizes {
    frame_bytes: 4096,
    rx_frames: 4096,
    tx_frames: 4096,
    fill_ring: 8192,
    rx_ring: 4096,
    tx_ring: 4096,
    completion_ring: 4096,
};

/// The path of requests and replies.
#[derive(Clone, Debug)]
pub struct Way {
    pub interface: String,
    pub programs: PathBuf,
    pub edge: Endpoint,
    pub edge_mac: [u8; 6],
    pub own_mac: [u8; 6],
    /// The first two bytes of the source addresses; replies to them all reach this process.
    pub net: [u8; 2],
    pub sources: u32,
}

impl Way {
    fn source(&self, number: u32) -> Endpoint {
        let [high, low] = self.net;
        // From .0.1 on: .0.0 is the address of the network itself.
        let [_, _, third, fourth] = (number / PORTS_PER_ADDRESS + 1).to_be_bytes();
        let offset = (number % PORTS_PER_ADDRESS) as u16;
        Endpoint {
            address: Address::v4([high, low, third, fourth]),
            port: FIRST_PORT + offset,
        }
    }

    /// The source that a frame is addressed to.
    fn number(&self, frame: &[u8]) -> Option<u32> {
        let [third, fourth] = *frame.get(32..)?.first_chunk()?;
        let port = u16::from_be_bytes(*frame.get(36..)?.first_chunk()?);
        let offset = u32::from(port.checked_sub(FIRST_PORT)?);
        let address = u32::from(u16::from_be_bytes([third, fourth])).checked_sub(1)?;
        let number = address * PORTS_PER_ADDRESS + offset;
        (offset < PORTS_PER_ADDRESS && number < self.sources).then_some(number)
    }

    /// Writes a frame from a source to the edge with this payload; returns its length.
    fn write(&self, room: &mut [u8], source: Endpoint, payload: &[u8], len_bytes: usize) -> usize {
        // `headers` reverses a packet's direction, so it is given the reply's.
        let udp_bytes = u16::try_from(len_bytes + UDP_BYTES).expect("a datagram of ours");
        let back = Frame {
            family: Family::V4,
            tags: Tags::UNTAGGED,
            ip_at: IP_AT,
            udp_at: UDP_AT,
            ip_payload_bytes: udp_bytes,
            udp_bytes,
            has_checksum: true,
            source: self.edge,
            destination: source,
        };
        room[..6].copy_from_slice(&self.own_mac);
        room[6..12].copy_from_slice(&self.edge_mac);
        room[12..14].copy_from_slice(&[0x08, 0x00]);
        room[14] = 0x45;
        let [.., a, b, c, d] = self.edge.address.bytes();
        room[26..30].copy_from_slice(&[a, b, c, d]);
        let [.., a, b, c, d] = source.address.bytes();
        room[30..34].copy_from_slice(&[a, b, c, d]);
        room[HEADERS_BYTES..][..payload.len()].copy_from_slice(payload);
        room[HEADERS_BYTES + payload.len()..HEADERS_BYTES + len_bytes].fill(0);
        let written = headers(room, &back, udp_bytes, payload_sum(payload));
        debug_assert!(written.is_some(), "a frame holds its headers");
        HEADERS_BYTES + len_bytes
    }
}

/// A request in flight.
#[derive(Clone, Copy, Debug)]
struct Asked {
    chunk: u32,
    index: u8,
    /// When it should have been sent: latency includes the wait until it was.
    due: Instant,
    number: u64,
}

/// Which replies count.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answers {
    /// DATA for the requested segment.
    Data,
    /// Any packet to the source: the ceiling does not parse requests.
    Any,
}

pub struct Frames {
    way: Way,
    xsk: Xsk,
    _program: Program,
    cookies: Vec<Cookie>,
    asked: Vec<Option<Asked>>,
    /// In order of sending, to find the lost ones.
    order: VecDeque<(u32, u64)>,
    under_way: usize,
    /// Maximum number in flight in a closed loop.
    pub window: usize,
    numbers: u64,
    next_source: u32,
    segment_bytes: u16,
    answers: Answers,
    /// Chunks that are reassembled to be verified.
    sampled: HashMap<u32, Sample>,
    random: SmallRng,
    pub tally: Tally,
}

struct Sample {
    bytes: Vec<u8>,
    missing: u128,
}

/// The kinds of datagrams in a flood.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Nuisance {
    Hello,
    /// GETs with guessed cookies.
    BadCookie,
    /// Random bytes.
    Junk,
    /// GETs without a cookie for nonexistent chunks.
    Unknown,
    /// GETs from a multicast station address, which the program drops at once.
    Group,
}

impl Nuisance {
    /// The payload, and the length it is padded to.
    fn payload(self, random: &mut SmallRng) -> (Vec<u8>, usize) {
        let get = |cookie, id| Get {
            cookie,
            id,
            want: u128::MAX,
        };
        match self {
            Self::Hello => {
                let nonce = random.random();
                (Hello { nonce }.encode().to_vec(), HELLO_BYTES_DEFAULT)
            }
            Self::BadCookie | Self::Group => {
                let cookie = Cookie {
                    epoch: edge_ebpf::cookie::epoch_at(clock::unix_seconds()),
                    value: random.random(),
                };
                let get = get(cookie, ChunkId(random.random()));
                (get.encode().to_vec(), GET_BYTES)
            }
            Self::Unknown => {
                let get = get(Cookie::default(), ChunkId(random.random()));
                (get.encode().to_vec(), GET_BYTES)
            }
            Self::Junk => (random.random::<[u8; GET_BYTES]>().to_vec(), GET_BYTES),
        }
    }
}

/// A bounded sample of the chunks is reassembled.
fn is_sampled(chunk: u32) -> bool {
    u64::from(chunk).is_multiple_of(VERIFIED_ONE_IN)
        && u64::from(chunk) < SAMPLES_MAX * VERIFIED_ONE_IN
}

impl Frames {
    /// Binds to the interface's queue 0; frames to the sources no longer reach the kernel.
    pub fn open(way: Way, answers: Answers) -> Result<Self> {
        let xsk = Xsk::new(memory(SIZES.umem_bytes())?, SIZES)?;
        let rule = Rule::Net(way.net);
        let mut program = Program::attach(&way.programs, &way.interface, Action::Redirect, rule)?;
        xsk.bind(&way.interface, 0)
            .with_context(|| format!("cannot bind queue 0 of {}", way.interface))?;
        program.set_socket(0, xsk.share_fd())?;
        let sources = way.sources as usize;
        Ok(Self {
            cookies: vec![Cookie::default(); sources],
            asked: vec![None; sources],
            order: VecDeque::with_capacity(sources),
            way,
            xsk,
            _program: program,
            under_way: 0,
            window: sources,
            numbers: 0,
            next_source: 0,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            answers,
            sampled: HashMap::new(),
            random: SmallRng::seed_from_u64(3),
            tally: Tally::default(),
        })
    }

    /// Gets a cookie for every source.
    pub fn handshake(&mut self) -> Result<()> {
        let mut waiting: VecDeque<u32> = (0..self.way.sources).collect();
        let mut answered = vec![false; self.way.sources as usize];
        let mut left = answered.len();
        let deadline = clock::now() + HANDSHAKE_WITHIN;
        let mut batch = Vec::with_capacity(BATCH as usize);
        while left > 0 {
            if clock::now() > deadline {
                bail!(
                    "{left} of {} sources got no WELCOME; is the edge running?",
                    answered.len()
                );
            }
            for _ in 0..BATCH {
                // Round-robin until each source has its WELCOME.
                let Some(number) = waiting.pop_front() else {
                    break;
                };
                if answered[number as usize] {
                    continue;
                }
                waiting.push_back(number);
                let Some(mut frame) = self.xsk.take_tx() else {
                    break;
                };
                let mut nonce = [0; 8];
                nonce[..4].copy_from_slice(&number.to_be_bytes());
                let hello = Hello { nonce }.encode();
                debug_assert_eq!(hello.len(), HELLO_HEADER_BYTES);
                let source = self.way.source(number);
                let room = self.xsk.tx_bytes(&mut frame);
                let len_bytes = self.way.write(room, source, &hello, HELLO_BYTES_DEFAULT);
                self.xsk.send(frame, len_bytes);
            }
            self.xsk.kick();
            self.xsk.receive(BATCH, &mut batch);
            for frame in batch.drain(..) {
                let Ok(frame) = frame else {
                    bail!("the kernel returned an invalid frame address");
                };
                let bytes = self.xsk.bytes(&frame);
                let welcome = bytes
                    .get(HEADERS_BYTES..)
                    .and_then(|payload| payload.first_chunk::<WELCOME_HEADER_BYTES>())
                    .and_then(|header| Welcome::decode(header).ok());
                if let (Some(number), Some(welcome)) = (self.way.number(bytes), welcome)
                    && !answered[number as usize]
                {
                    answered[number as usize] = true;
                    self.cookies[number as usize] = welcome.cookie;
                    self.segment_bytes = welcome.segment_bytes;
                    left -= 1;
                }
                self.xsk.recycle(frame);
            }
            self.xsk.refill();
        }
        Ok(())
    }

    /// Requests single segments for this time.
    pub fn run(
        &mut self,
        chunks: &[Chunk],
        picker: &mut Picker,
        pace: Pace,
        time: Duration,
    ) -> Result<()> {
        let begin = clock::now();
        let mut schedule = Schedule::new(pace, begin);
        loop {
            let now = clock::now();
            if now >= begin + time {
                self.tally.unasked = schedule.behind(now);
                return Ok(());
            }
            let before = (self.tally.requests, self.tally.datagrams);
            for _ in 0..BATCH {
                let due = schedule.next_due(now);
                let full = pace == Pace::Closed && self.under_way >= self.window;
                if due > now || full || !self.ask(chunks, picker.pick(), due)? {
                    break;
                }
                schedule.take();
                let waited = now.saturating_duration_since(due);
                self.tally.asked_after(waited);
            }
            if self.xsk.has_unsent() {
                self.xsk.kick();
            }
            self.receive(chunks)?;
            if before == (self.tally.requests, self.tally.datagrams) {
                self.tally.idle += clock::now().saturating_duration_since(now);
            }
            self.forget_lost(now);
        }
    }

    /// Requests one segment of this chunk from the next source. Returns false if that source still
    /// waits for a reply, or no frame is free.
    fn ask(&mut self, chunks: &[Chunk], chunk: usize, due: Instant) -> Result<bool> {
        let source = self.next_source;
        if self.asked[source as usize].is_some() {
            return Ok(false);
        }
        let geometry = Geometry::new(chunks[chunk].bytes, self.segment_bytes)
            .context("the edge's segments do not fit the chunk")?;
        let index = self.random.random_range(0..=geometry.last);
        let id = chunks[chunk].id;
        if !self.send_get(source, id, 1 << index) {
            return Ok(false);
        }
        self.next_source = (source + 1) % self.way.sources;
        self.numbers += 1;
        self.asked[source as usize] = Some(Asked {
            chunk: u32::try_from(chunk)?,
            index,
            due,
            number: self.numbers,
        });
        self.order.push_back((source, self.numbers));
        self.under_way += 1;
        self.tally.requests += 1;
        self.tally.segments += 1;
        Ok(true)
    }

    fn send_get(&mut self, source: u32, id: ChunkId, want: u128) -> bool {
        let Some(mut frame) = self.xsk.take_tx() else {
            return false;
        };
        let get = Get {
            cookie: self.cookies[source as usize],
            id,
            want,
        };
        let room = self.xsk.tx_bytes(&mut frame);
        let endpoint = self.way.source(source);
        let len_bytes = self.way.write(room, endpoint, &get.encode(), GET_BYTES);
        self.xsk.send(frame, len_bytes);
        true
    }

    fn receive(&mut self, chunks: &[Chunk]) -> Result<()> {
        let mut batch = Vec::with_capacity(BATCH as usize);
        self.xsk.receive(BATCH, &mut batch);
        if batch.is_empty() {
            return Ok(());
        }
        let now = clock::now();
        for frame in batch {
            let Ok(frame) = frame else {
                bail!("the kernel returned an invalid frame address");
            };
            self.tally.datagrams += 1;
            let bytes = self.xsk.bytes(&frame);
            if let Some(source) = self.way.number(bytes) {
                let payload = bytes.get(HEADERS_BYTES..).unwrap_or_default();
                if let Some(asked) = self.asked[source as usize] {
                    let chunk = &chunks[asked.chunk as usize];
                    let answer = match self.answers {
                        Answers::Any => Some(payload),
                        Answers::Data => data_of(payload, chunk, self.segment_bytes)
                            .filter(|(index, ..)| *index == asked.index)
                            .map(|(.., data)| data),
                    };
                    if let Some(data) = answer {
                        self.tally.bytes += data.len() as u64;
                        self.tally.chunks += 1;
                        self.tally.latency(now.saturating_duration_since(asked.due));
                        if self.answers == Answers::Data && is_sampled(asked.chunk) {
                            let segment_bytes = self.segment_bytes;
                            (self.sampled.entry(asked.chunk))
                                .or_insert_with(|| Sample::of(chunk, segment_bytes))
                                .take(chunk, payload, segment_bytes);
                        }
                        self.asked[source as usize] = None;
                        self.under_way -= 1;
                    } else {
                        self.tally.refused += 1;
                    }
                } else {
                    self.tally.strange += 1;
                }
            }
            self.xsk.recycle(frame);
        }
        self.xsk.refill();
        Ok(())
    }

    /// Removes requests that were answered or lost.
    fn forget_lost(&mut self, now: Instant) {
        while let Some((source, number)) = self.order.front().copied() {
            let asked = &mut self.asked[source as usize];
            match asked {
                Some(waiting) if waiting.number == number => {
                    if now.saturating_duration_since(waiting.due) < LOST_AFTER {
                        return;
                    }
                    *asked = None;
                    self.under_way -= 1;
                    self.tally.repeats += 1;
                    self.tally.overdue += 1;
                }
                Some(_) | None => {}
            }
            let _answered = self.order.pop_front();
        }
    }

    /// Sends a flood at this rate, or as fast as possible; replies are counted and dropped.
    pub fn flood(
        &mut self,
        nuisances: &[Nuisance],
        rate: Option<f64>,
        time: Duration,
    ) -> Result<()> {
        let begin = clock::now();
        let mut schedule = Schedule::new(rate.map_or(Pace::Closed, Pace::Open), begin);
        let mut batch = Vec::with_capacity(BATCH as usize);
        let mut count = 0_usize;
        loop {
            let now = clock::now();
            if now >= begin + time {
                return Ok(());
            }
            for _ in 0..BATCH {
                if schedule.next_due(now) > now {
                    break;
                }
                let Some(mut frame) = self.xsk.take_tx() else {
                    break;
                };
                schedule.take();
                let source = self.next_source;
                self.next_source = (source + 1) % self.way.sources;
                let room = self.xsk.tx_bytes(&mut frame);
                let endpoint = self.way.source(source);
                let nuisance = nuisances[count % nuisances.len()];
                let (payload, payload_bytes) = nuisance.payload(&mut self.random);
                let len_bytes = self.way.write(room, endpoint, &payload, payload_bytes);
                if nuisance == Nuisance::Group {
                    // An invalid source address: checked before anything else.
                    room[6] |= 1;
                }
                self.xsk.send(frame, len_bytes);
                count += 1;
                self.tally.requests += 1;
            }
            self.xsk.kick();
            self.xsk.receive(BATCH, &mut batch);
            self.tally.datagrams += batch.len() as u64;
            for frame in batch.drain(..).flatten() {
                self.xsk.recycle(frame);
            }
            self.xsk.refill();
        }
    }

    /// Completes the sampled chunks, and verifies each.
    pub fn verify(&mut self, chunks: &[Chunk]) -> Result<()> {
        let sampled = std::mem::take(&mut self.sampled);
        let mut batch = Vec::with_capacity(BATCH as usize);
        for (number, mut sample) in sampled {
            let chunk = chunks[number as usize];
            let deadline = clock::now() + COMPLETE_WITHIN;
            while sample.missing != 0 && clock::now() < deadline {
                self.send_get(0, chunk.id, sample.missing);
                self.xsk.kick();
                let again = clock::now() + LOST_AFTER / 10;
                while sample.missing != 0 && clock::now() < again {
                    self.xsk.receive(BATCH, &mut batch);
                    for frame in batch.drain(..) {
                        let Ok(frame) = frame else {
                            bail!("the kernel returned an invalid frame address");
                        };
                        let payload = self.xsk.bytes(&frame).get(HEADERS_BYTES..);
                        sample.take(&chunk, payload.unwrap_or_default(), self.segment_bytes);
                        self.xsk.recycle(frame);
                    }
                    self.xsk.refill();
                }
            }
            if sample.missing == 0 && id_of(&sample.bytes) == chunk.id {
                self.tally.verified += 1;
            } else {
                // A chunk that cannot be completed counts as wrong.
                self.tally.wrong += 1;
            }
        }
        Ok(())
    }
}

impl Sample {
    fn of(chunk: &Chunk, segment_bytes: u16) -> Self {
        let geometry = Geometry::new(chunk.bytes, segment_bytes);
        Self {
            bytes: vec![0; chunk.bytes as usize],
            missing: geometry.map_or(0, |geometry| geometry.all()),
        }
    }

    fn take(&mut self, chunk: &Chunk, payload: &[u8], segment_bytes: u16) {
        if let Some((index, start, data)) = data_of(payload, chunk, segment_bytes) {
            self.bytes[start..start + data.len()].copy_from_slice(data);
            self.missing &= !(1 << index);
        }
    }
}

/// Index, offset in the chunk and payload of a DATA datagram of this chunk.
fn data_of<'a>(
    payload: &'a [u8],
    chunk: &Chunk,
    segment_bytes: u16,
) -> Option<(u8, usize, &'a [u8])> {
    let (header, data) = payload.split_first_chunk::<DATA_HEADER_BYTES>()?;
    let header = DataHeader::decode(header).ok()?;
    if header.tag != chunk.id.tag() || header.chunk_bytes != chunk.bytes {
        return None;
    }
    let start = header.place(data.len(), segment_bytes)?;
    Some((header.index, start, data))
}

#[cfg(test)]
mod tests {
    use edge_ebpf::frame::{Parsed, parse};

    use super::*;

    #[test]
    fn a_frame_names_its_source_and_the_answer_finds_it_again() {
        let way = Way {
            interface: String::new(),
            programs: PathBuf::new(),
            edge: Endpoint {
                address: Address::v4([10, 71, 0, 1]),
                port: 7347,
            },
            edge_mac: [2, 0, 0, 0, 0, 1],
            own_mac: [2, 0, 0, 0, 0, 2],
            net: [10, 72],
            sources: 65_536,
        };
        for number in [0, 1, 255, 256, 65_535] {
            let source = way.source(number);
            let mut room = [0; 256];
            let len_bytes = way.write(&mut room, source, &[7; 64], 64);
            let Parsed::Udp(frame) = parse(&room[..len_bytes]) else {
                panic!("the edge reads it as UDP");
            };
            assert_eq!((frame.source, frame.destination), (source, way.edge));
            assert_eq!(room[..12], [way.edge_mac, way.own_mac].concat());
            assert_eq!(frame.payload_bytes(len_bytes), Some(64));
            // The reply: source and destination exchanged.
            edge_ebpf::rewrite::turn(&mut room[..len_bytes], &frame).unwrap();
            assert_eq!(way.number(&room[..len_bytes]), Some(number));
        }
        assert_eq!(way.number(&[0; 64]), None);
    }
}
