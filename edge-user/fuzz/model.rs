//! What `docs/WIRE.md` makes of a frame, written from there and not from the code: with slices,
//! whole headers at a time, and the hash of the standard library. Only tables and the names of
//! reasons are shared with the code under test.

use std::hash::Hasher as _;

use edge_ebpf::maps::{ABI_VERSION, Cookies, Resident, Settings};
use edge_ebpf::reason::Reason;

/// What must become of a frame.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Pass(Reason),
    Drop(Reason),
    /// Sent back, and this is the whole frame.
    Reply(Reason, Vec<u8>),
    Steer(Resident),
}

/// What the headers of a frame with UDP in it say; addresses as 16 bytes.
#[derive(Clone, Debug)]
pub(crate) struct Headers {
    pub(crate) v6: bool,
    pub(crate) ip_at: usize,
    pub(crate) udp_at: usize,
    pub(crate) source: [u8; 16],
    pub(crate) source_port: u16,
    destination: [u8; 16],
    destination_port: u16,
    /// Bytes behind the IP header, as IP counts them; below zero when it counts wrong.
    ip_says: i32,
    udp_says: i32,
    /// Where the first ethertype stands, and the one of IP behind the tags.
    tags_at: std::ops::Range<usize>,
}

fn be16(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes([bytes[at], bytes[at + 1]])
}

fn mapped(v4: &[u8]) -> [u8; 16] {
    let mut out = [0; 16];
    out[10..12].fill(0xff);
    out[12..].copy_from_slice(v4);
    out
}

/// Reads down to UDP, or says why the kernel gets the frame.
pub(crate) fn udp_of(frame: &[u8]) -> Result<Headers, Reason> {
    if frame.len() < 14 {
        return Err(Reason::ShortFrame);
    }
    let mut type_at = 12;
    for tags in 0.. {
        if !matches!(be16(frame, type_at), 0x8100 | 0x88a8) {
            break;
        }
        if tags == 2 {
            return Err(Reason::VlanDepth);
        }
        type_at += 4;
        if frame.len() < type_at + 2 {
            return Err(Reason::ShortFrame);
        }
    }
    let ip_at = type_at + 2;
    let ip = &frame[ip_at..];
    let (v6, header_bytes) = match be16(frame, type_at) {
        0x0800 => (false, 20),
        0x86dd => (true, 40),
        _ => return Err(Reason::NotIp),
    };
    if ip.len() < header_bytes {
        return Err(Reason::ShortFrame);
    }
    if ip[0] >> 4 != if v6 { 6 } else { 4 } {
        return Err(Reason::NotIp);
    }
    if v6 {
        match ip[6] {
            17 => {}
            44 => return Err(Reason::Fragment),
            0 | 43 | 50 | 51 | 60 | 135 | 139 | 140 => return Err(Reason::Ipv6Extension),
            _ => return Err(Reason::NotUdp),
        }
    } else if ip[9] != 17 {
        return Err(Reason::NotUdp);
    } else if ip[0] & 15 != 5 {
        return Err(Reason::IpOptions);
    } else if be16(ip, 6) & 0x2000 != 0 || be16(ip, 6) & 0x1fff != 0 {
        return Err(Reason::Fragment);
    }
    let udp = &ip[header_bytes..];
    if udp.len() < 8 {
        return Err(Reason::ShortFrame);
    }
    let address = |v4_at: usize, v6_at: usize| {
        if v6 {
            ip[v6_at..v6_at + 16].try_into().expect("16 bytes")
        } else {
            mapped(&ip[v4_at..v4_at + 4])
        }
    };
    Ok(Headers {
        v6,
        ip_at,
        udp_at: ip_at + header_bytes,
        source: address(12, 8),
        source_port: be16(udp, 0),
        destination: address(16, 24),
        destination_port: be16(udp, 2),
        ip_says: if v6 {
            be16(ip, 4).into()
        } else {
            i32::from(be16(ip, 2)) - 20
        },
        udp_says: be16(udp, 4).into(),
        tags_at: 12..type_at,
    })
}

/// The cookie of an address and port, by the rule of "Cookie": nothing outside of the three
/// epochs.
#[expect(
    deprecated,
    reason = "the one SipHash-2-4 that is not ours and that is here anyway"
)]
pub(crate) fn cookie(
    cookies: &Cookies,
    epoch: u32,
    source: [u8; 16],
    port: u16,
) -> Option<[u8; 8]> {
    let present = i64::from(cookies.epoch);
    // Epochs are counted modulo 2^32, eight thousand years from now.
    let near = (present - 1..=present + 1).any(|near| near.rem_euclid(1 << 32) == i64::from(epoch));
    let key = cookies.keys[(epoch % 4) as usize];
    if !near || key.live != 1 || key.epoch != epoch {
        return None;
    }
    let mut hash = std::hash::SipHasher::new_with_keys(key.words[0], key.words[1]);
    hash.write(&source);
    hash.write(&port.to_be_bytes());
    hash.write(&epoch.to_be_bytes());
    Some(hash.finish().to_le_bytes())
}

