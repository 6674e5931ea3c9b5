//! Datagrams an edge must distrust, from many forged sources, in many wrappings.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use edge_ebpf::golden::build::{self, Build};
use edge_ebpf::wire::{ChunkId, Cookie, Kind, NACK_BYTES};
use edge_testbed::packet::sum;

use crate::testbed::Testbed;

/// Put where the padding of a HELLO should be.
pub(crate) const WORDS: &[u8] = b"words for somebody else";

/// One datagram from a source of its own.
pub(crate) struct Row {
    pub(crate) name: &'static str,
    pub(crate) wrapping: Wrapping,
    pub(crate) source: IpAddr,
    pub(crate) frames: Vec<Vec<u8>>,
    /// What must come back, and nothing else.
    pub(crate) answer: Option<Answer>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Answer {
    /// This long.
    Welcome(usize),
    Nack,
}

impl Answer {
    /// Whether this payload is that answer.
    pub(crate) fn is(self, payload: &[u8]) -> bool {
        let (kind, length) = match self {
            Self::Welcome(length) => (Kind::Welcome, length),
            Self::Nack => (Kind::Nack, NACK_BYTES),
        };
        payload.starts_with(&edge_ebpf::wire::opening(kind)) && payload.len() == length
    }
}

/// What lies between the link and the datagram.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub(crate) enum Wrapping {
    Plain,
    /// IPv4 no-operation; IPv6 hop-by-hop padding.
    Options,
    /// IPv4 record route; IPv6 destination options.
    OtherOptions,
    Fragments,
    /// An IPv6 fragment that is the whole.
    AtomicFragment,
}

impl Wrapping {
    pub(crate) const V4: [Self; 4] = [
        Self::Plain,
        Self::Options,
        Self::OtherOptions,
        Self::Fragments,
    ];
    pub(crate) const V6: [Self; 5] = [
        Self::Plain,
        Self::Options,
        Self::OtherOptions,
        Self::Fragments,
        Self::AtomicFragment,
    ];

    fn frames(self, build: Build, v6: bool) -> Vec<Vec<u8>> {
        let pad = [1, 4, 0, 0, 0, 0];
        vec![match (self, v6) {
            (Self::Plain, _) => build.frame(),
            (Self::Options, false) => build.extra(0, &[1, 1, 1, 0]).frame(),
            (Self::Options, true) => build.extra(0, &pad).frame(),
            (Self::OtherOptions, false) => build.extra(0, &[7, 7, 4, 0, 0, 0, 0, 0]).frame(),
            (Self::OtherOptions, true) => build.extra(60, &pad).frame(),
            (Self::AtomicFragment, _) => build.extra(44, &[0, 0, 1, 2, 3, 4]).frame(),
            (Self::Fragments, false) => return cut_v4(&build.frame()),
            (Self::Fragments, true) => return cut_v6(&build.frame()),
        }]
    }
}

/// What a trace needs to know of a running edge to be of any interest.
pub(crate) struct Bait {
    /// A chunk that is resident.
    pub(crate) id: ChunkId,
    /// A good cookie, of another address.
    pub(crate) stolen: Cookie,
}

/// Every datagram in every wrapping, each from its own source.
pub(crate) fn rows(testbed: &Testbed, bait: &Bait) -> Vec<Row> {
    let mut rows = Vec::new();
    for ((name, payload, answer), number) in datagrams(bait).into_iter().zip(0_u8..) {
        let v4 = Wrapping::V4.map(|wrapping| (false, wrapping));
        let v6 = Wrapping::V6.map(|wrapping| (true, wrapping));
        for (v6, wrapping) in v4.into_iter().chain(v6) {
            if payload.is_empty() && wrapping == Wrapping::Fragments {
                continue;
            }
            let source: IpAddr = if v6 {
                let last = 0x100 + wrapping as u16;
                Ipv6Addr::new(0xfd71, 0, 0, 0, 0, 0, number.into(), last).into()
            } else {
                Ipv4Addr::new(10, 71, 0, 10 + number * 5 + wrapping as u8).into()
            };
            let frames = wrapping.frames(testbed.request_from(source, payload.clone()), v6);
            rows.push(Row {
                name,
                wrapping,
                source,
                frames,
                answer,
            });
        }
    }
    rows
}

