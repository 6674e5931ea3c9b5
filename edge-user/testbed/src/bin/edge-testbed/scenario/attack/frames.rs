//! Frames that an attacker builds, and reads.

use std::net::{IpAddr, SocketAddr};

use edge_ebpf::frame::{ETHERNET_BYTES, IPV4_BYTES, IPV6_BYTES, UDP_BYTES};
use edge_ebpf::golden::build;
use edge_ebpf::wire::{Cookie, DATA_HEADER_BYTES, DataHeader, Kind, opening};
use edge_testbed::client::HELLO_BYTES;
use edge_testbed::packet::{self, Mac};
use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _};

/// The part of a frame that is inspected: the longest headers and a GET.
pub(super) const FRONT_BYTES: usize = 160;

/// A frame to be sent repeatedly.
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

    /// With these options in an IPv4 header; their length is a multiple of four.
    pub(super) fn with_options(
        from: SocketAddr,
        to: SocketAddr,
        macs: (Mac, Mac),
        options: &[u8],
        payload: Vec<u8>,
    ) -> Self {
        let build = packet::datagram(from, to, payload).macs(macs.0, macs.1);
        let (build, headers) = if from.is_ipv4() {
            (build.extra(0, options), IPV4_BYTES + options.len())
        } else {
            (build, IPV6_BYTES)
        };
        Self {
            source: from.ip(),
            bytes: build.frame(),
            payload_at: ETHERNET_BYTES + headers + UDP_BYTES,
        }
    }

    /// The length of the IP packet.
    pub(super) fn ip_bytes(&self) -> u64 {
        (self.bytes.len() - ETHERNET_BYTES) as u64
    }

    pub(super) fn vary(&mut self, vary: Vary, rng: &mut SmallRng) {
        let payload = &mut self.bytes[self.payload_at..];
        let mut fresh = [0; 16];
        let fresh = &mut fresh[..vary.len];
        rng.fill_bytes(fresh);
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

/// Addition in one's complement.
const fn added(one: u16, other: u16) -> u16 {
    let (sum, carried) = one.overflowing_add(other);
    sum + carried as u16
}

/// Offsets in a payload that change in each copy of a frame. The second compensates for the first,
/// so that the checksum stays valid.
#[derive(Clone, Copy)]
pub(super) struct Vary {
    pub(super) at: usize,
    pub(super) opposite: usize,
    /// Even, at most 16.
    pub(super) len: usize,
}

/// A DATA datagram with this header and a payload of zeros of this length.
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

/// DATA of a chunk of this length in full segments of that length, with false lengths.
pub(super) fn lying(last: u8, length: u32, tag: [u8; 8], full: usize) -> Vec<Vec<u8>> {
    vec![
        data(0, last, length + 1, tag, full),
        data(0, last, 0, tag, full),
        data(0, last, u32::MAX, tag, full),
        data(0, last.wrapping_add(1), length, tag, full),
        data(0, 0, length, tag, full),
        data(last.wrapping_add(1), last, length, tag, full),
        data(255, 255, length, tag, full),
        data(0, last, length, tag, 0),
        data(0, last, length, tag, full - 1),
        data(0, last, length, tag, full + 1),
        data(last, last, length, tag, full + 200),
    ]
}

/// A HELLO with another version number.
pub(super) fn hello_of_version(version: u8) -> Vec<u8> {
    let mut payload = build::hello(HELLO_BYTES);
    payload[1] = version << 4 | Kind::Hello as u8;
    payload
}

/// Whether this begins like a datagram of that kind.
pub(super) fn is(payload: &[u8], kind: Kind) -> bool {
    payload.starts_with(&opening(kind))
}

/// A guessed cookie of this epoch.
pub(super) fn guess(epoch: u32, rng: &mut SmallRng) -> Cookie {
    Cookie {
        epoch,
        value: rng.random(),
    }
}

#[cfg(test)]
mod tests {
    use edge_ebpf::wire::ChunkId;
    use rand::SeedableRng as _;

    use super::*;

    const MACS: (Mac, Mac) = ([2, 0, 0, 0, 0, 2], [2, 0, 0, 0, 0, 1]);

    #[test]
    fn what_varies_is_the_payload_and_leaves_the_checksum_right() {
        let both = [
            ("198.18.0.1:7", "10.71.0.1:7347"),
            ("[fd99::1]:7", "[fd71::1]:7347"),
        ];
        let mut rng = SmallRng::seed_from_u64(3);
        for (from, to) in both.map(|(from, to)| (from.parse().unwrap(), to.parse().unwrap())) {
            for options in [&[][..], &[1, 1, 1, 0]] {
                let get = build::get(Cookie::default(), ChunkId([0; 32]), u128::MAX);
                let mut frame = Frame::with_options(from, to, MACS, options, get);
                let (at, opposite, len) = (16, 32, 16);
                frame.vary(Vary { at, opposite, len }, &mut rng);
                let first = frame.bytes.clone();
                frame.vary(Vary { at, opposite, len }, &mut rng);
                assert_ne!(first, frame.bytes);
                // Rebuilt from the same payload, checksum included.
                let payload = packet::read(&frame.bytes).unwrap().payload().unwrap();
                assert!(is(payload, Kind::Get));
                let again = Frame::with_options(from, to, MACS, options, payload.to_vec());
                assert_eq!(again.bytes, frame.bytes);
            }
        }
    }
}
