//! A reader at the mercy of its edge. The input is what the edge, the network and the clock do;
//! what the reader does is watched: which edge it contacts, what and how much it asks for, what it
//! accepts. When the input ends, an honest edge takes over, and the transfer must come to an end.
//!
//! Input: which object, then one step after another (`Play::step`).

use std::collections::{HashSet, VecDeque};
use std::convert::Infallible;
use std::sync::LazyLock;
use std::time::Duration;

use edge_ebpf::wire::ChunkId;
use edge_user::client::handshake::DATAGRAM_BYTES_MAX;
use edge_user::client::transfer::{Action, Complete, Transfer};
use edge_user::object::ticket::PublicTicket;
use edge_user::object::tree::{Builder, Shape, id_of};
use sha2::{Digest as _, Sha256};

use crate::input::Input;

const CHUNK_BYTES: usize = 131_072;
/// What the receive buffer is said to hold, so what may be under way at most.
const HELD: u32 = 64;
/// Longer than any wait that a reader allows an edge.
const PATIENCE: Duration = Duration::from_mins(5);
/// Actions that the honest end may take: every segment by itself and several times over.
const ACTIONS_MAX: u32 = 50_000;

/// An object by its chunks.
struct Object {
    ticket: PublicTicket,
    chunks: Vec<(ChunkId, Vec<u8>)>,
    /// How often something must be accepted until it is done.
    places: u64,
}

impl Object {
    fn of(size: usize, data: Vec<Vec<u8>>) -> Self {
        let mut chunks: Vec<(ChunkId, Vec<u8>)> = Vec::new();
        let mut builder = Builder::default();
        let mut keep = |id, bytes| {
            chunks.push((id, bytes));
            Ok::<_, Infallible>(())
        };
        for bytes in data {
            let id = id_of(&bytes);
            let Ok(()) = keep(id, bytes);
            let Ok(()) = builder.push(id, &mut keep);
        }
        let Ok(root) = builder.finish(&mut keep);
        let shape = Shape::of(size as u64).expect("small");
        let places = shape.data_chunks() + shape.index_chunks();
        Self {
            ticket: PublicTicket::new(shape, root).expect("a root"),
            chunks,
            places,
        }
    }

    /// Bytes in which no block is like another.
    fn plain(size: usize) -> Self {
        let words = (1_u64..).flat_map(|word| {
            let word = word.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
            word.to_be_bytes()
        });
        let bytes: Vec<u8> = words.take(size).collect();
        Self::of(
            size,
            bytes.chunks(CHUNK_BYTES).map(<[u8]>::to_vec).collect(),
        )
    }

    fn chunk(&self, id: &[u8]) -> Option<&[u8]> {
        let found = self.chunks.iter().find(|(known, _)| known.0 == id);
        found.map(|(_, bytes)| bytes.as_slice())
    }
}

static OBJECTS: LazyLock<Vec<Object>> = LazyLock::new(|| {
    let mut objects: Vec<_> = [0, 1, 1216, 5000, CHUNK_BYTES, CHUNK_BYTES + 1, 300_000]
        .map(Object::plain)
        .into();
    // Crafted: an index that lists one chunk three times.
    objects.push(Object::of(3 * CHUNK_BYTES, vec![vec![7; CHUNK_BYTES]; 3]));
    objects
});

/// A GET that went out, as the edge reads it.
#[derive(Clone)]
struct Asked {
    id: Vec<u8>,
    want: u128,
    cookie: Vec<u8>,
}

/// What the edge told in the WELCOME that counts.
#[derive(Clone, Copy)]
struct Told {
    segment_bytes: u16,
    max_burst: u8,
}

struct Play {
    object: &'static Object,
    transfer: Transfer,
    now: Duration,
    /// Until when the reader said it would wait.
    wake: Duration,
    hello: Vec<u8>,
    gets: VecDeque<Asked>,
    /// WELCOMEs that may have been believed, by cookie.
    told: Vec<([u8; 8], Told)>,
    unchecked: VecDeque<Complete>,
    accepted: HashSet<(usize, u64)>,
    /// Segments asked for, and actions taken, since anything last happened to the reader.
    asked_at_once: u32,
    actions: u32,
    last: Vec<u8>,
    /// The reader's own network lets nothing out.
    down: bool,
    over: bool,
}

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    let object = &OBJECTS[usize::from(input.byte()) % OBJECTS.len()];
    let mut play = Play {
        object,
        transfer: Transfer::new(&object.ticket, [7; 32], None),
        now: Duration::ZERO,
        wake: Duration::ZERO,
        hello: Vec::new(),
        gets: VecDeque::new(),
        told: Vec::new(),
        unchecked: VecDeque::new(),
        accepted: HashSet::new(),
        asked_at_once: 0,
        actions: 0,
        last: Vec::new(),
        down: false,
        over: false,
    };
    play.act();
    while !input.is_empty() && !play.over {
        play.step(&mut input);
        play.act();
    }
    play.come_to_an_end();
}

