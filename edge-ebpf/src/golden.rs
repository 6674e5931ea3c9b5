//! Named packets with the verdict each must get. The same rows are judged by the host's tests, by
//! the loaded program (`edge-user/tests/prog.rs`), and timed by the benchmarks.

use alloc::vec;
use alloc::vec::Vec;

use crate::frame::{Address, Endpoint};
use crate::maps::{
    ABI_VERSION, ADDRESSES_MAX, COOKIE_KEYS, CookieKey, Cookies, Resident, Settings,
};
use crate::reason::Reason;
use crate::steer::Tables;
use crate::wire::{
    ChunkId, Cookie, Get, Hello, Nack, NackCode, SEGMENT_BYTES_DEFAULT, SERVICE_PORT, Welcome,
};

/// A packet, and what must become of it.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub frame: Vec<u8>,
    pub expect: Expect,
    /// The tables it is judged by; the same for every case.
    pub world: World,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Expect {
    Pass(Reason),
    Drop(Reason),
    /// Sent back, and these are the bytes.
    Reply(Reason, Vec<u8>),
    Steer(Resident),
}

/// Tables of an edge that serves 192.0.2.10 and 2001:db8::10 and holds one chunk.
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub settings: Settings,
    pub cookies: Cookies,
    pub id: ChunkId,
    pub resident: Resident,
}

impl Tables for World {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn cookies(&self) -> Option<&Cookies> {
        Some(&self.cookies)
    }

    fn resident(&self, id: &ChunkId) -> Option<Resident> {
        (*id == self.id).then_some(self.resident)
    }
}

