//! Parses Ethernet, VLAN, IP and UDP headers.

use crate::cursor::{Packet, part};
use crate::reason::Reason;

pub const ETHERNET_BYTES: usize = 14;
pub const VLAN_BYTES: usize = 4;
/// A service VLAN around a customer VLAN; deeper stacks go to the kernel.
pub const VLAN_TAGS_MAX: usize = 2;
pub const IPV4_BYTES: usize = 20;
pub const IPV6_BYTES: usize = 40;
pub const UDP_BYTES: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const ETHERTYPE_VLAN: u16 = 0x8100;
const ETHERTYPE_SERVICE_VLAN: u16 = 0x88a8;
const PROTOCOL_UDP: u8 = 17;

/// An IP address, with IPv4 as `::ffff:a.b.c.d`, as two big-endian halves.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Address {
    pub high: u64,
    pub low: u64,
}

const V4_MAPPED: u64 = 0xffff_0000_0000;

impl Address {
    pub const UNSPECIFIED: Self = Self { high: 0, low: 0 };

    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        Self {
            high: 0,
            low: V4_MAPPED | u32::from_be_bytes(bytes) as u64,
        }
    }

    #[inline(always)]
    pub const fn v6(bytes: [u8; 16]) -> Self {
        let both = u128::from_be_bytes(bytes);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "the halves are taken apart"
        )]
        Self {
            high: (both >> 64) as u64,
            low: both as u64,
        }
    }

    #[inline(always)]
    pub const fn bytes(&self) -> [u8; 16] {
        (((self.high as u128) << 64) | self.low as u128).to_be_bytes()
    }

    #[inline(always)]
    const fn is_v4(&self) -> bool {
        self.high == 0 && self.low >> 32 == V4_MAPPED >> 32
    }

    pub const fn is_loopback(&self) -> bool {
        self.is_v4() && (self.low >> 24) & 0xff == 127 || self.high == 0 && self.low == 1
    }

    /// Whether an answer to this address can reach a single host: not multicast, broadcast,
    /// loopback, unspecified, nor IPv4-mapped in an IPv6 packet (`family` is that of the packet).
    #[inline(always)]
    pub const fn can_be_answered(&self, family: Family) -> bool {
        match family {
            Family::V4 => {
                let first = (self.low >> 24) & 0xff;
                // 0/8 is this network, 127/8 loopback, 224/4 multicast, and 240/4 reserved, with
                // limited broadcast as its last address.
                first != 0 && first != 127 && first < 224
            }
            Family::V6 => {
                let multicast = self.high >> 56 == 0xff;
                let unspecified_or_loopback = self.high == 0 && self.low <= 1;
                !multicast && !unspecified_or_loopback && !self.is_v4()
            }
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Family {
    V4,
    V6,
}

/// An address and a UDP port.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Endpoint {
    pub address: Address,
    pub port: u16,
}

/// The VLAN tags of a frame.
///
/// Each takes 16 bits, the outermost the highest: its id, and a bit that is set for a service tag
/// (802.1ad). Id 0 carries only a priority, so a customer tag with id 0 equals no tag.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct Tags(u32);

impl Tags {
    pub const UNTAGGED: Self = Self(0);
    /// Equals the tags of no frame.
    pub const NONE: Self = Self(u32::MAX);
    const SERVICE: u32 = 0x1000;
    const ID: u32 = 0x0fff;

    /// Adds a tag inside these.
    #[inline(always)]
    #[must_use]
    pub const fn around(self, service: bool, id: u16) -> Self {
        let kind = if service { Self::SERVICE } else { 0 };
        Self((self.0 << 16) | kind | (id as u32 & Self::ID))
    }
}

/// The parsed headers of a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Frame {
    pub family: Family,
    pub tags: Tags,
    pub ip_at: usize,
    pub udp_at: usize,
    /// Length of the IP payload, from the IP header.
    pub ip_payload_bytes: u16,
    /// Length of UDP header and payload, from the UDP header.
    pub udp_bytes: u16,
    /// Whether UDP has a checksum, which is not verified: docs/WIRE.md, "Checksums".
    pub has_checksum: bool,
    pub source: Endpoint,
    pub destination: Endpoint,
}

/// The Ethernet addresses. They are not part of [`Frame`] because most packets are decided without
/// them: a BPF program has ten registers, and spills what it reads early.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Stations {
    pub destination: [u8; 6],
    pub source: [u8; 6],
}

impl Stations {
    #[inline(always)]
    pub fn of(ethernet: &[u8; ETHERNET_BYTES]) -> Self {
        Self {
            destination: part::<0, 6, _>(ethernet),
            source: part::<6, 6, _>(ethernet),
        }
    }
}

/// The result of parsing a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Parsed {
    Udp(Frame),
    /// For the kernel: not UDP, or with options, extension headers or fragments.
    Kernel(Reason),
}

impl Frame {
    #[inline(always)]
    pub fn payload_at(&self) -> usize {
        self.udp_at.wrapping_add(UDP_BYTES)
    }