impl Play {
    /// One thing that happens to the reader.
    fn step(&mut self, input: &mut Input<'_>) {
        let what = input.byte();
        if what == u8::MAX {
            self.down = !self.down;
            return self.happened();
        }
        match what % 12 {
            0 => self.pass(Duration::from_millis(input.byte().into())),
            1 => self.pass(Duration::from_millis(input.u16().into())),
            2 => self.pass(self.wake.saturating_sub(self.now)),
            3 => {
                let told = Told {
                    segment_bytes: 1216,
                    max_burst: 53,
                };
                self.welcome(told, 120, *b"a cookie");
            }
            4 => {
                let [burst, lifetime, cookie] = input.array();
                let told = Told {
                    segment_bytes: 1000 + input.u16() % 512,
                    max_burst: burst,
                };
                self.welcome(told, lifetime.into(), [cookie; 8]);
            }
            5 => self.answer(1),
            6 => self.answer(usize::from(input.byte())),
            7 => {
                // One segment, with one byte of it altered.
                let (at, change) = (input.u16(), input.byte());
                if let Some(mut datagram) = self.segments(1).pop() {
                    let at = usize::from(at) % datagram.len();
                    datagram[at] ^= change;
                    self.hear(&datagram);
                }
            }
            8 => self.nack(input),
            9 => {
                let len = usize::from(input.byte());
                self.hear(input.up_to(len));
            }
            10 => self.hear(&self.last.clone()),
            _ => self.check(),
        }
    }

    fn pass(&mut self, time: Duration) {
        self.now += time;
        self.happened();
    }

    /// The reader may act again.
    fn happened(&mut self) {
        self.asked_at_once = 0;
        self.actions = 0;
    }

    fn hear(&mut self, datagram: &[u8]) {
        self.happened();
        self.last = datagram.to_vec();
        self.transfer.on_datagram(self.now, datagram);
    }

    /// The WELCOME to the latest HELLO.
    fn welcome(&mut self, told: Told, lifetime_seconds: u16, cookie: [u8; 8]) {
        if self.hello.len() < 16 {
            return;
        }
        let mut bytes = vec![0; self.hello.len()];
        bytes[..2].copy_from_slice(&[0xed, 0x12]);
        bytes[2..4].copy_from_slice(&told.segment_bytes.to_be_bytes());
        bytes[4] = told.max_burst;
        bytes[6..8].copy_from_slice(&lifetime_seconds.to_be_bytes());
        bytes[8..16].copy_from_slice(&self.hello[8..16]);
        bytes[24..32].copy_from_slice(&cookie);
        self.told.push((cookie, told));
        self.hear(&bytes);
    }

    /// Up to this many DATA datagrams of what was asked for first, which is then forgotten.
    fn segments(&mut self, count: usize) -> Vec<Vec<u8>> {
        let mut out = Vec::new();
        let Some(told) = self.told.last().map(|(_, told)| *told) else {
            return out;
        };
        while out.len() < count
            && let Some(asked) = self.gets.front_mut()
        {
            let index = asked.want.trailing_zeros();
            if index == 128 {
                self.gets.pop_front();
                continue;
            }
            asked.want &= asked.want - 1;
            let chunk = self
                .object
                .chunk(&asked.id)
                .expect("looked at when it was asked");
            let full = usize::from(told.segment_bytes.max(1));
            let start = index as usize * full;
            let payload = chunk.get(start..chunk.len().min(start + full));
            let Some(payload) = payload else { continue };
            let index = u8::try_from(index).expect("below 128");
            let last = u8::try_from((chunk.len() - 1) / full).expect("below 256");
            let len = u32::try_from(chunk.len()).expect("a chunk");
            let header = [
                &[0xed, 0x14, index, last],
                &len.to_be_bytes()[..],
                &asked.id[..8],
            ];
            out.push([&header.concat(), payload].concat());
        }
        out
    }

    fn answer(&mut self, count: usize) {
        for datagram in self.segments(count) {
            self.hear(&datagram);
        }
    }

    fn nack(&mut self, input: &mut Input<'_>) {
        let (code, retry_ms) = (input.byte(), input.u32());
        let Some(asked) = self.gets.pop_front() else {
            return;
        };
        let mut bytes = vec![0xed, 0x15, code, 0];
        bytes.extend(retry_ms.to_be_bytes());
        bytes.extend(&asked.id[..8]);
        bytes.extend(&asked.cookie);
        self.hear(&bytes);
    }

