//! Malicious edges, and a reader at each. There is no honest edge.

use std::collections::HashMap;
use std::net::{SocketAddr, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use edge_ebpf::wire::{
    ChunkId, DATA_HEADER_BYTES, Geometry, Get, HELLO_HEADER_BYTES, Kind, NackCode,
    SEGMENT_BYTES_DEFAULT, Welcome,
};
use edge_testbed::{
    clock,
    fake_edge::{Asked, data, listen, nack, padded, welcome},
};

use super::Session;
use super::frames::lying;
use super::report::{Cost, Fetch, Row};
use super::tally::Amount;
use crate::reader::End;

/// Port of the first edge; the others follow.
const FIRST_PORT: u16 = 7400;
/// Interval at which an edge checks whether its reader has ended.
const TICK: Duration = Duration::from_millis(20);
/// A reader that receives something now and then does not time out.
const DRIBBLE: Duration = Duration::from_millis(2500);

/// A malicious edge; a row of the table defines it.
pub(super) struct MaliciousEdge {
    pub(super) name: &'static str,
    pub(super) does: &'static str,
    /// Its replies.
    answer: fn(&mut Edge<'_>, &Asked) -> Vec<Vec<u8>>,
    /// Whether the reader must succeed; otherwise it must fail with a message.
    whole: bool,
    /// Seconds after which it must have ended either way (docs/WIRE.md, "Client behaviour").
    within: u32,
}

#[rustfmt::skip] // one attack a line, as far as it goes
pub(super) const ATTACKS: &[MaliciousEdge] = &[
    MaliciousEdge { name: "edge-deaf", does: "never replies", answer: |_, _| Vec::new(), whole: false, within: 6 },
    MaliciousEdge { name: "edge-mute", does: "answers HELLOs, and no GETs", answer: greet_only, whole: false, within: 13 },
    MaliciousEdge { name: "edge-pending", does: "always replies PENDING", answer: |edge, asked| edge.refuse(asked, NackCode::Pending), whole: false, within: 36 },
    MaliciousEdge { name: "edge-busy", does: "always replies BUSY", answer: |edge, asked| edge.refuse(asked, NackCode::Busy), whole: false, within: 10 },
    MaliciousEdge { name: "edge-origin", does: "always replies ORIGIN", answer: |edge, asked| edge.refuse(asked, NackCode::Origin), whole: false, within: 10 },
    MaliciousEdge { name: "edge-cookie", does: "refuses every cookie it issued", answer: |edge, asked| edge.refuse(asked, NackCode::Cookie), whole: false, within: 5 },
    MaliciousEdge { name: "edge-range", does: "replies that chunks are shorter", answer: |edge, asked| edge.refuse(asked, NackCode::Range), whole: false, within: 5 },
    MaliciousEdge { name: "edge-in-turn", does: "replies PENDING, BUSY and ORIGIN in turn", answer: in_turn, whole: false, within: 36 },
    MaliciousEdge { name: "edge-segment-0", does: "WELCOME with segments of 0 bytes", answer: |edge, asked| edge.greet_with(asked, |to| to.segment_bytes = 0), whole: false, within: 5 },
    MaliciousEdge { name: "edge-segment-max", does: "WELCOME with segments of 65535 bytes", answer: |edge, asked| edge.greet_with(asked, |to| to.segment_bytes = u16::MAX), whole: false, within: 5 },
    MaliciousEdge { name: "edge-burst-0", does: "WELCOME with bursts of 0", answer: |edge, asked| edge.greet_with(asked, |to| to.max_burst = 0), whole: false, within: 5 },
    MaliciousEdge { name: "edge-burst-max", does: "WELCOME with bursts of 255", answer: |edge, asked| edge.greet_with(asked, |to| to.max_burst = 255), whole: false, within: 5 },
    MaliciousEdge { name: "edge-lifetime-0", does: "WELCOME with cookies valid for 0 s", answer: |edge, asked| edge.greet_with(asked, |to| to.lifetime_seconds = 0), whole: false, within: 5 },
    MaliciousEdge { name: "edge-version", does: "WELCOME of version 9", answer: other_version, whole: false, within: 5 },
    MaliciousEdge { name: "edge-wider", does: "asks for ever longer HELLOs", answer: wider, whole: false, within: 5 },
    MaliciousEdge { name: "edge-altered", does: "DATA with corrupt content", answer: altered, whole: false, within: 5 },
    MaliciousEdge { name: "edge-lengths", does: "DATA with false lengths", answer: lengths, whole: false, within: 13 },
    MaliciousEdge { name: "edge-port", does: "replies from another port", answer: |edge, asked| edge.answer_elsewhere(asked), whole: false, within: 6 },
    MaliciousEdge { name: "edge-dribble", does: "correct DATA, one segment per 2.5 s", answer: dribble, whole: true, within: 30 },
    MaliciousEdge { name: "edge-restart", does: "one segment, then another cookie and segment size", answer: restart, whole: false, within: 5 },
];

/// The state of such an edge.
struct Edge<'a> {
    chunks: &'a HashMap<ChunkId, Vec<u8>>,
    gets: u32,
    cookies: u8,
    segment_bytes: u16,
    /// When DATA was last sent.
    dribbled: Option<Instant>,
    /// The next reply leaves by another socket.
    elsewhere: bool,
}

impl Edge<'_> {
    fn greet_with(&mut self, asked: &Asked, change: impl FnOnce(&mut Welcome)) -> Vec<Vec<u8>> {
        let Asked::Hello(hello, len_bytes) = asked else {
            return Vec::new();
        };
        self.cookies = self.cookies.wrapping_add(1).max(1);
        let mut to = Welcome {
            segment_bytes: self.segment_bytes,
            ..welcome(hello, self.cookies)
        };
        change(&mut to);
        vec![padded(&to, *len_bytes)]
    }

    fn greet(&mut self, asked: &Asked) -> Vec<Vec<u8>> {
        self.greet_with(asked, |_| {})
    }

    fn refuse(&mut self, asked: &Asked, code: NackCode) -> Vec<Vec<u8>> {
        let Asked::Get(get) = asked else {
            return self.greet(asked);
        };
        self.gets += 1;
        vec![nack(get, code, 100, get.cookie.value)]
    }

    /// The lowest wanted segments, correct.
    fn data(&self, get: &Get, most: usize) -> Vec<Vec<u8>> {
        let chunk = self.chunks.get(&get.id);
        let mut data = chunk.map_or_else(Vec::new, |chunk| data(get, chunk, self.segment_bytes));
        data.truncate(most);
        data
    }

    fn answer_elsewhere(&mut self, asked: &Asked) -> Vec<Vec<u8>> {
        self.elsewhere = true;
        match asked {
            Asked::Hello(..) => self.greet(asked),
            Asked::Get(get) => self.data(get, 53),
        }
    }
}

