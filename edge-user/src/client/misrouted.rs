//! Finds out, after a handshake failed, whether the edge's replies come from another address, which
//! a connected socket does not receive. Only the address is used.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use edge_ebpf::wire::{HELLO_BYTES_MAX, HELLO_HEADER_BYTES, Hello, WELCOME_HEADER_BYTES};

use super::handshake::{HELLO_BYTES_DEFAULT, is_welcome};

/// Longer than the round trip of most paths.
const TIMEOUT: Duration = Duration::from_millis(700);

/// Source of a WELCOME to our HELLO, if it is not the edge's address. Only a receiver of the HELLO
/// knows the nonce.
#[expect(
    clippy::disallowed_methods,
    reason = "this is a loop, which reads the clock"
)]
pub(super) fn reply_source(edge: SocketAddr) -> Option<SocketAddr> {
    let local: SocketAddr = match edge {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let start = Instant::now();
    let socket = UdpSocket::bind(local).ok()?;
    let nonce: [u8; 8] = rand::random();
    let mut hello = [0; HELLO_BYTES_DEFAULT];
    hello[..HELLO_HEADER_BYTES].copy_from_slice(&Hello { nonce }.encode());
    socket.send_to(&hello, edge).ok()?;
    let mut buffer = [0; HELLO_BYTES_MAX];
    loop {
        let left = TIMEOUT.checked_sub(start.elapsed())?;
        socket
            .set_read_timeout(Some(left.max(Duration::from_millis(1))))
            .ok()?;
        let (len, from) = socket.recv_from(&mut buffer).ok()?;
        let ours = len >= WELCOME_HEADER_BYTES && is_welcome(&buffer) && buffer[8..16] == nonce;
        if ours {
            let there = (from.ip(), from.port()) == (edge.ip(), edge.port());
            return (!there).then_some(from);
        }
    }
}
