//! The verdict on a packet: the whole policy, as pure functions.
//!
//! `decide` handles a frame in the XDP program. `admit` handles a datagram and is shared with the
//! socket front, so datagrams that arrive through the kernel are checked in the same way.

use core::hint::black_box;

use crate::cursor::{Packet, part};
use crate::frame::{self, Address, Endpoint, Family, Frame, Parsed, Stations};
use crate::maps::{ABI_VERSION, Cookies, Resident, Settings};
use crate::reason::Reason;
use crate::wire::{
    ChunkId, Cookie, GET_BYTES, Get, HELLO_BYTES_MAX, HELLO_BYTES_MIN, HELLO_HEADER_BYTES, Hello,
    Kind, MAGIC, Nack, NackCode, VERSION, Welcome,
};

/// The tables that `decide` looks up.
pub trait Tables {
    fn settings(&self) -> Option<&Settings>;
    fn cookies(&self) -> Option<&Cookies>;
    fn resident(&self, id: &ChunkId) -> Option<Resident>;
    /// Whether this is an address of the host. Called only for addresses that pass the settings'
    /// filter.
    fn is_local(&self, address: &Address) -> bool;
}

/// The verdict on a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// To the kernel, unchanged.
    Pass(Reason),
    Drop(Reason),
    /// Back to the sender, rewritten.
    Reply(Reason, Frame, Reply),
    /// To the AF_XDP socket of its queue.
    Steer(Resident),
}

/// An answer that replaces the request in place.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reply {
    /// As long as the HELLO.
    Welcome(Welcome),
    Nack(Nack),
}

/// The verdict on a datagram to the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Admission {
    Refuse(Reason),
    Reply(Reason, Reply),
    /// A GET from an address that has proved it receives.
    Get(Get),
}

#[inline(always)]
pub fn decide<P: Packet + ?Sized, T: Tables>(packet: &P, tables: &T) -> Verdict {
    let Some(settings) = tables.settings() else {
        return Verdict::Pass(Reason::NotServing);
    };
    if settings.abi_version != ABI_VERSION {
        return Verdict::Pass(Reason::NotServing);
    }
    // I1: the cheapest check first, because most packets of a busy host are not ours.
    let frame = match frame::parse_if(packet, |port| port == settings.port) {
        Parsed::Udp(frame) => frame,
        Parsed::Kernel(reason) => return Verdict::Pass(reason),
    };
    if !settings.serves(&frame.destination.address) {
        return Verdict::Pass(Reason::NotOurs);
    }
    let Some(stations) = packet.at(0).map(Stations::of) else {
        return Verdict::Pass(Reason::ShortFrame);
    };
    if stations.destination != settings.mac {
        return Verdict::Pass(Reason::OtherMac);
    }
    if !settings.serves_under(frame.tags) {
        return Verdict::Pass(Reason::OtherVlan);
    }
    let unchecked = frame.family == Family::V6 && !frame.has_checksum;
    if unchecked || !frame.header_is_whole(packet) {
        return Verdict::Pass(Reason::BadChecksum);
    }
    // A frame with several coalesced datagrams has the length of none of them.
    let refuse = |reason| {
        let by_length = matches!(
            reason,
            Reason::BadLength | Reason::HelloSize | Reason::GetSize
        );
        if by_length && settings.coalesced != 0 {
            Verdict::Pass(Reason::Coalesced)
        } else {
            Verdict::Drop(reason)
        }
    };
    let Some(payload_bytes) = frame.payload_bytes(packet.len_bytes()) else {
        return refuse(Reason::BadLength);
    };
    let Some(cookies) = tables.cookies() else {
        return Verdict::Pass(Reason::NotServing);
    };
    let [group, ..] = stations.source;
    if group & 1 != 0 {
        return Verdict::Drop(Reason::BadSource);
    }
    let source = &frame.source.address;
    let datagram = Datagram {
        source: frame.source,
        family: frame.family,
        payload_bytes,
        from_here: settings.locals.may_hold(source) && tables.is_local(source),
        loopback: false,
    };
    match admit(packet, frame.payload_at(), &datagram, settings, cookies) {
        Admission::Refuse(reason) => refuse(reason),
        Admission::Reply(_, Reply::Welcome(_))
            if settings.coalesced != 0 && ends_in_a_get(packet, &frame, payload_bytes) =>
        {
            Verdict::Pass(Reason::Coalesced)
        }
        Admission::Reply(reason, reply) => Verdict::Reply(reason, frame, reply),
        Admission::Get(get) => match tables.resident(&get.id) {
            Some(resident) => Verdict::Steer(resident),
            None => Verdict::Pass(Reason::Miss),
        },
    }
}

const HELLO_BYTES_MASK: usize = HELLO_BYTES_MAX.next_power_of_two() - 1;

/// Whether an apparent HELLO may be a HELLO followed by a GET: the kernel can append a shorter
/// datagram of the same flow, and together they may be no longer than a HELLO. A HELLO by itself
/// ends in zeros.
#[inline(always)]
fn ends_in_a_get<P: Packet + ?Sized>(packet: &P, frame: &Frame, payload_bytes: usize) -> bool {
    // The mask proves to the verifier that the offset is not negative. It changes nothing, which is
    // hidden from the compiler so that it keeps the mask.
    let before = black_box(payload_bytes).wrapping_sub(GET_BYTES) & HELLO_BYTES_MASK;
    let last = frame.payload_at().wrapping_add(before);
    packet.at::<1>(last).is_some_and(|first| *first == [MAGIC])
}