#[rustfmt::skip] // one datagram a line
fn datagrams(bait: &Bait) -> Vec<(&'static str, Vec<u8>, Option<Answer>)> {
    let changed = |mut payload: Vec<u8>, at: usize, bytes: &[u8]| {
        payload[at..at + bytes.len()].copy_from_slice(bytes);
        payload
    };
    let hello = build::hello;
    let nothing = Cookie { epoch: 0, value: [0; 8] };
    let made_up = Cookie { value: [7; 8], ..bait.stolen };
    let get = |cookie| build::get(cookie, bait.id, u128::MAX);
    let noise = (0..1400_u32).map(|at| at.wrapping_mul(167).to_le_bytes()[0]).collect();
    let welcome = |length| Some(Answer::Welcome(length));
    let nack = Some(Answer::Nack);
    vec![
        ("a HELLO", hello(1232), welcome(1232)),
        ("the shortest HELLO", hello(1200), welcome(1200)),
        ("the longest HELLO", hello(1456), welcome(1456)),
        ("a HELLO of version 2", changed(hello(1232), 1, &[0x21]), welcome(1232)),
        ("a HELLO with words in its padding", changed(hello(1232), 100, WORDS), welcome(1232)),
        ("a HELLO that is too short", hello(1199), None),
        ("a HELLO that is too long", hello(1457), None),
        ("a HELLO of its header alone", hello(16), None),
        ("a HELLO with a reserved byte set", changed(hello(1232), 7, &[1]), None),
        ("a GET without a cookie", get(nothing), nack),
        ("a GET with a cookie that was made up", get(made_up), nack),
        ("a GET with a cookie of another address", get(bait.stolen), nack),
        ("a GET of version 2", changed(get(bait.stolen), 1, &[0x23]), None),
        ("a GET with a tail", [get(bait.stolen), vec![0]].concat(), None),
        ("a WELCOME", changed(hello(1232), 1, &[0x12]), None),
        ("DATA", changed(hello(1232), 1, &[0x14]), None),
        ("a NACK", changed(get(nothing), 1, &[0x15])[..24].to_vec(), None),
        ("noise", noise, None),
        ("one byte", vec![0xed], None),
        ("an empty datagram", Vec::new(), None),
    ]
}

/// Cuts an IPv4 packet without options in two.
fn cut_v4(frame: &[u8]) -> Vec<Vec<u8>> {
    let (header, body) = (&frame[..34], &frame[34..]);
    blocks(body)
        .map(|(block, at, more)| {
            let mut frame = [header, block].concat();
            let length = u16::try_from(20 + block.len()).unwrap();
            frame[16..18].copy_from_slice(&length.to_be_bytes());
            frame[18..20].copy_from_slice(&[0x5e, 0xed]);
            let place = u16::try_from(at / 8).unwrap() | if more { 0x2000 } else { 0 };
            frame[20..22].copy_from_slice(&place.to_be_bytes());
            frame[24..26].fill(0);
            let checksum = !sum(&frame[14..34]);
            frame[24..26].copy_from_slice(&checksum.to_be_bytes());
            frame
        })
        .to_vec()
}

/// Cuts an IPv6 packet without extension headers in two.
fn cut_v6(frame: &[u8]) -> Vec<Vec<u8>> {
    let (header, body) = (&frame[..54], &frame[54..]);
    blocks(body)
        .map(|(block, at, more)| {
            let place = u16::try_from(at).unwrap() | u16::from(more);
            let extension = [&[17, 0][..], &place.to_be_bytes(), &[0, 0, 0x5e, 0xed]].concat();
            let mut frame = [header, &extension, block].concat();
            let length = u16::try_from(8 + block.len()).unwrap();
            frame[18..20].copy_from_slice(&length.to_be_bytes());
            frame[20] = 44;
            frame
        })
        .to_vec()
}

/// Two blocks, where they begin, and whether there are more.
fn blocks(body: &[u8]) -> [(&[u8], usize, bool); 2] {
    let cut = (body.len() / 16 * 8).max(8);
    [(&body[..cut], 0, true), (&body[cut..], cut, false)]
}
