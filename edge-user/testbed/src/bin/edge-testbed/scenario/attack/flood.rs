//! Attacks on an edge: frames at full rate or at a given one, and their effect on other readers.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result};
use edge_ebpf::golden::build;
use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{ChunkId, Cookie, Kind, Nack, NackCode, SEGMENT_BYTES_DEFAULT};
use edge_testbed::{bed::Bed, client::HELLO_BYTES, packet::Mac};
use rand::{Rng as _, RngExt as _};

use super::attacker::{self, Attacker, silent, unused, unused_pair};
use super::frames::{Frame, Vary, data, guess, hello_of_version};

/// Sources of a forged flood, per family.
const FORGED: u16 = 2048;
/// Clients that do not read, each with a socket of its own.
const SLOW_READERS: u16 = 400;
/// Source addresses of requests for nonexistent chunks.
const ASKERS: u16 = 64;
/// An address of the attacker, next to the legitimate reader's.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 71, 0, 9);
/// Neighbours that do not respond; the first is not the network's own address.
const SILENT: std::ops::Range<u16> = 1..901;
/// The network they are in.
const SILENT_NETWORK: &str = "198.19.0.0/16";
/// IP options without effect, except that they take a packet off the program's path.
const OPTIONS: [u8; 4] = [1, 1, 1, 0];
/// The MAC address that an address moves to.
const HEIR: Mac = [2, 0, 0, 0, 0x77, 2];

#[rustfmt::skip] // one a line
mod vary {
    use super::Vary;
    /// Halves of a HELLO's nonce.
    pub(super) const NONCE: Vary = Vary { at: 8, opposite: 12, len: 4 };
    /// The cookie of a GET, and half of its want set.
    pub(super) const COOKIE: Vary = Vary { at: 8, opposite: 56, len: 8 };
    /// Halves of a GET's chunk id.
    pub(super) const ID: Vary = Vary { at: 16, opposite: 32, len: 16 };
    /// Halves of a GET's want set.
    pub(super) const WANT: Vary = Vary { at: 48, opposite: 56, len: 8 };
    /// Halves of a tag in DATA.
    pub(super) const TAG: Vary = Vary { at: 8, opposite: 12, len: 4 };
    /// Tag and echo in a NACK.
    pub(super) const ECHO: Vary = Vary { at: 8, opposite: 16, len: 8 };
}

/// An attack; a row of the table defines it.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) does: &'static str,
    pub(super) make: fn(&mut Attacker<'_>) -> Result<Flood>,
    /// How its frames must be seen to end, at any stage.
    pub(super) reasons: &'static [Reason],
}

/// Frames that are sent cyclically.
#[derive(Default)]
pub(super) struct Flood {
    pub(super) frames: Vec<Frame>,
    pub(super) vary: Option<Vary>,
    /// Sources with a valid cookie: they may get more than they send.
    pub(super) proved: HashSet<IpAddr>,
    /// Addresses whose replies are reported separately, and their descriptions.
    pub(super) described: Vec<(IpAddr, &'static str)>,
    /// Frames per second; unlimited if none. A slow attack must leave a reader most of its goodput,
    /// which is then measured with a large file.
    pub(super) per_second: Option<u32>,
    /// Sockets that stay open during the attack and are never read.
    pub(super) _sockets: Vec<UdpSocket>,
}

impl Flood {
    fn of(frames: Vec<Frame>) -> Self {
        Self {
            frames,
            ..Self::default()
        }
    }

