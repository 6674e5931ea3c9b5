//! Rewrites a request into its answer, in place: swaps addresses and ports, replaces the payload,
//! and computes every checksum from scratch (a request from the same host carries only a partial
//! checksum).

use crate::cursor::{PacketMut, part, put};
use crate::frame::{ETHERNET_BYTES, Family, Frame, IPV4_BYTES, IPV6_BYTES, Stations, UDP_BYTES};
use crate::steer::Reply;
use crate::wire::{NACK_BYTES, WELCOME_HEADER_BYTES};

const TTL: u8 = 64;
const DONT_FRAGMENT: u16 = 0x4000;

/// How to resize the rewritten frame: truncate, then pad with zeros.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resize {
    /// The length to truncate to.
    pub keep_bytes: usize,
    /// The final length.
    pub frame_bytes: usize,
}

/// Rewrites the packet without resizing it. `None` if the packet is shorter than its headers state.
#[inline(always)]
pub fn reply<P: PacketMut + ?Sized>(
    packet: &mut P,
    frame: &Frame,
    reply: &Reply,
) -> Option<Resize> {
    let payload_at = frame.payload_at();
    // A WELCOME is as long as its HELLO, but its padding is zeros, so that an edge does not reflect
    // content chosen by the client. Zeros add nothing to the checksum.
    let (message_bytes, udp_bytes, payload_sum) = match reply {
        Reply::Welcome(welcome) => {
            let bytes = welcome.encode();
            *packet.at_mut::<WELCOME_HEADER_BYTES>(payload_at)? = bytes;
            (WELCOME_HEADER_BYTES, frame.udp_bytes, sum(&bytes))
        }
        Reply::Nack(nack) => {
            let bytes = nack.encode();
            *packet.at_mut::<NACK_BYTES>(payload_at)? = bytes;
            #[expect(clippy::cast_possible_truncation, reason = "32")]
            let udp_bytes = UDP_BYTES.wrapping_add(NACK_BYTES) as u16;
            (NACK_BYTES, udp_bytes, sum(&bytes))
        }
    };
    headers(packet, frame, udp_bytes, payload_sum)?;
    Some(Resize {
        keep_bytes: payload_at.wrapping_add(message_bytes),
        frame_bytes: frame.udp_at.wrapping_add(usize::from(udp_bytes)),
    })
}

/// Rewrites the headers of a request for an answer of this UDP length and payload sum.
#[inline(always)]
pub fn headers<P: PacketMut + ?Sized>(
    packet: &mut P,
    frame: &Frame,
    udp_bytes: u16,
    payload_sum: u32,
) -> Option<()> {
    let udp = packet.at_mut::<UDP_BYTES>(frame.udp_at)?;
    let mut header = [0; UDP_BYTES];
    put::<0, 2, _>(&mut header, frame.destination.port.to_be_bytes());
    put::<2, 2, _>(&mut header, frame.source.port.to_be_bytes());
    put::<4, 2, _>(&mut header, udp_bytes.to_be_bytes());
    let checksum = match fold(
        payload_sum
            .wrapping_add(sum(&header))
            // The prefix of an IPv4-mapped address sums to ffff, which is zero in one's complement.
            .wrapping_add(sum(&frame.source.address.bytes()))
            .wrapping_add(sum(&frame.destination.address.bytes()))
            .wrapping_add(u32::from(udp_bytes))
            .wrapping_add(17),
    ) {
        // Zero would mean no checksum.
        0 => 0xffff,
        checksum => checksum,
    };
    put::<6, 2, _>(&mut header, checksum.to_be_bytes());
    *udp = header;

    match frame.family {
        Family::V4 => rewrite_v4(packet.at_mut::<IPV4_BYTES>(frame.ip_at)?, udp_bytes),
        Family::V6 => rewrite_v6(packet.at_mut::<IPV6_BYTES>(frame.ip_at)?, udp_bytes),
    }

    let ethernet = packet.at_mut::<ETHERNET_BYTES>(0)?;
    swap_stations(ethernet);
    Some(())
}

/// Swaps source and destination of an IPv4 packet, which changes no checksum. A baseline for
/// benchmarks.
#[inline(always)]
pub fn turn<P: PacketMut + ?Sized>(packet: &mut P, frame: &Frame) -> Option<()> {
    if frame.family != Family::V4 {
        return None;
    }
    let ethernet = packet.at_mut::<ETHERNET_BYTES>(0)?;
    swap_stations(ethernet);
    let ip = packet.at_mut::<IPV4_BYTES>(frame.ip_at)?;
    let (source, destination) = (part::<12, 4, _>(ip), part::<16, 4, _>(ip));
    put::<12, 4, _>(ip, destination);
    put::<16, 4, _>(ip, source);
    let udp = packet.at_mut::<UDP_BYTES>(frame.udp_at)?;
    put::<0, 2, _>(udp, frame.destination.port.to_be_bytes());
    put::<2, 2, _>(udp, frame.source.port.to_be_bytes());
    Some(())
}

