//! An edge with configurable faults. Pure: a datagram in, its replies out.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use edge_ebpf::wire::{
    ChunkId, Cookie, DataHeader, GET_BYTES, Geometry, Get, HELLO_BYTES_MAX, HELLO_BYTES_MIN,
    HELLO_HEADER_BYTES, Hello, Kind, NackCode, Welcome, opening,
};
use edge_testbed::fake_edge::{nack, padded};
use sha2::{Digest, Sha256};

/// By default, a correct edge.
pub(crate) struct Faults {
    pub(crate) segment_bytes: u16,
    pub(crate) max_burst: u8,
    pub(crate) lifetime_seconds: u16,
    /// Version in its WELCOME; anything but 1 comes without a cookie.
    pub(crate) version: u8,
    /// HELLOs that go unanswered, counted down.
    pub(crate) dropped_hellos: u32,
    /// Nothing is answered any more after this many GETs.
    pub(crate) dies_after: u64,
    /// GETs that go unanswered, counted down.
    pub(crate) dropped_gets: u32,
    /// GETs that are refused with this code, counted down.
    pub(crate) refusals: u32,
    pub(crate) refusal: NackCode,
    pub(crate) retry_ms: u32,
    /// Restarts after these GETs: each is lost, and segments have this size from then on. Cookies
    /// stay good.
    pub(crate) restarts: Vec<(u64, u16)>,
    /// Data of these chunks is altered, as often as it says.
    pub(crate) altered: HashMap<ChunkId, u32>,
    /// Forged DATA in front of each true one.
    pub(crate) forges: bool,
    /// NACKs with a wrong echo in front of each answer.
    pub(crate) forges_nacks: bool,
    /// Cookies older than this many GETs are refused.
    pub(crate) cookie_gets: u32,
    /// Every WELCOME states another segment size; a GET gets one segment, and its cookie is refused.
    pub(crate) unstable: bool,
    /// How long the first GET for a chunk waits for the origin.
    pub(crate) fill: Duration,
}

impl Default for Faults {
    fn default() -> Self {
        Self {
            segment_bytes: 1216,
            max_burst: 53,
            lifetime_seconds: 240,
            version: 1,
            dropped_hellos: 0,
            dies_after: u64::MAX,
            dropped_gets: 0,
            refusals: 0,
            refusal: NackCode::Pending,
            retry_ms: 50,
            restarts: Vec::new(),
            altered: HashMap::new(),
            forges: false,
            forges_nacks: false,
            cookie_gets: u32::MAX,
            unstable: false,
            fill: Duration::ZERO,
        }
    }
}

pub(crate) struct Edge {
    pub(crate) faults: Faults,
    chunks: HashMap<ChunkId, Vec<u8>>,
    /// Cookies are as good as their number.
    epoch: u32,
    gets_with_cookie: u32,
    pub(crate) gets: u64,
    /// Lengths of the HELLOs that came, and the ports they came from.
    pub(crate) hellos: Vec<usize>,
    pub(crate) ports: HashSet<u16>,
    /// Chunks on their way from the origin, with the last GET of each waiter.
    filling: HashMap<ChunkId, HashMap<u16, Get>>,
    filled: HashSet<ChunkId>,
    /// Fills that began since somebody looked.
    pub(crate) began: Vec<ChunkId>,
}

impl Edge {
    pub(crate) fn new(chunks: HashMap<ChunkId, Vec<u8>>, faults: Faults) -> Self {
        Self {
            faults,
            chunks,
            epoch: 1,
            gets_with_cookie: 0,
            gets: 0,
            hellos: Vec::new(),
            ports: HashSet::new(),
            filling: HashMap::new(),
            filled: HashSet::new(),
            began: Vec::new(),
        }
    }

    fn cookie(port: u16, epoch: u32) -> Cookie {
        let digest = Sha256::digest([&port.to_be_bytes()[..], &epoch.to_be_bytes()].concat());
        Cookie {
            epoch,
            value: digest[..8].try_into().unwrap(),
        }
    }

    pub(crate) fn answer(&mut self, port: u16, datagram: &[u8]) -> Vec<Vec<u8>> {
        if self.gets > self.faults.dies_after {
            return Vec::new();
        }
        if datagram[..2] == opening(Kind::Hello) {
            self.answer_hello(port, datagram)
        } else {
            assert_eq!(
                datagram[..2],
                opening(Kind::Get),
                "clients send nothing else"
            );
            let get: &[u8; GET_BYTES] = datagram.try_into().expect("a GET of its exact size");
            self.answer_get(port, &Get::decode(get).unwrap())
        }
    }