    fn vary(self, vary: Vary) -> Self {
        Self {
            vary: Some(vary),
            ..self
        }
    }
}

#[rustfmt::skip] // one attack a line, as far as it goes
pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "hello-flood", does: "HELLOs from two addresses", make: |by| Ok(hellos(by, unused_pair())), reasons: &[Reason::Welcome] },
    Attack { name: "hello-forged", does: "HELLOs from 4096 forged addresses", make: |by| Ok(hellos(by, forged())), reasons: &[Reason::Welcome] },
    Attack { name: "get-flood", does: "GETs for all of a hot chunk, with a valid cookie", make: |by| by.gets(&unused_pair(), by.session.hot, u128::MAX), reasons: &[Reason::Steered] },
    Attack { name: "nack-flood", does: "NACKs sent to the edge", make: |by| Ok(nacks(by)), reasons: &[Reason::BadKind] },
    Attack { name: "data-flood", does: "DATA sent to the edge", make: |by| Ok(datas(by)), reasons: &[Reason::BadKind] },
    Attack { name: "own-address", does: "HELLOs and GETs that claim to come from the edge itself", make: |by| Ok(own_address(by)), reasons: &[Reason::BadSource] },
    Attack { name: "broadcast", does: "multicast, broadcast and unspecified sources; group MAC addresses too", make: |by| Ok(broadcast(by)), reasons: &[Reason::BadSource, Reason::OtherMac] },
    Attack { name: "versions", does: "every version but 1", make: |by| Ok(versions(by)), reasons: &[Reason::WelcomeVersion, Reason::BadVersion] },
    Attack { name: "noise", does: "random bytes, and false lengths", make: |by| Ok(noise(by)), reasons: &[Reason::BadLength, Reason::BadMagic, Reason::GetSize] },
    Attack { name: "scattered-wants", does: "GETs for every other segment of a hot chunk", make: |by| Ok(by.gets(&unused_pair(), by.session.hot, 0)?.vary(vary::WANT)), reasons: &[Reason::Steered] },
    Attack { name: "cookie-guess", does: "GETs with guessed cookies", make: cookie_guess, reasons: &[Reason::NackCookie] },
    Attack { name: "cookie-replay", does: "GETs with cookies of addresses that moved to another host", make: cookie_replay, reasons: &[Reason::Steered, Reason::NackCookie] },
    Attack { name: "absent-flood", does: "GETs for nonexistent chunks, with a valid cookie", make: absent, reasons: &[Reason::Miss, Reason::FetchStarted] },
    Attack { name: "slow-readers", does: "400 clients that request everything and read nothing", make: slow_readers, reasons: &[Reason::Steered] },
    Attack { name: "silent-neighbours", does: "1000 GETs per second with valid cookies for 600 neighbours that do not respond", make: |by| silent_gets(by, 600, 1000), reasons: &[Reason::Steered, Reason::Unreached] },
    Attack { name: "silent-many", does: "3000 GETs per second with valid cookies for 900 neighbours that do not respond", make: |by| silent_gets(by, 900, 3000), reasons: &[Reason::Steered, Reason::Unreached] },
    Attack { name: "silent-hellos", does: "12,000 HELLOs per second with IP options from 900 neighbours that do not respond", make: |by| Ok(silent_hellos(by)), reasons: &[Reason::IpOptions, Reason::Unreached] },
];

fn hellos(by: &Attacker<'_>, from: impl IntoIterator<Item = SocketAddr>) -> Flood {
    let hello = |from| by.frame(from, build::hello(HELLO_BYTES));
    Flood::of(from.into_iter().map(hello).collect()).vary(vary::NONCE)
}

fn forged() -> impl Iterator<Item = SocketAddr> {
    (0..FORGED).flat_map(|number| [false, true].map(|v6| unused(number, v6, 40_000)))
}

impl Attacker<'_> {
    /// GETs from these clients, with their cookies.
    fn gets(&mut self, from: &[SocketAddr], id: ChunkId, want: u128) -> Result<Flood> {
        let cookies = self.greet(from)?;
        let get =
            |(from, cookie): (&SocketAddr, _)| self.frame(*from, build::get(cookie, id, want));
        Ok(Flood {
            proved: from.iter().map(SocketAddr::ip).collect(),
            ..Flood::of(from.iter().zip(cookies).map(get).collect())
        })
    }
}

fn nacks(by: &Attacker<'_>) -> Flood {
    let nack = Nack {
        code: NackCode::Busy,
        retry_ms: 0,
        tag: [0; 8],
        echo: [0; 8],
    };
    let frame = |from| by.frame(from, nack.encode().to_vec());
    Flood::of(unused_pair().map(frame).into()).vary(vary::ECHO)
}

