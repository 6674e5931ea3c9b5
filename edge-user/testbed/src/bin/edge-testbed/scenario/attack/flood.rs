//! Attacks on an edge: frames at full rate or at a given one, and what they are to other readers.

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};

use anyhow::{Context as _, Result};
use edge_ebpf::golden::build;
use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{ChunkId, Cookie, Kind, Nack, NackCode, SEGMENT_BYTES_DEFAULT};
use edge_testbed::bed::Bed;

use super::frames::{Frame, Vary, data, guess, hello_of_version};
use super::line::Mac;
use super::scene::{self, Scene, nobodies, nobody, silent};

/// Sources of a forged flood, in each family.
const FORGED: u16 = 2048;
/// Readers that do not read, each with a socket of its own.
const SLOW_READERS: u16 = 400;
/// Where chunks that nobody has are asked for from.
const ASKERS: u16 = 64;
/// An address of the attacker's own, beside the legitimate reader's.
const OWN: Ipv4Addr = Ipv4Addr::new(10, 71, 0, 9);
/// Neighbours that do not answer; the first is no network's own address.
const SILENT: std::ops::Range<u16> = 1..901;
/// The network they are in.
const SILENT_NETWORK: &str = "198.19.0.0/16";
/// Options that ask for nothing, and take a packet off the program's path.
const OPTIONS: [u8; 4] = [1, 1, 1, 0];
/// The station an address moves to.
const HEIR: Mac = [2, 0, 0, 0, 0x77, 2];

/// Halves of a HELLO's nonce.
const NONCE: Vary = Vary {
    at: 8,
    opposite: 12,
    len: 4,
};
/// The cookie of a GET, and half of its want set.
const COOKIE: Vary = Vary {
    at: 8,
    opposite: 56,
    len: 8,
};
/// Halves of a GET's chunk id.
const ID: Vary = Vary {
    at: 16,
    opposite: 32,
    len: 16,
};
/// Halves of a GET's want set.
const WANT: Vary = Vary {
    at: 48,
    opposite: 56,
    len: 8,
};
/// Halves of a tag in DATA, tag and echo in a NACK.
const TAG: Vary = Vary {
    at: 8,
    opposite: 12,
    len: 4,
};
const ECHO: Vary = Vary {
    at: 8,
    opposite: 16,
    len: 8,
};