/// "What it looks at": the VLANs of the golden edge.
fn under_its_vlans(frame: &[u8], udp: &Headers) -> bool {
    let tags = frame[udp.tags_at.clone()].chunks(4);
    let mut tags: Vec<_> = tags
        .map(|tag| (be16(tag, 0), be16(tag, 2) & 0xfff))
        .collect();
    while tags.first() == Some(&(0x8100, 0)) {
        // A priority alone.
        tags.remove(0);
    }
    matches!(*tags, [] | [(0x8100, 5)] | [(0x88a8, 5), (0x8100, 5)])
}

/// "What it drops without an answer": sources that cannot be answered.
fn answerable(udp: &Headers, tables: &Tables) -> bool {
    let one_host = if udp.v6 {
        let mapped = udp.source[..10] == [0; 10] && udp.source[10..12] == [0xff; 2];
        let low = udp.source[..15] == [0; 15] && udp.source[15] <= 1;
        !mapped && !low && udp.source[0] != 0xff
    } else {
        !matches!(udp.source[12], 0 | 127 | 224..)
    };
    udp.source_port != 0 && one_host && !tables.locals.contains(&udp.source)
}

/// The whole answer to a frame, with this UDP payload.
fn answer(frame: &[u8], udp: &Headers, payload: &[u8]) -> Vec<u8> {
    let mut out = [&frame[6..12], &frame[..6], &frame[12..udp.ip_at]].concat();
    let udp_bytes = u16::try_from(payload.len() + 8).expect("a datagram");
    if udp.v6 {
        out.extend([0x60, 0, 0, 0]);
        out.extend(udp_bytes.to_be_bytes());
        out.extend([17, 64]);
        out.extend(udp.destination);
        out.extend(udp.source);
    } else {
        let mut ip = vec![0x45, 0];
        ip.extend((udp_bytes + 20).to_be_bytes());
        ip.extend([0, 0, 0x40, 0, 64, 17, 0, 0]);
        ip.extend(&udp.destination[12..]);
        ip.extend(&udp.source[12..]);
        let sum = !ones_sum(&ip);
        ip[10..12].copy_from_slice(&sum.to_be_bytes());
        out.extend(ip);
    }
    let mut datagram = Vec::new();
    datagram.extend(udp.destination_port.to_be_bytes());
    datagram.extend(udp.source_port.to_be_bytes());
    datagram.extend(udp_bytes.to_be_bytes());
    datagram.extend([0, 0]);
    datagram.extend(payload);
    let sum = match !pseudo_sum(udp, &datagram) {
        0 => 0xffff,
        sum => sum,
    };
    datagram[6..8].copy_from_slice(&sum.to_be_bytes());
    out.extend(datagram);
    out
}

/// One's complement sum, as RFC 1071 has it.
pub(crate) fn ones_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0_u32;
    for pair in bytes.chunks(2) {
        sum += u32::from(pair[0]) << 8 | u32::from(pair.get(1).copied().unwrap_or(0));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).expect("folded")
}

/// The sum of a UDP datagram and its pseudo-header; the sides may be exchanged.
pub(crate) fn pseudo_sum(udp: &Headers, datagram: &[u8]) -> u16 {
    let skip = if udp.v6 { 0 } else { 12 };
    let length = u16::try_from(datagram.len()).expect("a datagram");
    let pseudo = [
        &udp.source[skip..],
        &udp.destination[skip..],
        &length.to_be_bytes(),
        &[0, 17],
        datagram,
    ];
    ones_sum(&pseudo.concat())
}

/// The tables a frame is judged by.
pub(crate) struct Tables {
    pub(crate) settings: Option<Settings>,
    pub(crate) cookies: Option<Cookies>,
    pub(crate) locals: Vec<[u8; 16]>,
    pub(crate) id: [u8; 32],
    pub(crate) resident: Resident,
}