/// The epoch of the specification's vector.
pub const EPOCH: u32 = 14_000_000;
const EDGE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x10];
const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x07];
const EDGE_V4: [u8; 4] = [192, 0, 2, 10];
const CLIENT_V4: [u8; 4] = [192, 0, 2, 7];
const EDGE_V6: [u8; 16] = [
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
const CLIENT_V6: [u8; 16] = [
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x07,
];
const CLIENT_PORT: u16 = 40_000;
const NONCE: [u8; 8] = *b"\x01nonce\x02\x03";
const MAX_BURST: u8 = 53;

/// The world every case is judged by.
pub fn world() -> World {
    let mut addresses = [Address::UNSPECIFIED; ADDRESSES_MAX];
    let [first, second, ..] = &mut addresses;
    *first = Address::v4(EDGE_V4);
    *second = Address::v6(EDGE_V6);
    let key = |epoch, words| CookieKey {
        epoch,
        live: 1,
        words,
    };
    let mut keys = [CookieKey::default(); COOKIE_KEYS];
    for key in [
        key(EPOCH - 1, [11, 12]),
        // The key of the specification's vector, as two little-endian words.
        key(EPOCH, [0x1051_c598_1363_022e, 0xb7ed_6bb5_8d9d_9482]),
        key(EPOCH + 1, [31, 32]),
    ] {
        if let Some(place) = keys.get_mut(key.epoch as usize % COOKIE_KEYS) {
            *place = key;
        }
    }
    World {
        settings: Settings {
            abi_version: ABI_VERSION,
            port: SERVICE_PORT,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            address_count: 2,
            max_burst: MAX_BURST,
            reserved: 0,
            mac: EDGE_MAC,
            addresses,
        },
        cookies: Cookies {
            epoch: EPOCH,
            reserved: 0,
            keys,
        },
        id: ChunkId([0x5e; 32]),
        resident: Resident {
            slot: 0x0102_0304,
            generation: 0x0a0b_0c0d,
        },
    }
}

/// A packet under construction: a well-formed request of the golden client, until told otherwise.
#[derive(Clone)]
pub struct Build {
    destination_mac: [u8; 6],
    source_mac: [u8; 6],
    tags: Vec<u16>,
    ethertype: Option<u16>,
    v6: bool,
    source: Vec<u8>,
    destination: Vec<u8>,
    protocol: u8,
    /// IPv4 options or IPv6 extension headers.
    extra: Vec<u8>,
    fragment: u16,
    ttl: u8,
    source_port: u16,
    destination_port: u16,
    payload: Vec<u8>,
    udp_bytes_off: i32,
    ip_bytes_off: i32,
    trailer_bytes: usize,
}

/// A request over IPv4.
pub fn v4(payload: Vec<u8>) -> Build {
    Build {
        destination_mac: EDGE_MAC,
        source_mac: CLIENT_MAC,
        tags: Vec::new(),
        ethertype: None,
        v6: false,
        source: CLIENT_V4.to_vec(),
        destination: EDGE_V4.to_vec(),
        protocol: 17,
        extra: Vec::new(),
        fragment: 0x4000,
        ttl: 61,
        source_port: CLIENT_PORT,
        destination_port: SERVICE_PORT,
        payload,
        udp_bytes_off: 0,
        ip_bytes_off: 0,
        trailer_bytes: 0,
    }
}

/// A request over IPv6.
pub fn v6(payload: Vec<u8>) -> Build {
    Build {
        v6: true,
        source: CLIENT_V6.to_vec(),
        destination: EDGE_V6.to_vec(),
        ..v4(payload)
    }
}

impl Build {
    pub fn source(mut self, address: &[u8], port: u16) -> Self {
        self.source = address.to_vec();
        self.source_port = port;
        self
    }

    pub fn destination(mut self, address: &[u8], port: u16) -> Self {
        self.destination = address.to_vec();
        self.destination_port = port;
        self
    }

    pub fn macs(mut self, source: [u8; 6], destination: [u8; 6]) -> Self {
        self.source_mac = source;
        self.destination_mac = destination;
        self
    }

    pub fn tag(mut self, ethertype: u16) -> Self {
        self.tags.push(ethertype);
        self
    }

    fn ethertype(mut self, ethertype: u16) -> Self {
        self.ethertype = Some(ethertype);
        self
    }

    fn protocol(mut self, protocol: u8) -> Self {
        self.protocol = protocol;
        self
    }

    /// IPv4 options, or one IPv6 extension header of this type.
    pub fn extra(mut self, kind: u8, bytes: &[u8]) -> Self {
        if self.v6 {
            self.extra = [&[17, 0], bytes].concat();
            self.protocol = kind;
        } else {
            self.extra = bytes.to_vec();
        }
        self
    }

    pub fn fragment(mut self, flags_and_offset: u16) -> Self {
        self.fragment = flags_and_offset;
        self
    }

    fn lengths_off(mut self, ip: i32, udp: i32) -> Self {
        self.ip_bytes_off = ip;
        self.udp_bytes_off = udp;
        self
    }

    fn trailer(mut self, bytes: usize) -> Self {
        self.trailer_bytes = bytes;
        self
    }

    /// The way back: sides changed, answer in place of the request, no trailer.
    fn answer(&self, payload: Vec<u8>) -> Self {
        Self {
            destination_mac: self.source_mac,
            source_mac: self.destination_mac,
            source: self.destination.clone(),
            destination: self.source.clone(),
            source_port: self.destination_port,
            destination_port: self.source_port,
            payload,
            fragment: 0x4000,
            ttl: 64,
            trailer_bytes: 0,
            ..self.clone()
        }
    }

    /// The frame, with right checksums.
    pub fn frame(&self) -> Vec<u8> {
        let udp_bytes = self.payload.len().saturating_add(8);
        let mut udp = Vec::new();
        udp.extend(self.source_port.to_be_bytes());
        udp.extend(self.destination_port.to_be_bytes());
        udp.extend(shifted(udp_bytes, self.udp_bytes_off));
        udp.extend([0, 0]);
        udp.extend(&self.payload);
        let pseudo = [
            self.source.as_slice(),
            &self.destination,
            &shifted(udp_bytes, 0),
            &[0, 17],
            &udp,
        ]
        .concat();
        let sum = match checksum(&pseudo) {
            0 => 0xffff,
            sum => sum,
        };
        splice(&mut udp, 6, &sum.to_be_bytes());

        let mut frame = [self.destination_mac, self.source_mac].concat();
        for tag in &self.tags {
            frame.extend(tag.to_be_bytes());
            frame.extend([0x20, 0x05]);
        }
        let ethertype = self
            .ethertype
            .unwrap_or(if self.v6 { 0x86dd } else { 0x0800 });
        frame.extend(ethertype.to_be_bytes());
        let behind = self.extra.len().saturating_add(udp.len());
        if self.v6 {
            frame.extend([0x60, 0, 0, 0]);
            frame.extend(shifted(behind, self.ip_bytes_off));
            frame.extend([self.protocol, self.ttl]);
            frame.extend(&self.source);
            frame.extend(&self.destination);
            frame.extend(&self.extra);
        } else {
            let words = self.extra.len() / 4;
            let mut ip = vec![0x45_u8.saturating_add(u8::try_from(words).unwrap_or(0)), 0];
            ip.extend(shifted(behind.saturating_add(20), self.ip_bytes_off));
            ip.extend([0, 0]);
            ip.extend(self.fragment.to_be_bytes());
            ip.extend([self.ttl, self.protocol, 0, 0]);
            ip.extend(&self.source);
            ip.extend(&self.destination);
            ip.extend(&self.extra);
            let sum = checksum(&ip);
            splice(&mut ip, 10, &sum.to_be_bytes());
            frame.extend(ip);
        }
        frame.extend(udp);
        frame.extend(vec![0; self.trailer_bytes]);
        frame
    }
}

fn splice(bytes: &mut [u8], at: usize, new: &[u8]) {
    for (byte, new) in bytes.iter_mut().skip(at).zip(new) {
        *byte = *new;
    }
}

fn shifted(length: usize, off: i32) -> [u8; 2] {
    let length = i32::try_from(length).unwrap_or(0).saturating_add(off);
    u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes()
}

/// The Internet checksum the slow way, to check the fast one against.
fn checksum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for word in bytes.chunks(2) {
        let high = u16::from(word.first().copied().unwrap_or(0)) << 8;
        let low = u16::from(word.get(1).copied().unwrap_or(0));
        sum = sum.saturating_add(u32::from(high | low));
        sum = (sum & 0xffff).saturating_add(sum >> 16);
    }
    !u16::try_from(sum).unwrap_or(0)
}