/// What is known of a datagram to the service.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Datagram {
    pub source: Endpoint,
    pub family: Family,
    pub payload_bytes: usize,
    /// Whether its source is an address of the edge's host.
    pub from_here: bool,
    /// Whether its destination is a loopback address, which only a socket can receive.
    pub loopback: bool,
}

/// The verdict on a datagram whose payload begins at `at`.
///
/// I14: an answer is at most as long as its request unless the cookie is valid.
#[inline(always)]
pub fn admit<P: Packet + ?Sized>(
    packet: &P,
    at: usize,
    datagram: &Datagram,
    settings: &Settings,
    cookies: &Cookies,
) -> Admission {
    let source = &datagram.source;
    let bad = if datagram.loopback && source.address.is_loopback() {
        // From the service itself, which would answer its own answers.
        source.port == settings.port
    } else {
        !source.address.can_be_answered(datagram.family) || datagram.from_here
    };
    if bad || source.port == 0 {
        return Admission::Refuse(Reason::BadSource);
    }
    let Some(opening) = packet.at::<2>(at) else {
        return Admission::Refuse(Reason::BadMagic);
    };
    let [magic, version_kind] = *opening;
    if datagram.payload_bytes < 2 || magic != MAGIC {
        return Admission::Refuse(Reason::BadMagic);
    }
    let (version, kind) = (version_kind >> 4, version_kind & 0x0f);
    if kind == Kind::Hello as u8 {
        admit_hello(packet, at, datagram, version, settings, cookies)
    } else if version != VERSION {
        Admission::Refuse(Reason::BadVersion)
    } else if kind == Kind::Get as u8 {
        admit_get(packet, at, datagram, cookies)
    } else {
        Admission::Refuse(Reason::BadKind)
    }
}

#[inline(always)]
fn admit_hello<P: Packet + ?Sized>(
    packet: &P,
    at: usize,
    datagram: &Datagram,
    version: u8,
    settings: &Settings,
    cookies: &Cookies,
) -> Admission {
    let payload_bytes = datagram.payload_bytes;
    if !(HELLO_BYTES_MIN..=HELLO_BYTES_MAX).contains(&payload_bytes) {
        return Admission::Refuse(Reason::HelloSize);
    }
    let Some(window) = packet.at::<HELLO_HEADER_BYTES>(at) else {
        return Admission::Refuse(Reason::HelloSize);
    };
    // For other versions, only the opening, the length and the position of the nonce are known.
    let nonce = part::<8, 8, _>(window);
    let (reason, cookie) = if version == VERSION {
        if let Err(reason) = Hello::decode(window) {
            return Admission::Refuse(reason);
        }
        match cookies.issue(&datagram.source) {
            Some(cookie) => (Reason::Welcome, cookie),
            None => return Admission::Refuse(Reason::NotServing),
        }
    } else {
        (Reason::WelcomeVersion, Cookie::default())
    };
    let welcome = Welcome {
        segment_bytes: settings.segment_bytes,
        max_burst: settings.max_burst,
        lifetime_seconds: crate::cookie::LIFETIME_SECONDS,
        nonce,
        cookie,
    };
    Admission::Reply(reason, Reply::Welcome(welcome))
}

#[inline(always)]
fn admit_get<P: Packet + ?Sized>(
    packet: &P,
    at: usize,
    datagram: &Datagram,
    cookies: &Cookies,
) -> Admission {
    if datagram.payload_bytes != GET_BYTES {
        return Admission::Refuse(Reason::GetSize);
    }
    let Some(window) = packet.at::<GET_BYTES>(at) else {
        return Admission::Refuse(Reason::GetSize);
    };
    let get = match Get::decode(window) {
        Ok(get) => get,
        Err(reason) => return Admission::Refuse(reason),
    };
    if cookies.accepts(&get.cookie, &datagram.source) {
        return Admission::Get(get);
    }
    let nack = Nack {
        code: NackCode::Cookie,
        retry_ms: 0,
        tag: get.id.tag(),
        echo: get.cookie.value,
    };
    Admission::Reply(Reason::NackCookie, Reply::Nack(nack))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    #[test]
    fn a_loopback_address_answers_the_host_but_not_the_service_itself() {
        let mut settings = golden::world().settings;
        settings.addresses[0] = Address::v4([127, 0, 0, 1]);
        let refused = |address, port, loopback| {
            let datagram = Datagram {
                source: Endpoint { address, port },
                family: Family::V4,
                payload_bytes: 0,
                from_here: false,
                loopback,
            };
            let judged = admit(&[][..], 0, &datagram, &settings, &golden::world().cookies);
            matches!(judged, Admission::Refuse(Reason::BadSource))
        };
        let here = Address::v4([127, 0, 0, 1]);
        assert!(!refused(here, 40_000, true));
        assert!(refused(here, 40_000, false), "from the network");
        assert!(refused(here, settings.port, true), "it would answer itself");
        assert!(refused(here, 0, true));
        assert!(refused(Address::v4([224, 0, 0, 1]), 40_000, true));
    }
}