fn datas(by: &Attacker<'_>) -> Flood {
    let data = data(0, 107, 131_072, [0; 8], SEGMENT_BYTES_DEFAULT.into());
    let frame = |from| by.frame(from, data.clone());
    Flood::of(unused_pair().map(frame).into()).vary(vary::TAG)
}

/// A HELLO, and a GET without a cookie, from each.
fn from_each(by: &Attacker<'_>, sources: &[SocketAddr]) -> Vec<Frame> {
    let both = |from: &SocketAddr| {
        let get = build::get(Cookie::default(), by.session.hot, u128::MAX);
        [build::hello(HELLO_BYTES), get].map(|payload| by.frame(*from, payload))
    };
    sources.iter().flat_map(both).collect()
}

fn own_address(by: &Attacker<'_>) -> Flood {
    let ports = [7347, 40_000];
    let own = by.session.edges;
    let sources = own.map(|own| ports.map(|port| SocketAddr::new(own.ip(), port)));
    Flood::of(from_each(by, sources.as_flattened()))
}

fn broadcast(by: &Attacker<'_>) -> Flood {
    let addresses: [IpAddr; 10] = [
        Ipv4Addr::BROADCAST.into(),
        Ipv4Addr::new(10, 71, 0, 255).into(),
        Ipv4Addr::new(224, 0, 0, 1).into(),
        Ipv4Addr::UNSPECIFIED.into(),
        Ipv4Addr::LOCALHOST.into(),
        Ipv6Addr::LOCALHOST.into(),
        Ipv6Addr::UNSPECIFIED.into(),
        Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1).into(),
        Ipv4Addr::LOCALHOST.to_ipv6_mapped().into(),
        Ipv4Addr::new(198, 18, 0, 1).to_ipv6_mapped().into(),
    ];
    let sources = addresses.map(|address| SocketAddr::new(address, 40_000));
    let mut frames = from_each(by, &sources);
    frames.extend(from_each(by, &[unused(1, false, 0)]));
    let (own, edge) = (by.socket.mac, by.session.edge_mac);
    for macs in [
        ([1, 0, 0x5e, 0, 0, 1], edge),
        ([0xff; 6], edge),
        (own, [0xff; 6]),
    ] {
        let hello = |from| by.frame_by(macs, from, build::hello(HELLO_BYTES));
        frames.extend(unused_pair().map(hello));
    }
    Flood::of(frames)
}

fn versions(by: &Attacker<'_>) -> Flood {
    let mut frames = Vec::new();
    for version in (0..16).filter(|version| *version != 1) {
        for from in unused_pair() {
            let mut get = build::get(Cookie::default(), by.session.hot, u128::MAX);
            get[1] = version << 4 | Kind::Get as u8;
            frames.push(by.frame(from, hello_of_version(version)));
            frames.push(by.frame(from, get));
        }
    }
    Flood::of(frames)
}

fn noise(by: &mut Attacker<'_>) -> Flood {
    let mut rng = by.rng.clone();
    let frames = (0..1024).map(|round| {
        let mut payload = vec![0; rng.random_range(0..1400)];
        rng.fill_bytes(&mut payload);
        if round % 2 == 0 {
            // The beginning is correct, the rest is not.
            for (byte, right) in payload.iter_mut().zip([0xed, 0x13, 0, 0]) {
                *byte = right;
            }
        }
        let from = unused_pair()[usize::from(round % 4 > 1)];
        let mut frame = by.frame(from, payload);
        if round % 3 == 0 {
            // The UDP length field, after Ethernet, IP and two ports.
            let at = if from.is_ipv6() { 58 } else { 38 };
            rng.fill_bytes(&mut frame.bytes[at..at + 2]);
        }
        frame
    });
    Flood::of(frames.collect())
}

fn cookie_guess(by: &mut Attacker<'_>) -> Result<Flood> {
    let epoch = attacker::epoch()?;
    let mut rng = by.rng.clone();
    let mut frames = Vec::new();
    for epoch in [epoch - 1, epoch, epoch + 1] {
        for from in unused_pair() {
            let get = build::get(guess(epoch, &mut rng), by.session.hot, u128::MAX);
            frames.push(by.frame(from, get));
        }
    }
    Ok(Flood::of(frames).vary(vary::COOKIE))
}