fn greet_only(edge: &mut Edge<'_>, asked: &Asked) -> Vec<Vec<u8>> {
    edge.greet(asked)
}

fn in_turn(edge: &mut Edge<'_>, asked: &Asked) -> Vec<Vec<u8>> {
    let codes = [NackCode::Pending, NackCode::Busy, NackCode::Origin];
    edge.refuse(asked, codes[edge.gets as usize % codes.len()])
}

fn other_version(edge: &mut Edge<'_>, asked: &Asked) -> Vec<Vec<u8>> {
    let mut answers = edge.greet(asked);
    for answer in &mut answers {
        answer[1] = 9 << 4 | Kind::Welcome as u8;
    }
    answers
}

fn wider(edge: &mut Edge<'_>, asked: &Asked) -> Vec<Vec<u8>> {
    edge.segment_bytes = match asked {
        Asked::Hello(_, len_bytes) => {
            u16::try_from(len_bytes + 1 - HELLO_HEADER_BYTES).unwrap_or(1440)
        }
        Asked::Get(_) => edge.segment_bytes,
    };
    edge.greet(asked)
}

fn altered(edge: &mut Edge<'_>, asked: &Asked) -> Vec<Vec<u8>> {
    let Asked::Get(get) = asked else {
        return edge.greet(asked);
    };
    let mut datagrams = edge.data(get, 53);
    for byte in datagrams
        .iter_mut()
        .filter_map(|one| one.get_mut(DATA_HEADER_BYTES))
    {
        *byte ^= 1;
    }
    datagrams
}

fn lengths(edge: &mut Edge<'_>, asked: &Asked) -> Vec<Vec<u8>> {
    let Asked::Get(get) = asked else {
        return edge.greet(asked);
    };
    let length = edge.chunks.get(&get.id).map_or(0, Vec::len);
    let length = u32::try_from(length).unwrap_or(0);
    let geometry = Geometry::new(length, edge.segment_bytes);
    geometry.map_or_else(Vec::new, |geometry| {
        lying(
            geometry.last,
            length,
            get.id.tag(),
            edge.segment_bytes.into(),
        )
    })
}