    /// Length of the UDP payload, if all lengths agree and fit the frame. The frame may be longer
    /// than the datagram, because Ethernet pads.
    #[inline(always)]
    pub fn payload_bytes(&self, frame_bytes: usize) -> Option<usize> {
        let udp_bytes = usize::from(self.udp_bytes);
        let agree = self.udp_bytes == self.ip_payload_bytes
            && udp_bytes >= UDP_BYTES
            && self.udp_at.wrapping_add(udp_bytes) <= frame_bytes;
        agree.then(|| udp_bytes.wrapping_sub(UDP_BYTES))
    }

    /// Whether the IPv4 header checksum is correct. IPv6 has none.
    #[inline(always)]
    pub fn header_is_whole<P: Packet + ?Sized>(&self, packet: &P) -> bool {
        match self.family {
            Family::V4 => packet
                .at::<IPV4_BYTES>(self.ip_at)
                .is_some_and(|ip| ones_sum(ip) == 0xffff),
            Family::V6 => true,
        }
    }
}

/// One's complement sum of the 16-bit words (RFC 1071): all ones for a header with a correct
/// checksum, in either byte order.
#[inline(always)]
fn ones_sum(header: &[u8; IPV4_BYTES]) -> u32 {
    let (words, _) = header.as_chunks::<2>();
    let sum = words.iter().fold(0, |sum: u32, word| {
        sum.wrapping_add(u32::from(u16::from_le_bytes(*word)))
    });
    // Ten words carry at most 9. A result above 0xffff would fold once more, to at most 9.
    (sum & 0xffff).wrapping_add(sum >> 16)
}

/// Parses a frame down to its UDP header.
#[inline(always)]
pub fn parse<P: Packet + ?Sized>(packet: &P) -> Parsed {
    parse_if(packet, |_| true)
}

/// Like [`parse`], but stops at a datagram to a port that is not `wanted`, with
/// [`Reason::NotOurs`].
#[inline(always)]
pub fn parse_if<P: Packet + ?Sized>(packet: &P, wanted: impl Fn(u16) -> bool) -> Parsed {
    let Some(ethernet) = packet.at::<ETHERNET_BYTES>(0) else {
        return Parsed::Kernel(Reason::ShortFrame);
    };
    let mut ethertype = u16::from_be_bytes(part::<12, 2, _>(ethernet));
    let mut tags = Tags::UNTAGGED;
    let mut ip_at = ETHERNET_BYTES;
    let mut tag_count = 0;
    while ethertype == ETHERTYPE_VLAN || ethertype == ETHERTYPE_SERVICE_VLAN {
        if tag_count == VLAN_TAGS_MAX {
            return Parsed::Kernel(Reason::VlanDepth);
        }
        let Some(tag) = packet.at::<VLAN_BYTES>(ip_at) else {
            return Parsed::Kernel(Reason::ShortFrame);
        };
        let id = u16::from_be_bytes(part::<0, 2, _>(tag));
        tags = tags.around(ethertype == ETHERTYPE_SERVICE_VLAN, id);
        ethertype = u16::from_be_bytes(part::<2, 2, _>(tag));
        ip_at = ip_at.wrapping_add(VLAN_BYTES);
        tag_count = tag_count.wrapping_add(1);
    }
    match ethertype {
        ETHERTYPE_IPV4 => parse_v4(packet, ip_at, tags, wanted),
        ETHERTYPE_IPV6 => parse_v6(packet, ip_at, tags, wanted),
        _ => Parsed::Kernel(Reason::NotIp),
    }
}

#[inline(always)]
fn parse_v4<P: Packet + ?Sized>(
    packet: &P,
    ip_at: usize,
    tags: Tags,
    wanted: impl Fn(u16) -> bool,
) -> Parsed {
    let Some(ip) = packet.at::<IPV4_BYTES>(ip_at) else {
        return Parsed::Kernel(Reason::ShortFrame);
    };
    let [version_length] = part::<0, 1, _>(ip);
    if version_length >> 4 != 4 {
        return Parsed::Kernel(Reason::NotIp);
    }
    if part::<9, 1, _>(ip) != [PROTOCOL_UDP] {
        return Parsed::Kernel(Reason::NotUdp);
    }
    if version_length & 0x0f != 5 {
        return Parsed::Kernel(Reason::IpOptions);
    }
    // "More fragments" or an offset: all bits but "don't fragment" and the reserved bit.
    if u16::from_be_bytes(part::<6, 2, _>(ip)) & 0x3fff != 0 {
        return Parsed::Kernel(Reason::Fragment);
    }
    let udp_at = ip_at.wrapping_add(IPV4_BYTES);
    let Some(udp) = packet.at::<UDP_BYTES>(udp_at) else {
        return Parsed::Kernel(Reason::ShortFrame);
    };
    let port = u16::from_be_bytes(part::<2, 2, _>(udp));
    if !wanted(port) {
        return Parsed::Kernel(Reason::NotOurs);
    }
    let total_bytes = u16::from_be_bytes(part::<2, 2, _>(ip));
    #[expect(clippy::cast_possible_truncation, reason = "20")]
    let ip_payload_bytes = total_bytes.wrapping_sub(IPV4_BYTES as u16);
    Parsed::Udp(Frame {
        family: Family::V4,
        tags,
        ip_at,
        udp_at,
        ip_payload_bytes,
        udp_bytes: u16::from_be_bytes(part::<4, 2, _>(udp)),
        has_checksum: part::<6, 2, _>(udp) != [0; 2],
        source: Endpoint {
            address: Address::v4(part::<12, 4, _>(ip)),
            port: u16::from_be_bytes(part::<0, 2, _>(udp)),
        },
        destination: Endpoint {
            address: Address::v4(part::<16, 4, _>(ip)),
            port,
        },
    })
}