    /// What the reader's second thread does.
    fn check(&mut self) {
        let Some(complete) = self.unchecked.pop_front() else {
            return;
        };
        self.happened();
        let wanted = *complete.wanted();
        match complete.verify() {
            Err(complete) => self.transfer.reject(complete),
            Ok((wanted_too, chunk)) => {
                assert_eq!(wanted, wanted_too);
                assert_eq!(Sha256::digest(chunk.bytes()).as_slice(), wanted.id.0);
                assert_eq!(chunk.bytes().len(), wanted.chunk_bytes as usize);
                assert!(self.object.chunk(&wanted.id.0).is_some(), "a strange chunk");
                let place = (wanted.place.level, wanted.place.index);
                assert!(self.accepted.insert(place), "{place:?} came twice");
                if wanted.place.level > 0 {
                    self.transfer.accept_index(&wanted, chunk);
                } else {
                    self.transfer.accept_data(&wanted, chunk.into_bytes());
                }
            }
        }
    }

    /// Lets the reader do what it wants to do now.
    fn act(&mut self) {
        let mut out = [0; DATAGRAM_BYTES_MAX];
        while !self.over {
            self.actions += 1;
            // A chunk each for 64 buffers, a GET each for 64 segments, a HELLO.
            assert!(self.actions < 200, "the reader does not come to rest");
            match self.transfer.act(self.now, self.now, &mut out) {
                Action::Open | Action::Send(_) if self.down => self.transfer.send_failed(self.now),
                Action::Open => {
                    // What was on its way to the old port is heard by nobody.
                    self.gets.clear();
                    self.hello.clear();
                    self.transfer.opened(HELD);
                }
                Action::Send(len) => self.sent(&out[..len]),
                Action::Verify(complete) => self.unchecked.push_back(complete),
                Action::Wait(until) => {
                    assert!(until > self.now, "a wait that is no wait");
                    self.wake = until;
                    return;
                }
                Action::Done => {
                    assert_eq!(self.accepted.len() as u64, self.object.places);
                    self.over = true;
                }
                Action::Failed(failure) => {
                    assert_eq!(failure.to_string().lines().count(), 1);
                    self.over = true;
                }
            }
        }
    }

    /// A datagram of the reader: a HELLO or a GET, and a good one.
    fn sent(&mut self, datagram: &[u8]) {
        assert_eq!(datagram[0], 0xed);
        if datagram[1] == 0x11 {
            assert!((1200..=1456).contains(&datagram.len()));
            let padding = [&datagram[2..8], &datagram[16..]].concat();
            assert!(padding.iter().all(|byte| *byte == 0));
            self.hello = datagram.to_vec();
            return;
        }
        assert_eq!((datagram[1], datagram.len()), (0x13, 64));
        let (cookie, id) = (&datagram[8..16], &datagram[16..48]);
        let told = self.told.iter().rev().find(|(given, _)| given == cookie);
        assert!(told.is_some(), "a cookie that nobody gave");
        let chunk = self.object.chunk(id).expect("a chunk of this object");
        let want = u128::from_be_bytes(datagram[48..].try_into().expect("16 bytes"));
        let fits = |(given, told): &([u8; 8], Told)| {
            let full = usize::from(told.segment_bytes.max(1));
            let last = (chunk.len() - 1) / full;
            given == cookie
                && want.count_ones() <= told.max_burst.into()
                && want
                    .checked_shr(u32::try_from(last + 1).expect("small"))
                    .unwrap_or(0)
                    == 0
        };
        assert!(want != 0, "asks for nothing");
        assert!(self.told.iter().any(fits), "asks for more than it may");
        self.asked_at_once += want.count_ones();
        assert!(self.asked_at_once <= HELD, "asks for more than it can hold");
        self.gets.push_back(Asked {
            id: id.to_vec(),
            want,
            cookie: cookie.to_vec(),
        });
    }

    /// From here on the edge is honest, and the network good.
    fn come_to_an_end(&mut self) {
        self.down = false;
        let end = self.now + PATIENCE;
        for _ in 0..ACTIONS_MAX {
            if self.over {
                return;
            }
            if !self.unchecked.is_empty() {
                self.check();
            } else if !self.hello.is_empty() {
                let told = Told {
                    segment_bytes: 1216,
                    max_burst: 53,
                };
                self.welcome(told, 120, *b"honestly");
                self.hello.clear();
            } else if self.gets.is_empty() {
                self.pass(self.wake.saturating_sub(self.now));
            } else {
                self.answer(53);
            }
            self.act();
            assert!(self.now < end, "no end at {:?}", self.now);
        }
        panic!("no end after {ACTIONS_MAX} steps");
    }
}