fn cookie_replay(by: &mut Attacker<'_>) -> Result<Flood> {
    let client = |last| SocketAddr::from((Ipv4Addr::new(10, 71, 0, last), 40_000));
    let (now, one, two) = (client(101), client(102), client(103));
    attacker::wait_for_the_turn()?;
    for client in [now, one, two] {
        by.settle(client.ip(), by.socket.mac)?;
    }
    let greeted = by.greet(&[now])?;
    let cookies = [
        (now, *greeted.first().context("one cookie")?),
        (one, by.cookie_of_age(one, 1)?),
        (two, by.cookie_of_age(two, 2)?),
    ];
    for (client, _) in cookies {
        by.settle(client.ip(), HEIR)?;
    }
    let get = |(client, cookie)| by.frame(client, build::get(cookie, by.session.hot, u128::MAX));
    Ok(Flood {
        proved: [now.ip(), one.ip()].into(),
        described: vec![
            (now.ip(), "DATA for a cookie of this epoch"),
            (one.ip(), "DATA for one of the last epoch"),
            (two.ip(), "refusals of one of the epoch before"),
        ],
        ..Flood::of(cookies.map(get).into())
    })
}

fn absent(by: &mut Attacker<'_>) -> Result<Flood> {
    let ports = 40_000..40_000 + ASKERS / 2;
    let from = ports.flat_map(|port| [false, true].map(|v6| unused(1, v6, port)));
    let from: Vec<SocketAddr> = from.collect();
    Ok(by.gets(&from, ChunkId([0; 32]), u128::MAX)?.vary(vary::ID))
}

fn slow_readers(by: &mut Attacker<'_>) -> Result<Flood> {
    let reader = &by.session.testbed.bed.reader;
    let open = |_| UdpSocket::bind((OWN, 0));
    let sockets = reader.enter(|| (0..SLOW_READERS).map(open).collect::<Result<Vec<_>, _>>())?;
    let sockets = sockets.context("no sockets for slow readers")?;
    let from = sockets.iter().map(UdpSocket::local_addr);
    let from = from.collect::<Result<Vec<_>, _>>()?;
    Ok(Flood {
        _sockets: sockets,
        ..by.gets(&from, by.session.hot, u128::MAX)?
    })
}

/// GETs of neighbours that do not respond. The program sends a WELCOME to the MAC address of the
/// HELLO, so the attacker gets their cookies (docs/adr/0012).
fn silent_gets(by: &mut Attacker<'_>, neighbours: usize, per_second: u32) -> Result<Flood> {
    let from: Vec<SocketAddr> = SILENT.map(silent).take(neighbours).collect();
    Ok(Flood {
        per_second: Some(per_second),
        ..by.gets(&from, by.session.hot, u128::MAX)?
    })
}

fn silent_hellos(by: &Attacker<'_>) -> Flood {
    let macs = (by.socket.mac, by.session.edge_mac);
    let hello = |from: SocketAddr| {
        let service = by.service(from);
        Frame::with_options(from, service, macs, &OPTIONS, build::hello(HELLO_BYTES))
    };
    Flood {
        per_second: Some(12_000),
        ..Flood::of(SILENT.map(silent).map(hello).collect()).vary(vary::NONCE)
    }
}

/// Adds the neighbours that do not respond, gives the attacker an address of its own, and sets a
/// default route via the reader's end, so that the edge replies to unused addresses.
pub(super) fn prepare(bed: &Bed) -> Result<()> {
    let Bed { edge, reader, .. } = bed;
    reader.ip_batch([format!("address add {OWN}/24 dev {}", reader.link)])?;
    edge.ip_batch([
        format!("route add {SILENT_NETWORK} dev {}", edge.link),
        format!("route add default via {}", reader.ipv4),
    ])?;
    edge.ip(&format!("-6 route add default via {}", reader.ipv6))
        .map(drop)
}