/// A HELLO of this length.
pub fn hello(len_bytes: usize) -> Vec<u8> {
    let mut payload = Hello { nonce: NONCE }.encode().to_vec();
    payload.resize(len_bytes, 0);
    payload
}

/// A GET of these, by the golden client if the cookie is its own.
pub fn get(cookie: Cookie, id: ChunkId, want: u128) -> Vec<u8> {
    Get { cookie, id, want }.encode().to_vec()
}

fn changed(mut payload: Vec<u8>, at: usize, to: u8) -> Vec<u8> {
    splice(&mut payload, at, &[to]);
    payload
}

fn welcome(request: &Build, cookie: Cookie) -> Vec<u8> {
    let mut payload = Welcome {
        segment_bytes: SEGMENT_BYTES_DEFAULT,
        max_burst: MAX_BURST,
        lifetime_seconds: 120,
        nonce: NONCE,
        cookie,
    }
    .encode()
    .to_vec();
    payload.resize(request.payload.len(), 0);
    request.answer(payload).frame()
}

fn nack(request: &Build, id: ChunkId, cookie: Cookie) -> Vec<u8> {
    let nack = Nack {
        code: NackCode::Cookie,
        retry_ms: 0,
        tag: id.tag(),
        echo: cookie.value,
    }
    .encode();
    request.answer(nack.to_vec()).frame()
}

/// Every golden packet.
pub fn all() -> Vec<Case> {
    let world = world();
    let mut rows = Vec::new();
    left_to_the_kernel(&world, &mut rows);
    dropped(&world, &mut rows);
    answered(&world, &mut rows);
    steered(&world, &mut rows);
    rows.into_iter()
        .map(|(name, frame, expect)| Case {
            name,
            frame,
            expect,
            world,
        })
        .collect()
}

