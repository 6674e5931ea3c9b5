//! Frames on the link: built from addresses, parsed from bytes.

use std::net::{IpAddr, SocketAddr};

use edge_ebpf::frame::{ETHERNET_BYTES, IPV6_BYTES, UDP_BYTES};
use edge_ebpf::golden::build::{self, Build};

pub type Mac = [u8; 6];

/// A datagram between these addresses, to be wrapped in a frame.
pub fn datagram(from: SocketAddr, to: SocketAddr, payload: Vec<u8>) -> Build {
    let build = if to.is_ipv4() { build::v4 } else { build::v6 };
    build(payload)
        .source(&octets(from.ip()), from.port())
        .destination(&octets(to.ip()), to.port())
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// An IP packet in a frame, or its beginning.
pub struct Packet<'a> {
    pub from_mac: Mac,
    pub to_mac: Mac,
    /// Ports are zero for protocols without ports.
    pub from: SocketAddr,
    pub to: SocketAddr,
    /// Total length according to its header.
    pub ip_bytes: usize,
    udp: Option<&'a [u8]>,
}

impl<'a> Packet<'a> {
    /// The captured part of the UDP payload; none for another protocol.
    pub fn payload(&self) -> Option<&'a [u8]> {
        self.udp.map(|udp| &udp[UDP_BYTES..])
    }

    pub fn checksum_is_right(&self) -> bool {
        let pseudo_header = |udp: &[u8]| {
            let length = u16::try_from(udp.len()).unwrap_or(0).to_be_bytes();
            let (from, to) = (octets(self.from.ip()), octets(self.to.ip()));
            [&from, &to, &length[..], &[0, 17], udp].concat()
        };
        self.udp
            .is_some_and(|udp| sum(&pseudo_header(udp)) == 0xffff)
    }
}

/// Parses an untagged frame with IP; none for others.
pub fn read(frame: &[u8]) -> Option<Packet<'_>> {
    let (macs, ip) = frame.split_at_checked(ETHERNET_BYTES)?;
    let word = |at: usize| {
        Some(usize::from(u16::from_be_bytes(
            *ip.get(at..)?.first_chunk()?,
        )))
    };
    let v4 = |at: usize| Some(IpAddr::from(*ip.get(at..)?.first_chunk::<4>()?));
    let v6 = |at: usize| Some(IpAddr::from(*ip.get(at..)?.first_chunk::<16>()?));
    let (from, to, protocol, header_bytes, ip_bytes) = match macs[12..] {
        [0x08, 0x00] => {
            let header_bytes = usize::from(ip.first()? & 0x0f) * 4;
            (v4(12)?, v4(16)?, ip[9], header_bytes, word(2)?)
        }
        [0x86, 0xdd] => (v6(8)?, v6(24)?, ip[6], IPV6_BYTES, IPV6_BYTES + word(4)?),
        _ => return None,
    };
    let behind = ip.get(header_bytes..ip_bytes.min(ip.len()));
    let udp = behind.filter(|behind| protocol == 17 && behind.len() >= UDP_BYTES);
    let port = |at: usize| udp.map_or(0, |udp| u16::from_be_bytes([udp[at], udp[at + 1]]));
    Some(Packet {
        to_mac: *macs.first_chunk()?,
        from_mac: *macs[6..].first_chunk()?,
        from: SocketAddr::new(from, port(0)),
        to: SocketAddr::new(to, port(2)),
        ip_bytes,
        udp,
    })
}

/// Sum in one's complement; all ones over bytes with a valid checksum.
pub fn sum(bytes: &[u8]) -> u16 {
    bytes.chunks(2).fold(0_u16, |sum, pair| {
        let word = u16::from_be_bytes([pair[0], *pair.get(1).unwrap_or(&0)]);
        let (sum, carried) = sum.overflowing_add(word);
        sum + u16::from(carried)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_is_read_as_it_was_made_and_its_beginnings_without_a_panic() {
        let macs = ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);
        let pairs = [
            ("198.18.0.1:7", "10.71.0.1:7347"),
            ("[fd99::1]:7", "[fd71::1]:7347"),
        ];
        for (from, to) in pairs {
            let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
            let frame = datagram(from, to, vec![5; 63]).macs(macs.0, macs.1).frame();
            let packet = read(&frame).unwrap();
            assert_eq!((packet.from, packet.to), (from, to));
            assert_eq!((packet.from_mac, packet.to_mac), macs);
            assert_eq!(packet.ip_bytes, frame.len() - ETHERNET_BYTES);
            assert_eq!(packet.payload(), Some(&[5; 63][..]));
            assert!(packet.checksum_is_right());
            for end in 0..frame.len() {
                let packet = read(&frame[..end]);
                assert!(
                    packet.is_none_or(|packet| !packet.checksum_is_right()),
                    "{end}"
                );
            }
            let mut altered = frame;
            *altered.last_mut().unwrap() ^= 1;
            assert!(!read(&altered).unwrap().checksum_is_right());
        }
    }
}