/// One attack: adding a row to the table is all it takes.
pub(super) struct Attack {
    pub(super) name: &'static str,
    pub(super) does: &'static str,
    pub(super) make: fn(&mut Scene<'_>) -> Result<Flood>,
    /// How its frames must be seen to end, at one stage or another.
    pub(super) reasons: &'static [Reason],
}

/// Frames that are sent round and round.
#[derive(Default)]
pub(super) struct Flood {
    pub(super) frames: Vec<Frame>,
    pub(super) vary: Option<Vary>,
    /// Sources with a good cookie: they may get more than they send.
    pub(super) proved: HashSet<IpAddr>,
    /// Addresses whose answers are told one by one, and what each is.
    pub(super) told: Vec<(IpAddr, &'static str)>,
    /// How many frames a second; as many as there can be, if none. A slow attack must leave a
    /// reader most of its goodput, which is then measured with a large file.
    pub(super) per_second: Option<u32>,
    /// Open as long as the attack goes on, and never read.
    pub(super) _sockets: Vec<UdpSocket>,
}

#[rustfmt::skip] // one attack a line, as far as it goes
pub(super) const ATTACKS: &[Attack] = &[
    Attack { name: "hello-flood", does: "HELLOs from two addresses", make: |scene| Ok(hello_flood(scene)), reasons: &[Reason::Welcome] },
    Attack { name: "hello-forged", does: "HELLOs from 4096 forged addresses", make: |scene| Ok(hello_forged(scene)), reasons: &[Reason::Welcome] },
    Attack { name: "get-flood", does: "GETs for all of a hot chunk, with a good cookie", make: get_flood, reasons: &[Reason::Steered] },
    Attack { name: "nack-flood", does: "NACKs sent to the edge", make: |scene| Ok(nack_flood(scene)), reasons: &[Reason::BadKind] },
    Attack { name: "data-flood", does: "DATA sent to the edge", make: |scene| Ok(data_flood(scene)), reasons: &[Reason::BadKind] },
    Attack { name: "own-address", does: "HELLOs and GETs that claim to come from the edge itself", make: |scene| Ok(own_address(scene)), reasons: &[Reason::BadSource] },
    Attack { name: "broadcast", does: "sources that are groups, everybody, nobody; stations too", make: |scene| Ok(broadcast(scene)), reasons: &[Reason::BadSource, Reason::OtherMac] },
    Attack { name: "versions", does: "every version but ours", make: |scene| Ok(versions(scene)), reasons: &[Reason::WelcomeVersion, Reason::BadVersion] },
    Attack { name: "noise", does: "bytes of chance, and lengths that lie", make: noise, reasons: &[Reason::BadLength, Reason::BadMagic, Reason::GetSize] },
    Attack { name: "scattered-wants", does: "GETs for every other segment of a hot chunk", make: scattered_wants, reasons: &[Reason::Steered] },
    Attack { name: "cookie-guess", does: "GETs with a new guess for a cookie each", make: cookie_guess, reasons: &[Reason::NackCookie] },
    Attack { name: "cookie-replay", does: "GETs with cookies of addresses that changed hands", make: cookie_replay, reasons: &[Reason::Steered, Reason::NackCookie] },
    Attack { name: "absent-flood", does: "GETs for chunks nobody has, with a good cookie", make: absent_flood, reasons: &[Reason::Miss, Reason::FetchStarted] },
    Attack { name: "slow-readers", does: "400 clients that ask for all and read nothing", make: slow_readers, reasons: &[Reason::Steered] },
    Attack { name: "silent-neighbours", does: "1000 GETs a second with good cookies for 600 neighbours that do not answer", make: |scene| silent_gets(scene, 600, 1000), reasons: &[Reason::Steered, Reason::Unreached] },
    Attack { name: "silent-many", does: "3000 GETs a second with good cookies for 900 neighbours that do not answer", make: |scene| silent_gets(scene, 900, 3000), reasons: &[Reason::Steered, Reason::Unreached] },
    Attack { name: "silent-hellos", does: "12,000 HELLOs a second with IP options from 900 neighbours that do not answer", make: |scene| Ok(silent_hellos(scene)), reasons: &[Reason::IpOptions, Reason::Unreached] },
];

fn hello_flood(scene: &Scene<'_>) -> Flood {
    let hello = |from| scene.frame(from, build::hello(1232));
    Flood {
        frames: nobodies().map(hello).into(),
        vary: Some(NONCE),
        ..Flood::default()
    }
}

fn hello_forged(scene: &Scene<'_>) -> Flood {
    let sources = (0..FORGED).flat_map(|number| [false, true].map(|v6| nobody(number, v6, 40_000)));
    let hello = |from| scene.frame(from, build::hello(1232));
    Flood {
        frames: sources.map(hello).collect(),
        vary: Some(NONCE),
        ..Flood::default()
    }
}

/// GETs of two addresses that were greeted.
fn greeted_gets(scene: &mut Scene<'_>, want: u128, vary: Option<Vary>) -> Result<Flood> {
    let from = nobodies();
    let cookies = scene.greet(&from)?;
    let get = |(from, cookie): (&SocketAddr, Cookie)| {
        scene.frame(*from, build::get(cookie, scene.play.hot, want))
    };
    Ok(Flood {
        frames: from.iter().zip(cookies).map(get).collect(),
        vary,
        proved: from.map(|from| from.ip()).into(),
        ..Flood::default()
    })
}

fn get_flood(scene: &mut Scene<'_>) -> Result<Flood> {
    greeted_gets(scene, u128::MAX, None)
}

fn scattered_wants(scene: &mut Scene<'_>) -> Result<Flood> {
    greeted_gets(scene, 0, Some(WANT))
}

fn nack_flood(scene: &Scene<'_>) -> Flood {
    let nack = Nack {
        code: NackCode::Busy,
        retry_ms: 0,
        tag: [0; 8],
        echo: [0; 8],
    };
    let frame = |from| scene.frame(from, nack.encode().to_vec());
    Flood {
        frames: nobodies().map(frame).into(),
        vary: Some(ECHO),
        ..Flood::default()
    }
}

fn data_flood(scene: &Scene<'_>) -> Flood {
    let len = usize::from(SEGMENT_BYTES_DEFAULT);
    let frame = |from| scene.frame(from, data(0, 107, 131_072, [0; 8], len));
    Flood {
        frames: nobodies().map(frame).into(),
        vary: Some(TAG),
        ..Flood::default()
    }
}

/// A HELLO, and a GET without a cookie, from each.
fn from_each(scene: &Scene<'_>, sources: &[SocketAddr]) -> Vec<Frame> {
    let both = |from: &SocketAddr| {
        let get = build::get(Cookie::default(), scene.play.hot, u128::MAX);
        [build::hello(1232), get].map(|payload| scene.frame(*from, payload))
    };
    sources.iter().flat_map(both).collect()
}

fn own_address(scene: &Scene<'_>) -> Flood {
    let ports = [7347, 40_000];
    let own = scene.play.edges;
    let sources = own.map(|own| ports.map(|port| SocketAddr::new(own.ip(), port)));
    Flood {
        frames: from_each(scene, sources.as_flattened()),
        ..Flood::default()
    }
}

fn broadcast(scene: &Scene<'_>) -> Flood {
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
    let mut frames = from_each(scene, &sources);
    frames.extend(from_each(scene, &[nobody(1, false, 0)]));
    let (own, edge) = (scene.line.mac, scene.play.edge_mac);
    for macs in [
        ([1, 0, 0x5e, 0, 0, 1], edge),
        ([0xff; 6], edge),
        (own, [0xff; 6]),
    ] {
        let hello = |from| scene.frame_by(macs, from, build::hello(1232));
        frames.extend(nobodies().map(hello));
    }
    Flood {
        frames,
        ..Flood::default()
    }
}

fn versions(scene: &Scene<'_>) -> Flood {
    let mut frames = Vec::new();
    for version in (0..16).filter(|version| *version != 1) {
        for from in nobodies() {
            let mut get = build::get(Cookie::default(), scene.play.hot, u128::MAX);
            get[1] = version << 4 | Kind::Get as u8;
            frames.push(scene.frame(from, hello_of_version(version)));
            frames.push(scene.frame(from, get));
        }
    }
    Flood {
        frames,
        ..Flood::default()
    }
}

fn noise(scene: &mut Scene<'_>) -> Result<Flood> {
    let mut dice = scene.dice.clone();
    let mut frames = Vec::new();
    for round in 0..1024_u64 {
        let mut payload = vec![0; usize::try_from(dice.below(1400))?];
        dice.fill(&mut payload);
        if round % 2 == 0 {
            // Right in front, wrong behind.
            for (byte, right) in payload.iter_mut().zip([0xed, 0x13, 0, 0]) {
                *byte = right;
            }
        }
        let from = nobodies()[usize::from(round % 4 > 1)];
        let mut frame = scene.frame(from, payload);
        if round % 3 == 0 {
            // The length that UDP claims, behind Ethernet, IP and two ports.
            let at = if from.is_ipv6() { 58 } else { 38 };
            frame.bytes[at..at + 2].copy_from_slice(&dice.roll().to_be_bytes()[..2]);
        }
        frames.push(frame);
    }
    Ok(Flood {
        frames,
        ..Flood::default()
    })
}

fn cookie_guess(scene: &mut Scene<'_>) -> Result<Flood> {
    let epoch = scene::epoch()?;
    let mut dice = scene.dice.clone();
    let mut frames = Vec::new();
    for epoch in [epoch - 1, epoch, epoch + 1] {
        for from in nobodies() {
            let get = build::get(guess(epoch, &mut dice), scene.play.hot, u128::MAX);
            frames.push(scene.frame(from, get));
        }
    }
    Ok(Flood {
        frames,
        vary: Some(COOKIE),
        ..Flood::default()
    })
}

fn cookie_replay(scene: &mut Scene<'_>) -> Result<Flood> {
    let client = |last| SocketAddr::from((Ipv4Addr::new(10, 71, 0, last), 40_000));
    let (now, one, two) = (client(101), client(102), client(103));
    scene::wait_for_the_turn()?;
    let own = scene.line.mac;
    for client in [now, one, two] {
        scene.settle(client.ip(), own)?;
    }
    let greeted = scene.greet(&[now])?;
    let cookies = [
        (now, *greeted.first().context("one cookie")?),
        (one, scene.cookie_of_age(one, 1)?),
        (two, scene.cookie_of_age(two, 2)?),
    ];
    for (client, _) in cookies {
        scene.settle(client.ip(), HEIR)?;
    }
    let get = |(client, cookie)| scene.frame(client, build::get(cookie, scene.play.hot, u128::MAX));
    Ok(Flood {
        frames: cookies.map(get).into(),
        proved: [now.ip(), one.ip()].into(),
        told: vec![
            (now.ip(), "DATA for a cookie of this epoch"),
            (one.ip(), "DATA for one of the last epoch"),
            (two.ip(), "refusals of one of the epoch before"),
        ],
        ..Flood::default()
    })
}

fn absent_flood(scene: &mut Scene<'_>) -> Result<Flood> {
    let ports = 40_000..40_000 + ASKERS / 2;
    let from: Vec<SocketAddr> = ports
        .flat_map(|port| [false, true].map(|v6| nobody(1, v6, port)))
        .collect();
    let cookies = scene.greet(&from)?;
    let get = |(from, cookie): (&SocketAddr, Cookie)| {
        scene.frame(*from, build::get(cookie, ChunkId([0; 32]), u128::MAX))
    };
    Ok(Flood {
        frames: from.iter().zip(cookies).map(get).collect(),
        vary: Some(ID),
        proved: nobodies().map(|from| from.ip()).into(),
        ..Flood::default()
    })
}

fn slow_readers(scene: &mut Scene<'_>) -> Result<Flood> {
    let reader = &scene.play.stage.bed.reader;
    let sockets = reader.enter(|| {
        let open = |_| UdpSocket::bind((OWN, 0));
        let sockets = (0..SLOW_READERS).map(open).collect::<Result<Vec<_>, _>>();
        sockets.context("no sockets for slow readers")
    })??;
    let from: Vec<SocketAddr> = sockets
        .iter()
        .map(UdpSocket::local_addr)
        .collect::<Result<_, _>>()?;
    let cookies = scene.greet(&from)?;
    let get = |(from, cookie): (&SocketAddr, Cookie)| {
        scene.frame(*from, build::get(cookie, scene.play.hot, u128::MAX))
    };
    Ok(Flood {
        frames: from.iter().zip(cookies).map(get).collect(),
        proved: [OWN.into()].into(),
        _sockets: sockets,
        ..Flood::default()
    })
}

/// GETs of neighbours that do not answer. The program answers a HELLO to the station that sent it,
/// so the attacker gets their cookies (docs/adr/0012).
fn silent_gets(scene: &mut Scene<'_>, neighbours: usize, per_second: u32) -> Result<Flood> {
    let from: Vec<SocketAddr> = SILENT.map(silent).take(neighbours).collect();
    let cookies = scene.greet(&from)?;
    let get = |(from, cookie): (&SocketAddr, Cookie)| {
        scene.frame(*from, build::get(cookie, scene.play.hot, u128::MAX))
    };
    Ok(Flood {
        frames: from.iter().zip(cookies).map(get).collect(),
        proved: from.iter().map(SocketAddr::ip).collect(),
        per_second: Some(per_second),
        ..Flood::default()
    })
}

fn silent_hellos(scene: &Scene<'_>) -> Flood {
    let macs = (scene.line.mac, scene.play.edge_mac);
    let hello = |from: SocketAddr| {
        let service = scene.service(from);
        Frame::with_options(from, service, macs, &OPTIONS, build::hello(1232))
    };
    Flood {
        frames: SILENT.map(silent).map(hello).collect(),
        vary: Some(NONCE),
        per_second: Some(12_000),
        ..Flood::default()
    }
}

/// Makes neighbours of those that do not answer, gives the attacker an address of its own, and lets
/// the edge answer those that nobody has as if the reader's end were a router.
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