    fn answer_hello(&mut self, port: u16, datagram: &[u8]) -> Vec<Vec<u8>> {
        let faults = &mut self.faults;
        self.hellos.push(datagram.len());
        self.ports.insert(port);
        assert!(
            datagram[HELLO_HEADER_BYTES..].iter().all(|byte| *byte == 0),
            "padding is zero"
        );
        if !(HELLO_BYTES_MIN..=HELLO_BYTES_MAX).contains(&datagram.len()) {
            return Vec::new();
        }
        if faults.dropped_hellos > 0 {
            faults.dropped_hellos -= 1;
            return Vec::new();
        }
        let hello = Hello::decode(datagram.first_chunk().unwrap()).unwrap();
        self.epoch += 1;
        self.gets_with_cookie = 0;
        if faults.unstable {
            faults.segment_bytes ^= 1;
        }
        let welcome = Welcome {
            segment_bytes: faults.segment_bytes,
            max_burst: faults.max_burst,
            lifetime_seconds: faults.lifetime_seconds,
            nonce: hello.nonce,
            cookie: if faults.version == 1 {
                Self::cookie(port, self.epoch)
            } else {
                Cookie::default()
            },
        };
        let mut out = padded(&welcome, datagram.len());
        out[1] = faults.version << 4 | Kind::Welcome as u8;
        vec![out]
    }

    /// The origin has given a chunk: answers, with the port each goes to.
    pub(crate) fn fill(&mut self, id: ChunkId) -> Vec<(u16, Vec<u8>)> {
        self.filled.insert(id);
        let waiters = self.filling.remove(&id).unwrap_or_default();
        waiters
            .into_iter()
            .flat_map(|(port, get)| self.data(&get).into_iter().map(move |out| (port, out)))
            .collect()
    }

    fn answer_get(&mut self, port: u16, get: &Get) -> Vec<Vec<u8>> {
        self.gets += 1;
        assert_ne!(get.want, 0, "a GET asks for something");
        let faults = &mut self.faults;
        let nack = |code, retry_ms| vec![nack(get, code, retry_ms, get.cookie.value)];
        let gets = self.gets;
        let due = faults.restarts.iter().position(|(at, _)| *at == gets);
        if let Some((_, segment_bytes)) = due.map(|due| faults.restarts.remove(due)) {
            faults.segment_bytes = segment_bytes;
            return Vec::new();
        }
        self.gets_with_cookie += 1;
        if get.cookie.epoch > self.epoch
            || get.cookie != Self::cookie(port, get.cookie.epoch)
            || self.gets_with_cookie > faults.cookie_gets
        {
            return nack(NackCode::Cookie, 0);
        }
        if faults.dropped_gets > 0 {
            faults.dropped_gets -= 1;
            return Vec::new();
        }
        if faults.refusals > 0 {
            faults.refusals -= 1;
            return nack(faults.refusal, faults.retry_ms);
        }
        if !self.chunks.contains_key(&get.id) {
            return nack(NackCode::Absent, 0);
        }
        if faults.fill > Duration::ZERO && !self.filled.contains(&get.id) {
            if !self.filling.contains_key(&get.id) {
                self.began.push(get.id);
            }
            // One waiter per port and chunk: a later GET takes the place of an earlier one.
            self.filling.entry(get.id).or_default().insert(port, *get);
            return nack(NackCode::Pending, 250);
        }
        if faults.unstable {
            let mut out = self.data(get);
            out.truncate(1);
            out.extend(nack(NackCode::Cookie, 0));
            return out;
        }
        self.data(get)
    }

    fn data(&mut self, get: &Get) -> Vec<Vec<u8>> {
        let faults = &mut self.faults;
        let mut bytes = self.chunks[&get.id].clone();
        if let Some(times) = faults.altered.get_mut(&get.id).filter(|times| **times > 0)
            && get.want & 1 == 1
        {
            *times -= 1;
            bytes[0] ^= 1;
        }
        let mut out = Vec::new();
        if faults.forges_nacks {
            for code in [
                NackCode::Absent,
                NackCode::Range,
                NackCode::Cookie,
                NackCode::Busy,
            ] {
                out.push(nack(get, code, 0, *b"guessed!"));
            }
        }
        let chunk_bytes = u32::try_from(bytes.len()).unwrap();
        let geometry = Geometry::new(chunk_bytes, faults.segment_bytes).unwrap();
        let wanted = (0..=geometry.last).filter(|index| get.want >> index & 1 == 1);
        for index in wanted.take(faults.max_burst.into()) {
            let (start, len) = geometry.segment(index).unwrap();
            let header = DataHeader {
                index,
                last: geometry.last,
                chunk_bytes,
                tag: get.id.tag(),
            };
            let payload = &bytes[start..start + len];
            let datagram =
                |header: DataHeader, payload: &[u8]| [&header.encode()[..], payload].concat();
            if faults.forges {
                let junk = vec![0x55; len];
                out.push(datagram(
                    DataHeader {
                        tag: *b"another!",
                        ..header
                    },
                    &junk,
                ));
                out.push(datagram(
                    DataHeader {
                        chunk_bytes: 131_071,
                        ..header
                    },
                    &junk[1..],
                ));
                out.push(datagram(
                    DataHeader {
                        last: 200,
                        ..header
                    },
                    &junk,
                ));
                out.push(datagram(header, &junk[..len / 2]));
                out.push(junk);
                out.push(Vec::new());
            }
            out.push(datagram(header, payload));
        }
        out
    }
}