#[inline(always)]
fn swap_stations(ethernet: &mut [u8; ETHERNET_BYTES]) {
    let Stations {
        destination,
        source,
    } = Stations::of(ethernet);
    put::<0, 6, _>(ethernet, source);
    put::<6, 6, _>(ethernet, destination);
}

/// The sum of a payload's big-endian 16-bit words, for [`headers`]. An odd last byte is padded with
/// zero.
///
/// Computed over little-endian 32-bit words: a one's complement sum is the same except for its byte
/// order.
pub fn payload_sum(payload: &[u8]) -> u32 {
    let (words, rest) = payload.as_chunks::<4>();
    let mut last = [0; 4];
    for (place, byte) in last.iter_mut().zip(rest) {
        *place = *byte;
    }
    let sum = words.iter().chain([&last]).fold(0_u64, |sum, word| {
        sum.wrapping_add(u64::from(u32::from_le_bytes(*word)))
    });
    // Fold four parts of 16 bits, then the carry.
    let parts = [sum, sum >> 16, sum >> 32, sum >> 48].map(|part| part & 0xffff);
    let sum = parts
        .iter()
        .fold(0, |sum: u64, part| sum.wrapping_add(*part));
    let sum = (sum & 0xffff).wrapping_add(sum >> 16) as u16;
    u32::from(sum.swap_bytes())
}

#[inline(always)]
fn rewrite_v4(ip: &mut [u8; IPV4_BYTES], udp_bytes: u16) {
    let source = part::<12, 4, _>(ip);
    let destination = part::<16, 4, _>(ip);
    #[expect(clippy::cast_possible_truncation, reason = "20")]
    let total_bytes = udp_bytes.wrapping_add(IPV4_BYTES as u16);
    let mut header = [0; IPV4_BYTES];
    put::<0, 2, _>(&mut header, [0x45, 0]);
    put::<2, 2, _>(&mut header, total_bytes.to_be_bytes());
    put::<6, 2, _>(&mut header, DONT_FRAGMENT.to_be_bytes());
    put::<8, 2, _>(&mut header, [TTL, 17]);
    put::<12, 4, _>(&mut header, destination);
    put::<16, 4, _>(&mut header, source);
    let checksum = fold(sum(&header));
    put::<10, 2, _>(&mut header, checksum.to_be_bytes());
    *ip = header;
}

#[inline(always)]
fn rewrite_v6(ip: &mut [u8; IPV6_BYTES], udp_bytes: u16) {
    let source = part::<8, 16, _>(ip);
    let destination = part::<24, 16, _>(ip);
    put::<0, 4, _>(ip, [0x60, 0, 0, 0]);
    put::<4, 2, _>(ip, udp_bytes.to_be_bytes());
    put::<6, 2, _>(ip, [17, TTL]);
    put::<8, 16, _>(ip, destination);
    put::<24, 16, _>(ip, source);
}

/// Sum of the big-endian 16-bit words; `N` is even and too small to overflow.
#[inline(always)]
pub(crate) fn sum<const N: usize>(bytes: &[u8; N]) -> u32 {
    const { assert!(N.is_multiple_of(2) && N <= 1024) };
    let (words, _) = bytes.as_chunks::<2>();
    words.iter().fold(0, |sum: u32, word| {
        sum.wrapping_add(u32::from(u16::from_be_bytes(*word)))
    })
}

/// Folds a sum to the Internet checksum.
#[inline(always)]
pub(crate) fn fold(sum: u32) -> u16 {
    let once = (sum & 0xffff).wrapping_add(sum >> 16);
    let twice = (once & 0xffff).wrapping_add(once >> 16);
    !(twice as u16)
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;

    /// As in RFC 1071, word by word.
    fn simple_sum(payload: &[u8]) -> u32 {
        payload.chunks(2).fold(0, |sum, word| {
            sum + u32::from(word[0]) * 256 + word.get(1).map_or(0, |low| u32::from(*low))
        })
    }

    #[test]
    fn the_payload_sum_equals_that_of_rfc_1071() {
        for len in (0..70).chain([1231, 1232, 1471, 65_535]) {
            for seed in 0..20_u32 {
                let byte = |at: u32| (at.wrapping_add(seed).wrapping_mul(0x9e37_79b1) >> 24) as u8;
                let payload: Vec<u8> = (0..len).map(byte).collect();
                assert_eq!(
                    fold(payload_sum(&payload)),
                    fold(simple_sum(&payload)),
                    "{len} {seed}"
                );
            }
            for byte in [0, 0xff] {
                let payload = vec![byte; len as usize];
                assert_eq!(
                    fold(payload_sum(&payload)),
                    fold(simple_sum(&payload)),
                    "{len}"
                );
            }
        }
    }
}