fn dribble(edge: &mut Edge<'_>, asked: &Asked) -> Vec<Vec<u8>> {
    let Asked::Get(get) = asked else {
        return edge.greet(asked);
    };
    if edge.dribbled.is_some_and(|then| then.elapsed() < DRIBBLE) {
        return Vec::new();
    }
    edge.dribbled = Some(clock::now());
    edge.data(get, 1)
}

/// A reader must discard a partial chunk if the segment size changes.
fn restart(edge: &mut Edge<'_>, asked: &Asked) -> Vec<Vec<u8>> {
    let Asked::Get(get) = asked else {
        // Both fit any HELLO.
        edge.segment_bytes = if edge.segment_bytes == 1100 {
            1101
        } else {
            1100
        };
        return edge.greet(asked);
    };
    let mut answers = edge.data(get, 1);
    answers.push(nack(get, NackCode::Cookie, 100, get.cookie.value));
    answers
}

/// Runs all of them at once, each with its own reader: they mostly wait.
pub(super) fn run<'a>(
    session: &Session<'_>,
    attacks: impl Iterator<Item = &'a MaliciousEdge>,
) -> Result<Vec<Row>> {
    thread::scope(|scope| {
        let start = |(attack, port): (&'a MaliciousEdge, u16)| {
            eprintln!("--- {}: {}", attack.name, attack.does);
            scope.spawn(move || one(session, attack, port))
        };
        let running: Vec<_> = attacks.zip(FIRST_PORT..).map(start).collect();
        let rows = running.into_iter().map(|row| {
            row.join()
                .map_err(|_panic| anyhow!("a malicious edge panicked"))?
        });
        rows.collect()
    })
}

fn one(session: &Session<'_>, attack: &MaliciousEdge, port: u16) -> Result<Row> {
    let address = SocketAddr::new(session.edges[0].ip(), port);
    let sockets = session.testbed.bed.edge.enter(move || {
        let open = |address| UdpSocket::bind(address).with_context(|| format!("{address}"));
        let sockets = [open(address)?, open(SocketAddr::new(address.ip(), 0))?];
        sockets[0].set_read_timeout(Some(TICK))?;
        anyhow::Ok(sockets)
    })??;
    let edge = Edge {
        chunks: &session.chunks,
        gets: 0,
        cookies: 0,
        segment_bytes: SEGMENT_BYTES_DEFAULT,
        dribbled: None,
        elsewhere: false,
    };
    let gone = AtomicBool::new(false);
    let (fetched, spent) = thread::scope(|scope| {
        let serving = scope.spawn(|| serve(edge, attack, &sockets, &gone));
        let out = session.testbed.folder.join(format!("out{port}"));
        let fetched = session.fetch_to(&out, &session.small_object, address, &mut || {});
        gone.store(true, Ordering::Relaxed);
        let spent = serving
            .join()
            .map_err(|_panic| anyhow!("a malicious edge panicked"));
        Ok::<_, anyhow::Error>((fetched?, spent?))
    })?;
    let (seconds, end) = fetched;
    let right = if attack.whole {
        end == End::Whole
    } else {
        matches!(end, End::Failed(..))
    };
    let within = attack.within;
    let ended = format!("within {within} s: after {seconds:.1} s it {end}");
    let (cold, attacked) = (true, true);
    Ok(Row {
        attacker: Cost {
            seconds,
            spent,
            addresses: 1,
            ..Cost::default()
        },
        reader: vec![Fetch {
            cold,
            attacked,
            seconds,
            end,
        }],
        promises: vec![(right && seconds <= f64::from(within), ended)],
        ..Row::new(attack.name, attack.does)
    })
}

fn serve(
    mut edge: Edge<'_>,
    attack: &MaliciousEdge,
    sockets: &[UdpSocket; 2],
    gone: &AtomicBool,
) -> Amount {
    let [socket, other] = sockets;
    let mut sent = Amount::default();
    listen(socket, gone, |asked, from| {
        for answer in (attack.answer)(&mut edge, &asked) {
            let by = if edge.elsewhere { other } else { socket };
            // A datagram that cannot be sent is lost, as on any path.
            let bytes = by.send_to(&answer, from).unwrap_or(0);
            sent.packets += 1;
            sent.bytes += bytes as u64;
        }
    });
    sent
}
