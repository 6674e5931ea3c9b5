//! Varies the GET of a benchmark, so that each run requests another chunk from another source.

use crate::cursor::{Packet, PacketMut, part, put};
use crate::frame::{ETHERNET_BYTES, Endpoint, IPV4_BYTES, UDP_BYTES};
use crate::rewrite::{fold, sum};
use crate::wire::{ChunkId, Cookie, GET_BYTES, Get};

/// A GET over IPv4 without a VLAN tag, the only kind supported.
const FRAME_BYTES: usize = ETHERNET_BYTES + IPV4_BYTES + UDP_BYTES + GET_BYTES;
/// Size of a request in its map: the number of the next one, address, port, and the GET from cookie
/// to id.
pub const REQUEST_BYTES: usize = 2 + 4 + 2 + 44;
/// The number of values of the IPv4 identification.
pub const REQUESTS: u32 = 1 << 16;

/// The request of one run, over IPv4.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    pub source: Endpoint,
    pub cookie: Cookie,
    pub id: ChunkId,
    /// The number of the following request.
    pub next: u16,
}

impl Request {
    /// In packet order, so that the program only copies.
    pub fn encode(&self) -> [u8; REQUEST_BYTES] {
        let get = Get {
            cookie: self.cookie,
            id: self.id,
            want: 0,
        };
        let mut out = [0; REQUEST_BYTES];
        put::<0, 2, _>(&mut out, self.next.to_be_bytes());
        put::<2, 4, _>(&mut out, part::<12, 4, _>(&self.source.address.bytes()));
        put::<6, 2, _>(&mut out, self.source.port.to_be_bytes());
        put::<8, 44, _>(&mut out, part::<4, 44, _>(&get.encode()));
        out
    }
}

/// The number of the next request. It is stored in the IPv4 identification, which no program reads;
/// each test run sees the packet as the previous one left it.
#[inline(always)]
pub fn number<P: Packet + ?Sized>(packet: &P) -> Option<u16> {
    let frame = packet.at::<FRAME_BYTES>(0)?;
    Some(u16::from_be_bytes(part::<18, 2, _>(frame)))
}

/// Writes the request into the packet. The UDP checksum is not updated: no program verifies it.
#[inline(always)]
pub fn write<P: PacketMut + ?Sized>(packet: &mut P, request: &[u8; REQUEST_BYTES]) -> Option<()> {
    let frame = packet.at_mut::<FRAME_BYTES>(0)?;
    put::<18, 2, _>(frame, part::<0, 2, _>(request));
    put::<26, 4, _>(frame, part::<2, 4, _>(request));
    put::<24, 2, _>(frame, [0; 2]);
    let checksum = fold(sum(&part::<ETHERNET_BYTES, IPV4_BYTES, _>(frame)));
    put::<24, 2, _>(frame, checksum.to_be_bytes());
    put::<34, 2, _>(frame, part::<6, 2, _>(request));
    put::<46, 44, _>(frame, part::<8, 44, _>(request));
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Address;
    use crate::golden::build::{get, v4};
    use crate::golden::world;
    use crate::steer::{Verdict, decide};

    #[test]
    fn a_packet_becomes_the_request_of_another_source() {
        let world = world();
        let source = Endpoint {
            address: Address::v4([198, 51, 100, 7]),
            port: 4242,
        };
        let request = Request {
            source,
            cookie: world.cookies.issue(&source).unwrap(),
            id: world.id,
            next: 0x1234,
        };
        let mut frame = v4(get(Cookie::default(), ChunkId([0; 32]), 1)).frame();
        assert_eq!(number(frame.as_slice()), Some(0));
        write(frame.as_mut_slice(), &request.encode()).unwrap();
        assert_eq!(number(frame.as_slice()), Some(0x1234));
        let steered = Verdict::Steer(world.resident);
        assert_eq!(decide(frame.as_slice(), &world), steered);
    }

    #[test]
    fn a_shorter_packet_is_not_changed() {
        let mut frame = v4(get(Cookie::default(), ChunkId([0; 32]), 1)).frame();
        frame.pop();
        let before = frame.clone();
        assert_eq!(write(frame.as_mut_slice(), &[0xff; REQUEST_BYTES]), None);
        assert_eq!((number(frame.as_slice()), frame), (None, before));
    }
}