#[inline(always)]
fn parse_v6<P: Packet + ?Sized>(
    packet: &P,
    ip_at: usize,
    tags: Tags,
    wanted: impl Fn(u16) -> bool,
) -> Parsed {
    let Some(ip) = packet.at::<IPV6_BYTES>(ip_at) else {
        return Parsed::Kernel(Reason::ShortFrame);
    };
    let [version_class] = part::<0, 1, _>(ip);
    if version_class >> 4 != 6 {
        return Parsed::Kernel(Reason::NotIp);
    }
    let [next_header] = part::<6, 1, _>(ip);
    match next_header {
        PROTOCOL_UDP => {}
        44 => return Parsed::Kernel(Reason::Fragment),
        // Hop-by-hop, routing, ESP, authentication, destination options, mobility, HIP, shim6.
        0 | 43 | 50 | 51 | 60 | 135 | 139 | 140 => return Parsed::Kernel(Reason::Ipv6Extension),
        _ => return Parsed::Kernel(Reason::NotUdp),
    }
    let udp_at = ip_at.wrapping_add(IPV6_BYTES);
    let Some(udp) = packet.at::<UDP_BYTES>(udp_at) else {
        return Parsed::Kernel(Reason::ShortFrame);
    };
    let port = u16::from_be_bytes(part::<2, 2, _>(udp));
    if !wanted(port) {
        return Parsed::Kernel(Reason::NotOurs);
    }
    Parsed::Udp(Frame {
        family: Family::V6,
        tags,
        ip_at,
        udp_at,
        ip_payload_bytes: u16::from_be_bytes(part::<4, 2, _>(ip)),
        udp_bytes: u16::from_be_bytes(part::<4, 2, _>(udp)),
        has_checksum: part::<6, 2, _>(udp) != [0; 2],
        source: Endpoint {
            address: Address::v6(part::<8, 16, _>(ip)),
            port: u16::from_be_bytes(part::<0, 2, _>(udp)),
        },
        destination: Endpoint {
            address: Address::v6(part::<24, 16, _>(ip)),
            port,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_one_host_can_be_answered() {
        let v4 = |text: [u8; 4]| Address::v4(text).can_be_answered(Family::V4);
        assert!(v4([192, 0, 2, 7]) && v4([10, 0, 0, 1]) && v4([223, 255, 255, 255]));
        for bad in [
            [0, 0, 0, 0],
            [0, 1, 2, 3],
            [127, 0, 0, 1],
            [224, 0, 0, 1],
            [255; 4],
        ] {
            assert!(!v4(bad), "{bad:?}");
        }
        let v6 = |text: &str| {
            let address: core::net::Ipv6Addr = text.parse().unwrap();
            Address::v6(address.octets()).can_be_answered(Family::V6)
        };
        assert!(v6("2001:db8::1") && v6("fe80::1") && v6("fd00::1"));
        for bad in ["::", "::1", "ff02::1", "::ffff:192.0.2.7"] {
            assert!(!v6(bad), "{bad}");
        }
    }

    #[test]
    fn a_customer_tag_with_id_0_is_ignored_and_kind_and_order_of_tags_matter() {
        let (customer, service) = (false, true);
        assert_eq!(Tags::UNTAGGED.around(customer, 0x2000), Tags::UNTAGGED);
        let five = Tags::UNTAGGED.around(customer, 0x2005);
        assert_eq!(five, Tags::UNTAGGED.around(customer, 0).around(customer, 5));
        let all = [
            Tags::NONE,
            Tags::UNTAGGED,
            five,
            Tags::UNTAGGED.around(customer, 6),
            Tags::UNTAGGED.around(service, 5),
            Tags::UNTAGGED.around(service, 5).around(customer, 5),
            Tags::UNTAGGED.around(customer, 5).around(service, 5),
            Tags::UNTAGGED.around(customer, 5).around(customer, 0),
        ];
        for (at, tags) in all.iter().enumerate() {
            assert!(!all[..at].contains(tags), "{tags:?}");
        }
    }

    #[test]
    fn an_address_keeps_its_bytes() {
        let bytes = core::array::from_fn(|at| u8::try_from(at).unwrap());
        assert_eq!(Address::v6(bytes).bytes(), bytes);
        assert_eq!(
            Address::v4([1, 2, 3, 4]).bytes()[10..],
            [0xff, 0xff, 1, 2, 3, 4]
        );
    }
}