type Row = (&'static str, Vec<u8>, Expect);

struct Cookies4 {
    v4: Cookie,
    v6: Cookie,
}

fn good_cookies(world: &World) -> Cookies4 {
    let issue = |address| {
        let client = Endpoint {
            address,
            port: CLIENT_PORT,
        };
        world.cookies.issue(&client).unwrap_or_default()
    };
    Cookies4 {
        v4: issue(Address::v4(CLIENT_V4)),
        v6: issue(Address::v6(CLIENT_V6)),
    }
}

fn left_to_the_kernel(world: &World, rows: &mut Vec<Row>) {
    let cookies = good_cookies(world);
    let request = get(cookies.v4, world.id, 1);
    let request6 = get(cookies.v6, world.id, 1);
    let absent = ChunkId([0xab; 32]);
    let mut row = |name, frame: Vec<u8>, reason| rows.push((name, frame, Expect::Pass(reason)));
    let short = |build: Build, len_bytes| {
        let mut frame = build.frame();
        frame.truncate(len_bytes);
        frame
    };

    row(
        "a frame that ends in its VLAN tag",
        short(v4(hello(1200)).tag(0x8100), 17),
        Reason::ShortFrame,
    );
    row(
        "a frame that ends in its IPv4 header",
        short(v4(hello(1200)), 33),
        Reason::ShortFrame,
    );
    row(
        "a frame that ends in its IPv6 header",
        short(v6(hello(1200)), 53),
        Reason::ShortFrame,
    );
    row(
        "a frame that ends in its UDP header",
        short(v4(hello(1200)), 41),
        Reason::ShortFrame,
    );
    row(
        "ARP",
        v4(Vec::new()).ethertype(0x0806).frame(),
        Reason::NotIp,
    );
    row(
        "an IPv6 packet under the IPv4 ethertype",
        v6(request6.clone()).ethertype(0x0800).frame(),
        Reason::NotIp,
    );
    row(
        "an IPv4 packet under the IPv6 ethertype",
        v4(hello(1200)).ethertype(0x86dd).frame(),
        Reason::NotIp,
    );
    row(
        "three VLAN tags",
        v4(request.clone())
            .tag(0x88a8)
            .tag(0x8100)
            .tag(0x8100)
            .frame(),
        Reason::VlanDepth,
    );
    row(
        "TCP over IPv4",
        v4(request.clone()).protocol(6).frame(),
        Reason::NotUdp,
    );
    row(
        "ICMPv6",
        v6(request6.clone()).protocol(58).frame(),
        Reason::NotUdp,
    );
    row(
        "another port",
        v4(request.clone()).destination(&EDGE_V4, 53).frame(),
        Reason::NotOurs,
    );
    row(
        "another IPv4 address",
        v4(request.clone())
            .destination(&[192, 0, 2, 11], SERVICE_PORT)
            .frame(),
        Reason::NotOurs,
    );
    row(
        "another IPv6 address",
        v6(request6.clone())
            .destination(&CLIENT_V6, SERVICE_PORT)
            .frame(),
        Reason::NotOurs,
    );
    row(
        "the unspecified address, which fills the unused places",
        v6(request6.clone())
            .destination(&[0; 16], SERVICE_PORT)
            .frame(),
        Reason::NotOurs,
    );
    row(
        "another station",
        v4(request.clone()).macs(CLIENT_MAC, CLIENT_MAC).frame(),
        Reason::OtherMac,
    );
    row(
        "all stations",
        v4(request.clone()).macs(CLIENT_MAC, [0xff; 6]).frame(),
        Reason::OtherMac,
    );
    row(
        "IPv4 options",
        v4(request.clone()).extra(0, &[1, 1, 1, 0]).frame(),
        Reason::IpOptions,
    );
    row(
        "a first IPv4 fragment",
        v4(request.clone()).fragment(0x2000).frame(),
        Reason::Fragment,
    );
    row(
        "a later IPv4 fragment",
        v4(request).fragment(0x0007).frame(),
        Reason::Fragment,
    );
    row(
        "an IPv6 fragment",
        v6(request6.clone()).extra(44, &[0; 6]).frame(),
        Reason::Fragment,
    );
    row(
        "IPv6 hop-by-hop options",
        v6(request6.clone()).extra(0, &[1, 4, 0, 0, 0, 0]).frame(),
        Reason::Ipv6Extension,
    );
    row(
        "IPv6 destination options",
        v6(request6).extra(60, &[1, 4, 0, 0, 0, 0]).frame(),
        Reason::Ipv6Extension,
    );
    row(
        "a GET over IPv4 for a chunk that is not here",
        v4(get(cookies.v4, absent, 1)).frame(),
        Reason::Miss,
    );
    row(
        "a GET over IPv6 for a chunk that is not here",
        v6(get(cookies.v6, absent, 1)).frame(),
        Reason::Miss,
    );
}

fn dropped(world: &World, rows: &mut Vec<Row>) {
    let cookies = good_cookies(world);
    let request = get(cookies.v4, world.id, 1);
    let request6 = get(cookies.v6, world.id, 1);
    let mut row =
        |name, build: Build, reason| rows.push((name, build.frame(), Expect::Drop(reason)));

    let from = |address: [u8; 4]| v4(hello(1232)).source(&address, CLIENT_PORT);
    row("from this network", from([0, 0, 0, 0]), Reason::BadSource);
    row("from loopback", from([127, 0, 0, 1]), Reason::BadSource);
    row(
        "from an IPv4 group",
        from([224, 0, 0, 1]),
        Reason::BadSource,
    );
    row("from everybody", from([255; 4]), Reason::BadSource);
    row(
        "from the edge's own IPv4 address",
        from(EDGE_V4),
        Reason::BadSource,
    );
    row(
        "from port 0",
        v4(hello(1232)).source(&CLIENT_V4, 0),
        Reason::BadSource,
    );
    row(
        "from a group of stations",
        v4(hello(1232)).macs([0x03; 6], EDGE_MAC),
        Reason::BadSource,
    );
    let from = |address: [u8; 16]| v6(hello(1232)).source(&address, CLIENT_PORT);
    row(
        "from the IPv6 loopback",
        from(core::net::Ipv6Addr::LOCALHOST.octets()),
        Reason::BadSource,
    );
    row("from no IPv6 address", from([0; 16]), Reason::BadSource);
    row("from an IPv6 group", from([0xff; 16]), Reason::BadSource);
    row(
        "from the edge's own IPv6 address",
        from(EDGE_V6),
        Reason::BadSource,
    );
    let mapped = core::net::Ipv4Addr::from(CLIENT_V4)
        .to_ipv6_mapped()
        .octets();
    row(
        "from an IPv4 address in an IPv6 packet",
        from(mapped),
        Reason::BadSource,
    );

    let off = |ip, udp| v4(request.clone()).lengths_off(ip, udp);
    row(
        "UDP shorter than its header",
        off(0, -65),
        Reason::BadLength,
    );
    row("UDP shorter than IP", off(0, -1), Reason::BadLength);
    row("UDP longer than IP", off(0, 1), Reason::BadLength);
    row("both longer than the frame", off(1, 1), Reason::BadLength);
    row(
        "an IPv4 total length of nothing",
        off(-92, 0),
        Reason::BadLength,
    );
    row(
        "an IPv6 payload length of nothing",
        v6(request6).lengths_off(-72, 0),
        Reason::BadLength,
    );

    row("an empty datagram", v4(Vec::new()), Reason::BadMagic);
    row("one byte", v4(vec![0xed]), Reason::BadMagic);
    row(
        "one byte, and a good opening behind its end",
        v4(vec![0xed]).trailer(1),
        Reason::BadMagic,
    );
    row(
        "another magic",
        v4(changed(request.clone(), 0, 0xee)),
        Reason::BadMagic,
    );
    row(
        "a GET of version 2",
        v4(changed(request.clone(), 1, 0x23)),
        Reason::BadVersion,
    );
    row(
        "a WELCOME",
        v4(changed(request.clone(), 1, 0x12)),
        Reason::BadKind,
    );
    row(
        "DATA",
        v4(changed(request.clone(), 1, 0x14)),
        Reason::BadKind,
    );
    row(
        "a NACK",
        v4(changed(request.clone(), 1, 0x15)),
        Reason::BadKind,
    );
    row(
        "kind 0",
        v4(changed(request.clone(), 1, 0x10)),
        Reason::BadKind,
    );
    row(
        "a GET with a reserved byte set",
        v4(changed(request.clone(), 3, 1)),
        Reason::BadReserved,
    );
    row(
        "a HELLO with a reserved byte set",
        v4(changed(hello(1232), 7, 1)),
        Reason::BadReserved,
    );
    row(
        "a HELLO that is too short",
        v4(hello(1199)),
        Reason::HelloSize,
    );
    row(
        "a HELLO that is too long",
        v4(hello(1233)),
        Reason::HelloSize,
    );
    row(
        "a short HELLO of version 2",
        v4(changed(hello(1199), 1, 0x21)),
        Reason::HelloSize,
    );
    row(
        "a GET of 63 bytes",
        v4(request.get(..63).unwrap_or_default().to_vec()),
        Reason::GetSize,
    );
    row(
        "a GET of 65 bytes",
        v4([request.as_slice(), &[0]].concat()),
        Reason::GetSize,
    );
}

fn answered(world: &World, rows: &mut Vec<Row>) {
    let cookies = good_cookies(world);
    let mut hellos = |name, build: Build, cookie| {
        let answer = welcome(&build, cookie);
        rows.push((name, build.frame(), Expect::Reply(Reason::Welcome, answer)));
    };
    hellos("a HELLO over IPv4", v4(hello(1232)), cookies.v4);
    hellos("a HELLO over IPv6", v6(hello(1232)), cookies.v6);
    hellos("the shortest HELLO", v4(hello(1200)), cookies.v4);
    hellos(
        "a HELLO with a VLAN tag",
        v4(hello(1232)).tag(0x8100),
        cookies.v4,
    );
    hellos(
        "a HELLO over IPv6 with two tags",
        v6(hello(1232)).tag(0x88a8).tag(0x8100),
        cookies.v6,
    );
    hellos(
        "a HELLO in a longer frame",
        v4(hello(1201)).trailer(7),
        cookies.v4,
    );

    // The answer's checksum is that of zero padding, so the words that come back do not arrive.
    let clean = v4(hello(1232));
    let loaded = |mut frame: Vec<u8>| {
        splice(&mut frame, 14 + 20 + 8 + 100, b"words for somebody else");
        frame
    };
    rows.push((
        "a HELLO with words in its padding",
        loaded(clean.frame()),
        Expect::Reply(Reason::Welcome, loaded(welcome(&clean, cookies.v4))),
    ));
    let other = v4(changed(hello(1232), 1, 0x21));
    rows.push((
        "a HELLO of version 2",
        other.frame(),
        Expect::Reply(Reason::WelcomeVersion, welcome(&other, Cookie::default())),
    ));

    let mut nacks = |name, build: fn(Vec<u8>) -> Build, tags: &[u16], cookie| {
        let mut build = build(get(cookie, world.id, 1));
        for tag in tags {
            build = build.tag(*tag);
        }
        let answer = nack(&build, world.id, cookie);
        rows.push((
            name,
            build.frame(),
            Expect::Reply(Reason::NackCookie, answer),
        ));
    };
    let wrong = |cookie: Cookie| Cookie {
        value: [7; 8],
        ..cookie
    };
    nacks(
        "a GET with a wrong cookie over IPv4",
        v4,
        &[],
        wrong(cookies.v4),
    );
    nacks(
        "a GET with a wrong cookie over IPv6",
        v6,
        &[],
        wrong(cookies.v6),
    );
    nacks(
        "a GET with a wrong cookie and a VLAN tag",
        v4,
        &[0x8100],
        wrong(cookies.v4),
    );
    nacks("a GET with somebody else's cookie", v6, &[], cookies.v4);
    nacks(
        "a GET of an epoch long past",
        v4,
        &[],
        Cookie {
            epoch: EPOCH - 2,
            ..cookies.v4
        },
    );
    nacks(
        "a GET of an epoch far ahead",
        v4,
        &[],
        Cookie {
            epoch: EPOCH + 2,
            ..cookies.v4
        },
    );
    nacks(
        "a GET that never had a cookie",
        v4,
        &[],
        Cookie {
            epoch: 0,
            value: [0; 8],
        },
    );
}

fn steered(world: &World, rows: &mut Vec<Row>) {
    let cookies = good_cookies(world);
    let mut row = |name, build: Build| {
        rows.push((name, build.frame(), Expect::Steer(world.resident)));
    };
    // The cookie of the specification's vector, literally.
    let vector = Cookie {
        epoch: EPOCH,
        value: 0xe843_36ae_8ed4_fbd9_u64.to_be_bytes(),
    };
    row("a hit over IPv4", v4(get(vector, world.id, u128::MAX)));
    row("a hit over IPv6", v6(get(cookies.v6, world.id, 1 << 107)));
    row("a hit that wants nothing", v4(get(cookies.v4, world.id, 0)));
    row(
        "a hit with a VLAN tag",
        v4(get(cookies.v4, world.id, 1)).tag(0x8100),
    );
    row(
        "a hit with two tags",
        v6(get(cookies.v6, world.id, 1)).tag(0x88a8).tag(0x8100),
    );
    row(
        "a hit in a padded frame",
        v4(get(cookies.v4, world.id, 1)).trailer(18),
    );
    for (name, epoch) in [
        ("a hit with the cookie of the epoch before", EPOCH - 1),
        ("a hit with the cookie of the epoch to come", EPOCH + 1),
    ] {
        let then = Cookies {
            epoch,
            ..world.cookies
        };
        let client = Endpoint {
            address: Address::v4(CLIENT_V4),
            port: CLIENT_PORT,
        };
        row(
            name,
            v4(get(then.issue(&client).unwrap_or_default(), world.id, 1)),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rewrite;
    use crate::steer::{Verdict, decide};
    use std::println;
    extern crate std;

    /// Does on the host what the program does in the kernel.
    fn judge(frame: &[u8], world: &World) -> Expect {
        match decide(frame, world) {
            Verdict::Pass(reason) => Expect::Pass(reason),
            Verdict::Drop(reason) => Expect::Drop(reason),
            Verdict::Steer(resident) => Expect::Steer(resident),
            Verdict::Reply(reason, parsed, reply) => {
                let mut answer = frame.to_vec();
                let len_bytes = rewrite::reply(answer.as_mut_slice(), &parsed, &reply).unwrap();
                assert!(
                    len_bytes <= frame.len(),
                    "I14: the answer is longer than the request"
                );
                answer.truncate(len_bytes);
                Expect::Reply(reason, answer)
            }
        }
    }

    #[test]
    fn every_golden_packet_gets_its_verdict() {
        for case in all() {
            assert_eq!(
                judge(&case.frame, &case.world),
                case.expect,
                "{}",
                case.name
            );
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = all().iter().map(|case| case.name).collect();
        names.sort_unstable();
        let count = names.len();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    #[test]
    fn golden_requests_and_answers_are_real_packets() {
        for case in all() {
            let frames = match &case.expect {
                Expect::Reply(_, answer) => vec![&case.frame, answer],
                Expect::Steer(_) => vec![&case.frame],
                Expect::Pass(_) | Expect::Drop(_) => continue,
            };
            for frame in frames {
                let packet = etherparse::PacketHeaders::from_ethernet_slice(frame)
                    .unwrap_or_else(|error| panic!("{}: {error}", case.name));
                let Some(etherparse::TransportHeader::Udp(_)) = packet.transport else {
                    panic!("{}: not UDP", case.name);
                };
                if let Some(etherparse::NetHeaders::Ipv4(ip, _)) = packet.net {
                    assert_eq!(
                        ip.header_checksum,
                        ip.calc_header_checksum(),
                        "{}",
                        case.name
                    );
                }
            }
        }
    }

    #[test]
    fn no_truncation_and_no_changed_byte_panics_or_amplifies() {
        let mut judged = 0_u64;
        for case in all() {
            for len_bytes in 0..case.frame.len() {
                judge(&case.frame[..len_bytes], &case.world);
                judged += 1;
            }
            let mut frame = case.frame.clone();
            for at in 0..frame.len() {
                // Behind the headers lies padding that nobody reads.
                let changes = if at < 200 { 1..=0xff } else { 0xff..=0xff };
                for change in changes {
                    frame[at] ^= change;
                    judge(&frame, &case.world);
                    frame[at] ^= change;
                    judged += 1;
                }
            }
        }
        println!("{judged} damaged packets judged");
    }

    #[test]
    fn a_hundred_thousand_random_slices_do_not_panic_or_amplify() {
        let world = world();
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut random = || {
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state
        };
        let seeds = all();
        for round in 0..100_000_u64 {
            let len_bytes = usize::try_from(random() % 1600).unwrap();
            let mut bytes: Vec<u8> = (0..len_bytes).map(|_| random().to_be_bytes()[0]).collect();
            // Noise alone rarely gets past the ethertype: let most slices begin like a packet.
            if round % 4 != 0 {
                let seed = &seeds[usize::try_from(random()).unwrap() % seeds.len()].frame;
                let keep = usize::try_from(random()).unwrap() % 80;
                for (byte, good) in bytes.iter_mut().zip(seed.iter().take(keep)) {
                    *byte = *good;
                }
            }
            judge(&bytes, &world);
        }
    }

    #[test]
    fn a_server_of_another_abi_is_not_served_for() {
        let mut world = world();
        world.settings.abi_version = ABI_VERSION + 1;
        for case in all() {
            assert_eq!(
                judge(&case.frame, &world),
                Expect::Pass(Reason::NotServing),
                "I13"
            );
        }
    }
}