/// What must become of a frame.
pub(crate) fn fate(frame: &[u8], tables: &Tables) -> Fate {
    let Some(settings) = tables
        .settings
        .as_ref()
        .filter(|told| told.abi_version == ABI_VERSION)
    else {
        return Fate::Pass(Reason::NotServing);
    };
    let udp = match udp_of(frame) {
        Ok(udp) => udp,
        Err(reason) => return Fate::Pass(reason),
    };
    let served = settings
        .addresses
        .iter()
        .any(|ours| ours.bytes() == udp.destination);
    if udp.destination_port != settings.port || !served || udp.destination == [0; 16] {
        return Fate::Pass(Reason::NotOurs);
    }
    if frame[..6] != settings.mac {
        return Fate::Pass(Reason::OtherMac);
    }
    if !under_its_vlans(frame, &udp) {
        return Fate::Pass(Reason::OtherVlan);
    }
    let unchecked = udp.v6 && be16(frame, udp.udp_at + 6) == 0;
    if unchecked || !udp.v6 && ones_sum(&frame[udp.ip_at..udp.udp_at]) != 0xffff {
        return Fate::Pass(Reason::BadChecksum);
    }
    // "Frames that hold several datagrams".
    let several = settings.coalesced == 1;
    let by_length = |reason| {
        if several {
            Fate::Pass(Reason::Coalesced)
        } else {
            Fate::Drop(reason)
        }
    };
    let there = i32::try_from(frame.len() - udp.udp_at).expect("a frame");
    if udp.udp_says != udp.ip_says || udp.udp_says < 8 || udp.udp_says > there {
        return by_length(Reason::BadLength);
    }
    let Some(cookies) = &tables.cookies else {
        return Fate::Pass(Reason::NotServing);
    };
    if frame[6] & 1 == 1 || !answerable(&udp, tables) {
        return Fate::Drop(Reason::BadSource);
    }
    let end = udp.udp_at + usize::try_from(udp.udp_says).expect("at least 8");
    let payload = &frame[udp.udp_at + 8..end];
    let [0xed, version_kind, ..] = *payload else {
        return Fate::Drop(Reason::BadMagic);
    };
    let fate = match version_kind {
        0x13 => fate_of_get(frame, &udp, payload, cookies, tables),
        _ if version_kind & 15 == 1 => fate_of_hello(frame, &udp, payload, settings, cookies),
        0x10..=0x1f => Fate::Drop(Reason::BadKind),
        _ => Fate::Drop(Reason::BadVersion),
    };
    match fate {
        Fate::Drop(reason @ (Reason::GetSize | Reason::HelloSize)) => by_length(reason),
        Fate::Reply(Reason::Welcome | Reason::WelcomeVersion, _)
            if several && payload[payload.len() - 64] == 0xed =>
        {
            Fate::Pass(Reason::Coalesced)
        }
        fate @ (Fate::Pass(_) | Fate::Drop(_) | Fate::Reply(..) | Fate::Steer(_)) => fate,
    }
}

fn fate_of_hello(
    frame: &[u8],
    udp: &Headers,
    payload: &[u8],
    settings: &Settings,
    cookies: &Cookies,
) -> Fate {
    if payload.len() < 1200 || payload.len() > 1456 {
        return Fate::Drop(Reason::HelloSize);
    }
    let mut welcome = vec![0; payload.len()];
    welcome[..2].copy_from_slice(&[0xed, 0x12]);
    welcome[2..4].copy_from_slice(&settings.segment_bytes.to_be_bytes());
    welcome[4] = settings.max_burst;
    welcome[7] = 120;
    welcome[8..16].copy_from_slice(&payload[8..16]);
    if payload[1] != 0x11 {
        return Fate::Reply(Reason::WelcomeVersion, answer(frame, udp, &welcome));
    }
    if payload[2..8] != [0; 6] {
        return Fate::Drop(Reason::BadReserved);
    }
    let Some(value) = cookie(cookies, cookies.epoch, udp.source, udp.source_port) else {
        return Fate::Drop(Reason::NotServing);
    };
    welcome[16..20].copy_from_slice(&cookies.epoch.to_be_bytes());
    welcome[24..32].copy_from_slice(&value);
    Fate::Reply(Reason::Welcome, answer(frame, udp, &welcome))
}

fn fate_of_get(
    frame: &[u8],
    udp: &Headers,
    payload: &[u8],
    cookies: &Cookies,
    tables: &Tables,
) -> Fate {
    if payload.len() != 64 {
        return Fate::Drop(Reason::GetSize);
    }
    if payload[2..4] != [0; 2] {
        return Fate::Drop(Reason::BadReserved);
    }
    let epoch = u32::from_be_bytes(payload[4..8].try_into().expect("4 bytes"));
    let good = cookie(cookies, epoch, udp.source, udp.source_port);
    if good.is_none_or(|good| payload[8..16] != good) {
        let mut nack = vec![0xed, 0x15, 4, 0, 0, 0, 0, 0];
        nack.extend(&payload[16..24]);
        nack.extend(&payload[8..16]);
        return Fate::Reply(Reason::NackCookie, answer(frame, udp, &nack));
    }
    if payload[16..48] == tables.id {
        Fate::Steer(tables.resident)
    } else {
        Fate::Pass(Reason::Miss)
    }
}
