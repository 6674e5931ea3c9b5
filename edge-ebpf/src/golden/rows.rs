//! The table: one packet per line, with its expected verdict.

use alloc::vec;
use alloc::vec::Vec;

use super::build::{Build, changed, get, hello, splice, v4, v6};
use super::{
    CLIENT_MAC, CLIENT_PORT, CLIENT_V4, CLIENT_V6, EDGE_MAC, EDGE_V4, EDGE_V6, EPOCH, Expect,
    HOST_V4, HOST_V6, MAX_BURST, NONCE, World,
};
use crate::frame::{Address, Endpoint};
use crate::maps::Cookies;
use crate::reason::Reason;
use crate::wire::{ChunkId, Cookie, Nack, NackCode, SEGMENT_BYTES_DEFAULT, SERVICE_PORT, Welcome};

pub(super) type Row = (&'static str, Vec<u8>, Expect);

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

/// Valid cookies of the golden client, over IPv4 and over IPv6.
fn good_cookies(world: &World) -> (Cookie, Cookie) {
    let issue = |address| {
        let client = Endpoint {
            address,
            port: CLIENT_PORT,
        };
        world.cookies.issue(&client).unwrap_or_default()
    };
    (issue(Address::v4(CLIENT_V4)), issue(Address::v6(CLIENT_V6)))
}

#[rustfmt::skip] // one packet a line
pub(super) fn left_to_the_kernel(world: &World, rows: &mut Vec<Row>) {
    let (cookie, cookie6) = good_cookies(world);
    let request = || v4(get(cookie, world.id, 1));
    let request6 = || v6(get(cookie6, world.id, 1));
    let absent = ChunkId([0xab; 32]);
    let cut = |build: Build, len_bytes| build.frame().into_iter().take(len_bytes).collect();
    let mut row = |name, frame: Vec<u8>, reason| rows.push((name, frame, Expect::Pass(reason)));

    row("a frame that ends in its VLAN tag", cut(request().tag(0x8100), 17), Reason::ShortFrame);
    row("a frame that ends in its IPv4 header", cut(request(), 33), Reason::ShortFrame);
    row("a frame that ends in its IPv6 header", cut(request6(), 53), Reason::ShortFrame);
    row("a frame that ends in its UDP header", cut(request(), 41), Reason::ShortFrame);
    row("ARP", request().ethertype(0x0806).frame(), Reason::NotIp);
    row("IPv6 under the IPv4 ethertype", request6().ethertype(0x0800).frame(), Reason::NotIp);
    row("IPv4 under the IPv6 ethertype", v4(hello(1200)).ethertype(0x86dd).frame(), Reason::NotIp);
    row("three VLAN tags", request().tag(0x88a8).tag(0x8100).tag(0x8100).frame(), Reason::VlanDepth);
    row("TCP over IPv4", request().protocol(6).frame(), Reason::NotUdp);
    row("ICMPv6", request6().protocol(58).frame(), Reason::NotUdp);
    row("another port", request().destination(&EDGE_V4, 53).frame(), Reason::NotOurs);
    row("another IPv4 address", request().destination(&[192, 0, 2, 11], SERVICE_PORT).frame(), Reason::NotOurs);
    row("another IPv6 address", request6().destination(&CLIENT_V6, SERVICE_PORT).frame(), Reason::NotOurs);
    row("the unspecified address, which fills unused places", request6().destination(&[0; 16], SERVICE_PORT).frame(), Reason::NotOurs);
    row("another station", request().macs(CLIENT_MAC, CLIENT_MAC).frame(), Reason::OtherMac);
    row("all stations", request().macs(CLIENT_MAC, [0xff; 6]).frame(), Reason::OtherMac);
    row("a VLAN that the host does not have", request().vlan(0x8100, 999).frame(), Reason::OtherVlan);
    row("a VLAN of the host as a service tag", request().vlan(0x88a8, 5).frame(), Reason::OtherVlan);
    row("two VLANs of the host that it has not around each other", request6().tag(0x8100).tag(0x8100).frame(), Reason::OtherVlan);
    let mut damaged = request().frame();
    splice(&mut damaged, 24, &[0x77]);
    row("a wrong header checksum", damaged, Reason::BadChecksum);
    row("IPv6 without a UDP checksum", v6(hello(1232)).without_checksum().frame(), Reason::BadChecksum);
    row("IPv4 options", request().extra(0, &[1, 1, 1, 0]).frame(), Reason::IpOptions);
    row("a first IPv4 fragment", request().fragment(0x2000).frame(), Reason::Fragment);
    row("a later IPv4 fragment", request().fragment(0x0007).frame(), Reason::Fragment);
    row("an IPv6 fragment", request6().extra(44, &[0; 6]).frame(), Reason::Fragment);
    row("IPv6 hop-by-hop options", request6().extra(0, &[1, 4, 0, 0, 0, 0]).frame(), Reason::Ipv6Extension);
    row("IPv6 destination options", request6().extra(60, &[1, 4, 0, 0, 0, 0]).frame(), Reason::Ipv6Extension);
    row("a GET over IPv4 for a chunk that is not here", v4(get(cookie, absent, 1)).frame(), Reason::Miss);
    row("a GET over IPv6 for a chunk that is not here", v6(get(cookie6, absent, 1)).frame(), Reason::Miss);
}

#[rustfmt::skip] // one packet a line
pub(super) fn dropped(world: &World, rows: &mut Vec<Row>) {
    let (cookie, cookie6) = good_cookies(world);
    let bytes = || get(cookie, world.id, 1);
    let mut row = |name, build: Build, reason| rows.push((name, build.frame(), Expect::Drop(reason)));

    let from = |address: [u8; 4]| v4(hello(1232)).source(&address, CLIENT_PORT);
    row("from this network", from([0, 0, 0, 0]), Reason::BadSource);
    row("from loopback", from([127, 0, 0, 1]), Reason::BadSource);
    row("from an IPv4 group", from([224, 0, 0, 1]), Reason::BadSource);
    row("from everybody", from([255; 4]), Reason::BadSource);
    row("from the edge's own IPv4 address", from(EDGE_V4), Reason::BadSource);
    row("from another address of the edge's host", from(HOST_V4), Reason::BadSource);
    row("from port 0", v4(hello(1232)).source(&CLIENT_V4, 0), Reason::BadSource);
    row("from a group of stations", v4(hello(1232)).macs([0x03; 6], EDGE_MAC), Reason::BadSource);
    let from = |address: [u8; 16]| v6(hello(1232)).source(&address, CLIENT_PORT);
    row("from the IPv6 loopback", from(core::net::Ipv6Addr::LOCALHOST.octets()), Reason::BadSource);
    row("from no IPv6 address", from([0; 16]), Reason::BadSource);
    row("from an IPv6 group", from([0xff; 16]), Reason::BadSource);
    row("from the edge's own IPv6 address", from(EDGE_V6), Reason::BadSource);
    row("from another IPv6 address of the edge's host", from(HOST_V6), Reason::BadSource);
    let mapped = core::net::Ipv4Addr::from(CLIENT_V4).to_ipv6_mapped().octets();
    row("from an IPv4 address in an IPv6 packet", from(mapped), Reason::BadSource);

    let off = |ip, udp| v4(bytes()).lengths_off(ip, udp);
    row("UDP shorter than its header", off(0, -65), Reason::BadLength);
    row("UDP shorter than IP", off(0, -1), Reason::BadLength);
    row("UDP longer than IP", off(0, 1), Reason::BadLength);
    row("both longer than the frame", off(1, 1), Reason::BadLength);
    row("an IPv4 total length of nothing", off(-92, 0), Reason::BadLength);
    row("an IPv6 payload length of nothing", v6(get(cookie6, world.id, 1)).lengths_off(-72, 0), Reason::BadLength);

    row("an empty datagram", v4(Vec::new()), Reason::BadMagic);
    row("one byte", v4(vec![0xed]), Reason::BadMagic);
    row("one byte, and a good second one behind its end", v4(vec![0xed]).trailer(1), Reason::BadMagic);
    row("another magic", v4(changed(bytes(), 0, 0xee)), Reason::BadMagic);
    row("a GET of version 2", v4(changed(bytes(), 1, 0x23)), Reason::BadVersion);
    row("a WELCOME", v4(changed(bytes(), 1, 0x12)), Reason::BadKind);
    row("DATA", v4(changed(bytes(), 1, 0x14)), Reason::BadKind);
    row("a NACK", v4(changed(bytes(), 1, 0x15)), Reason::BadKind);
    row("kind 0", v4(changed(bytes(), 1, 0x10)), Reason::BadKind);
    row("a GET with a reserved byte set", v4(changed(bytes(), 3, 1)), Reason::BadReserved);
    row("a HELLO with a reserved byte set", v4(changed(hello(1232), 7, 1)), Reason::BadReserved);
    row("a HELLO that is too short", v4(hello(1199)), Reason::HelloSize);
    row("a HELLO that is too long", v4(hello(1457)), Reason::HelloSize);
    row("a short HELLO of version 2", v4(changed(hello(1199), 1, 0x21)), Reason::HelloSize);
    row("a GET of 63 bytes", v4(bytes().into_iter().take(63).collect()), Reason::GetSize);
    row("a GET of 65 bytes", v4([bytes(), vec![0]].concat()), Reason::GetSize);
}

#[rustfmt::skip] // one packet a line
pub(super) fn answered(world: &World, rows: &mut Vec<Row>) {
    let (cookie, cookie6) = good_cookies(world);
    let mut row = |name, build: Build, cookie| {
        let answer = welcome(&build, cookie);
        rows.push((name, build.frame(), Expect::Reply(Reason::Welcome, answer)));
    };
    row("a HELLO over IPv4", v4(hello(1232)), cookie);
    row("a HELLO over IPv6", v6(hello(1232)), cookie6);
    row("the shortest HELLO", v4(hello(1200)), cookie);
    row("the longest HELLO", v6(hello(1456)), cookie6);
    row("a HELLO with a VLAN tag", v4(hello(1232)).tag(0x8100), cookie);
    row("a HELLO over IPv6 with two tags", v6(hello(1232)).tag(0x88a8).tag(0x8100), cookie6);
    row("a HELLO in a longer frame", v4(hello(1201)).trailer(7), cookie);
    row("a HELLO with a priority and no VLAN", v4(hello(1232)).vlan(0x8100, 0x6000), cookie);
    // Hosts ignore it: RFC 1122, 3.2.1.7, and RFC 8200, 3.
    row("a HELLO that came with TTL 0", v4(hello(1232)).ttl(0), cookie);
    row("a HELLO that came with hop limit 0", v6(hello(1232)).ttl(0), cookie6);
    row("a HELLO over IPv4 without a UDP checksum", v4(hello(1232)).without_checksum(), cookie);
    // It shares its bit of the filter with an address of the host.
    let client = Endpoint { address: Address::v4([192, 1, 2, 13]), port: CLIENT_PORT };
    let near = v4(hello(1232)).source(&[192, 1, 2, 13], CLIENT_PORT);
    row("a HELLO from what may be an address of the host, and is none", near, world.cookies.issue(&client).unwrap_or_default());

    // The padding is not reflected, whatever its checksum: that of the second text equals that of
    // zeros.
    for (name, words) in [
        ("a HELLO with words in its padding", *b"words for somebody else!"),
        ("a HELLO with balanced words in its padding", *b"words for somebody \x00\x02\xbe\x00\x00"),
    ] {
        let clean = hello(1232);
        let mut loaded = clean.clone();
        splice(&mut loaded, 100, &words);
        let answer = welcome(&v4(clean), cookie);
        rows.push((name, v4(loaded).frame(), Expect::Reply(Reason::Welcome, answer)));
    }
    let other = v4(changed(hello(1232), 1, 0x21));
    let answer = Expect::Reply(Reason::WelcomeVersion, welcome(&other, Cookie::default()));
    rows.push(("a HELLO of version 2", other.frame(), answer));

    let mut row = |name, build: fn(Vec<u8>) -> Build, tags: &[u16], cookie| {
        let request = build(get(cookie, world.id, 1));
        let request = tags.iter().fold(request, |request, tag| request.tag(*tag));
        let answer = nack(&request, world.id, cookie);
        rows.push((name, request.frame(), Expect::Reply(Reason::NackCookie, answer)));
    };
    let wrong = |cookie: Cookie| Cookie { value: [7; 8], ..cookie };
    row("a GET with a wrong cookie over IPv4", v4, &[], wrong(cookie));
    row("a GET with a wrong cookie over IPv6", v6, &[], wrong(cookie6));
    row("a GET with a wrong cookie and a VLAN tag", v4, &[0x8100], wrong(cookie));
    row("a GET with somebody else's cookie", v6, &[], cookie);
    row("a GET of an epoch long past", v4, &[], Cookie { epoch: EPOCH - 2, ..cookie });
    row("a GET of an epoch far ahead", v4, &[], Cookie { epoch: EPOCH + 2, ..cookie });
    row("a GET that never had a cookie", v4, &[], Cookie::default());
}

#[rustfmt::skip] // one packet a line
pub(super) fn steered(world: &World, rows: &mut Vec<Row>) {
    let (cookie, cookie6) = good_cookies(world);
    let mut row = |name, build: Build| {
        rows.push((name, build.frame(), Expect::Steer(world.resident)));
    };
    // The cookie of the specification's test vector.
    let vector = Cookie { epoch: EPOCH, value: 0xe843_36ae_8ed4_fbd9_u64.to_be_bytes() };
    row("a hit over IPv4", v4(get(vector, world.id, u128::MAX)));
    row("a hit over IPv6", v6(get(cookie6, world.id, 1 << 107)));
    row("a hit that wants nothing", v4(get(cookie, world.id, 0)));
    row("a hit with a VLAN tag", v4(get(cookie, world.id, 1)).tag(0x8100));
    row("a hit with two tags", v6(get(cookie6, world.id, 1)).tag(0x88a8).tag(0x8100));
    row("a hit in a padded frame", v4(get(cookie, world.id, 1)).trailer(18));
    for (name, epoch) in [
        ("a hit with the cookie of the epoch before", EPOCH - 1),
        ("a hit with the cookie of the epoch to come", EPOCH + 1),
    ] {
        let then = Cookies { epoch, ..world.cookies };
        let client = Endpoint { address: Address::v4(CLIENT_V4), port: CLIENT_PORT };
        row(name, v4(get(then.issue(&client).unwrap_or_default(), world.id, 1)));
    }
}

#[rustfmt::skip] // one packet a line
pub(super) fn coalesced(world: &World, rows: &mut Vec<Row>) {
    let (cookie, cookie6) = good_cookies(world);
    let get = |cookie| get(cookie, world.id, 1);
    let mut row = |name, build: Build| {
        rows.push((name, build.frame(), Expect::Pass(Reason::Coalesced)));
    };
    row("two GETs in one frame", v4([get(cookie), get(cookie)].concat()));
    row("two GETs over IPv6 in one frame", v6([get(cookie6), get(cookie6)].concat()));
    row("as many GETs as make the length of a HELLO", v4(get(cookie).repeat(19)));
    row("two HELLOs in one frame", v4(hello(1200).repeat(2)));
    row("a HELLO and a GET in one frame", v4([hello(1232), get(cookie)].concat()));
    row("a HELLO and a GET over IPv6 in one frame", v6([hello(1392), get(cookie6)].concat()));
}
