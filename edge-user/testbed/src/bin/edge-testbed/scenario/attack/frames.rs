//! Frames as an attacker makes them, and what he reads from those that come.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use edge_ebpf::golden::build;
use edge_ebpf::wire::{Cookie, DATA_HEADER_BYTES, DataHeader, Kind, Welcome, opening};

use super::line::Mac;
use crate::scenario::dice::Dice;

pub(super) const ETHERNET_BYTES: usize = 14;
const IPV4_BYTES: usize = 20;
const IPV6_BYTES: usize = 40;
const UDP_BYTES: usize = 8;

/// A frame to be sent again and again.
pub(super) struct Frame {
    pub(super) source: IpAddr,
    pub(super) bytes: Vec<u8>,
    payload_at: usize,
}

impl Frame {
    pub(super) fn new(
        from: SocketAddr,
        to: SocketAddr,
        macs: (Mac, Mac),
        payload: Vec<u8>,
    ) -> Self {
        Self::with_options(from, to, macs, &[], payload)
    }

    /// With these options where the header is IPv4's; their length is a multiple of four.
    pub(super) fn with_options(
        from: SocketAddr,
        to: SocketAddr,
        macs: (Mac, Mac),
        options: &[u8],
        payload: Vec<u8>,
    ) -> Self {
        let (build, headers) = match from {
            SocketAddr::V4(_) => (
                build::v4(payload).extra(0, options),
                IPV4_BYTES + options.len(),
            ),
            SocketAddr::V6(_) => (build::v6(payload), IPV6_BYTES),
        };
        let bytes = build
            .source(&octets(from.ip()), from.port())
            .destination(&octets(to.ip()), to.port())
            .macs(macs.0, macs.1)
            .frame();
        Self {
            source: from.ip(),
            bytes,
            payload_at: ETHERNET_BYTES + headers + UDP_BYTES,
        }
    }

    /// As the network layer counts.
    pub(super) fn ip_bytes(&self) -> u64 {
        (self.bytes.len() - ETHERNET_BYTES) as u64
    }

    pub(super) fn vary(&mut self, vary: Vary, dice: &mut Dice) {
        let payload = &mut self.bytes[self.payload_at..];
        let mut fresh = [0; 16];
        let fresh = &mut fresh[..vary.len];
        dice.fill(fresh);
        let (fresh, _) = fresh.as_chunks::<2>();
        let places = (vary.at..).step_by(2).zip((vary.opposite..).step_by(2));
        for ((at, opposite), fresh) in places.zip(fresh) {
            let word = |at: usize| u16::from_be_bytes([payload[at], payload[at + 1]]);
            let rest = added(added(word(at), word(opposite)), !u16::from_be_bytes(*fresh));
            payload[at..at + 2].copy_from_slice(fresh);
            payload[opposite..opposite + 2].copy_from_slice(&rest.to_be_bytes());
        }
    }
}

/// As the checksum adds.
const fn added(one: u16, other: u16) -> u16 {
    let (sum, carried) = one.overflowing_add(other);
    sum + carried as u16
}

/// Places in a payload that are new in each copy of a frame. The second makes up for the first, so
/// the checksum stays right.
#[derive(Clone, Copy)]
pub(super) struct Vary {
    pub(super) at: usize,
    pub(super) opposite: usize,
    /// Even, at most 16.
    pub(super) len: usize,
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// What the front of a frame tells.
pub(super) struct Heard<'a> {
    pub(super) from_mac: Mac,
    pub(super) to_mac: Mac,
    pub(super) from: SocketAddr,
    pub(super) to: SocketAddr,
    /// Of the service, and not the kernel's own talk with its neighbours.
    pub(super) udp: bool,
    /// Behind the UDP header, as much as there is.
    pub(super) payload: &'a [u8],
}

/// Reads a frame that carries IP; nothing for another one. Ports are zero where there are none.
pub(super) fn read(front: &[u8]) -> Option<Heard<'_>> {
    let (to_mac, rest) = front.split_first_chunk::<6>()?;
    let (from_mac, rest) = rest.split_first_chunk::<6>()?;
    let (ethertype, ip) = rest.split_first_chunk::<2>()?;
    let (from, to, protocol, header_bytes): (IpAddr, IpAddr, u8, usize) = match ethertype {
        [0x08, 0x00] => {
            let address = |at: usize| Some(Ipv4Addr::from(*ip.get(at..)?.first_chunk::<4>()?));
            let header_bytes = usize::from(ip.first()? & 0x0f) * 4;
            (
                address(12)?.into(),
                address(16)?.into(),
                *ip.get(9)?,
                header_bytes,
            )
        }
        [0x86, 0xdd] => {
            let address = |at: usize| Some(Ipv6Addr::from(*ip.get(at..)?.first_chunk::<16>()?));
            (
                address(8)?.into(),
                address(24)?.into(),
                *ip.get(6)?,
                IPV6_BYTES,
            )
        }
        _ => return None,
    };
    let behind = ip.get(header_bytes..).unwrap_or_default();
    let udp = protocol == 17 && behind.len() >= UDP_BYTES;
    let port = |at: usize| {
        if udp {
            u16::from_be_bytes([behind[at], behind[at + 1]])
        } else {
            0
        }
    };
    Some(Heard {
        from_mac: *from_mac,
        to_mac: *to_mac,
        from: SocketAddr::new(from, port(0)),
        to: SocketAddr::new(to, port(2)),
        udp,
        payload: if udp { &behind[UDP_BYTES..] } else { &[] },
    })
}

/// A datagram of DATA with this header and a payload of so many bytes of nothing.
pub(super) fn data(index: u8, last: u8, chunk_bytes: u32, tag: [u8; 8], len: usize) -> Vec<u8> {
    let header = DataHeader {
        index,
        last,
        chunk_bytes,
        tag,
    };
    let mut payload = header.encode().to_vec();
    payload.resize(DATA_HEADER_BYTES + len, 0x55);
    payload
}

/// A WELCOME of this length, said to be of this version.
pub(super) fn welcome(welcome: &Welcome, version: u8, len_bytes: usize) -> Vec<u8> {
    let mut payload = welcome.encode().to_vec();
    payload[1] = version << 4 | Kind::Welcome as u8;
    payload.resize(len_bytes, 0);
    payload
}

/// A HELLO, said to be of another version.
pub(super) fn hello_of_version(version: u8) -> Vec<u8> {
    let mut payload = build::hello(1232);
    payload[1] = version << 4 | Kind::Hello as u8;
    payload
}

/// Whether this begins like that kind of datagram.
pub(super) fn is(payload: &[u8], kind: Kind) -> bool {
    payload.starts_with(&opening(kind))
}

/// A cookie that nobody gave, of this epoch.
pub(super) fn guess(epoch: u32, dice: &mut Dice) -> Cookie {
    Cookie {
        epoch,
        value: dice.roll().to_be_bytes(),
    }
}

#[cfg(test)]
mod tests {
    use edge_ebpf::wire::ChunkId;

    use super::*;

    const MACS: (Mac, Mac) = ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);

    fn frames() -> [Frame; 2] {
        let both = [
            ("198.18.0.1:7", "10.71.0.1:7347"),
            ("[fd99::1]:7", "[fd71::1]:7347"),
        ];
        both.map(|(from, to)| {
            let payload = build::get(Cookie::default(), ChunkId([0; 32]), u128::MAX);
            Frame::new(from.parse().unwrap(), to.parse().unwrap(), MACS, payload)
        })
    }

    #[test]
    fn what_varies_leaves_the_checksum_right() {
        let mut dice = Dice::new(3);
        for mut frame in frames() {
            let (at, opposite, len) = (16, 32, 16);
            frame.vary(Vary { at, opposite, len }, &mut dice);
            let first = frame.bytes.clone();
            frame.vary(Vary { at, opposite, len }, &mut dice);
            assert_ne!(first, frame.bytes);
            // Built anew from the same payload, checksum and all.
            let heard = read(&frame.bytes).unwrap();
            let again = Frame::new(heard.from, heard.to, MACS, heard.payload.to_vec());
            assert_eq!(again.bytes, frame.bytes);
        }
    }

    #[test]
    fn what_varies_behind_options_is_the_payload() {
        let (from, to) = ("198.19.0.1:7", "10.71.0.1:7347");
        let (from, to) = (from.parse().unwrap(), to.parse().unwrap());
        let mut frame = Frame::with_options(from, to, MACS, &[1, 1, 1, 0], build::hello(1232));
        let (at, opposite, len) = (8, 12, 4);
        frame.vary(Vary { at, opposite, len }, &mut Dice::new(3));
        let heard = read(&frame.bytes).unwrap();
        assert!(heard.udp && is(heard.payload, Kind::Hello));
        let payload = heard.payload.to_vec();
        let again = Frame::with_options(from, to, MACS, &[1, 1, 1, 0], payload);
        assert_eq!(again.bytes, frame.bytes);
    }

    #[test]
    fn a_frame_is_read_as_it_was_made_and_its_beginnings_without_a_panic() {
        for frame in frames() {
            let heard = read(&frame.bytes).unwrap();
            assert_eq!((heard.from.ip(), heard.from.port()), (frame.source, 7));
            assert_eq!(heard.to.port(), 7347);
            assert_eq!((heard.from_mac, heard.to_mac), MACS);
            assert!(heard.udp && is(heard.payload, Kind::Get));
            for end in 0..frame.bytes.len() {
                if let Some(heard) = read(&frame.bytes[..end]) {
                    assert!(heard.payload.len() < 64);
                }
            }
        }
    }
}
