//! What an attacker knows and can do where an edge serves.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_ebpf::cookie::{EPOCH_SECONDS, epoch_at};
use edge_ebpf::frame::{Address, Endpoint};
use edge_ebpf::golden::build;
use edge_ebpf::maps::{COOKIE_KEYS, CookieKey, Cookies};
use edge_ebpf::wire::{Cookie, Welcome};
use edge_testbed::{
    bed,
    client::HELLO_BYTES,
    clock,
    packet::{self, Mac},
    raw_socket::RawSocket,
};
use hmac::{Hmac, KeyInit as _, Mac as _};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use rustix::time::{ClockId, clock_gettime};
use sha2::Sha256;

use super::Session;
use super::frames::{FRONT_BYTES, Frame};
use super::tally::Tally;

/// Limit for an edge's WELCOMEs.
const GREETED_WITHIN: Duration = Duration::from_secs(3);
/// Time after which the edge knows of a new epoch.
const EPOCH_NOTICED_WITHIN: Duration = Duration::from_secs(3);
/// Time without a WELCOME after which a HELLO is repeated.
const SILENCE: Duration = Duration::from_millis(50);

pub(super) struct Attacker<'a> {
    pub(super) session: &'a Session<'a>,
    pub(super) socket: RawSocket,
    pub(super) tally: Tally,
    pub(super) rng: SmallRng,
}

impl<'a> Attacker<'a> {
    pub(super) fn new(session: &'a Session<'a>) -> Result<Self> {
        let reader = &session.testbed.bed.reader;
        let own = vec![reader.ipv4.into(), reader.ipv6.into()];
        Ok(Self {
            session,
            socket: RawSocket::on(reader)?,
            tally: Tally::new(session.edge_mac, own),
            rng: SmallRng::seed_from_u64(1),
        })
    }

    /// The service's address of the same family.
    pub(super) fn service(&self, from: SocketAddr) -> SocketAddr {
        self.session.edges[usize::from(from.is_ipv6())]
    }

    /// A frame to the service.
    pub(super) fn frame(&self, from: SocketAddr, payload: Vec<u8>) -> Frame {
        self.frame_by((self.socket.mac, self.session.edge_mac), from, payload)
    }

    pub(super) fn frame_by(&self, macs: (Mac, Mac), from: SocketAddr, payload: Vec<u8>) -> Frame {
        Frame::new(from, self.service(from), macs, payload)
    }

    /// Sends a HELLO from each of these clients and returns their cookies.
    pub(super) fn greet(&mut self, clients: &[SocketAddr]) -> Result<Vec<Cookie>> {
        let mut cookies = HashMap::new();
        let deadline = clock::now() + GREETED_WITHIN;
        while cookies.len() < clients.len() {
            if clock::now() >= deadline {
                bail!(
                    "the edge sent WELCOMEs to {} of {} clients",
                    cookies.len(),
                    clients.len()
                );
            }
            for client in clients {
                if !cookies.contains_key(client) {
                    let hello = self.frame(*client, build::hello(HELLO_BYTES));
                    let sent = self.socket.send(&hello.bytes)?;
                    self.tally.sent(&hello, sent.into());
                }
            }
            let Self { socket, tally, .. } = self;
            while socket.wait(SILENCE)? {
                socket.drain(FRONT_BYTES, |front, length| {
                    tally.record(front, length);
                    if let Some((client, cookie)) = cookie_in(front) {
                        cookies.insert(client, cookie);
                    }
                    Ok(())
                })?;
            }
        }
        let all = clients.iter().map(|client| cookies.get(client).copied());
        all.collect::<Option<_>>().context("a cookie is missing")
    }

    /// The cookie that the edge would have issued this many epochs ago. Computed from its secret,
    /// as waiting for it would take minutes.
    pub(super) fn cookie_of_age(&self, client: SocketAddr, epochs: u32) -> Result<Cookie> {
        let epoch = epoch()? - epochs;
        let mut keys = [CookieKey::default(); COOKIE_KEYS];
        keys[epoch as usize % COOKIE_KEYS] = key(&self.session.secret, epoch)?;
        let cookies = Cookies {
            epoch,
            reserved: 0,
            keys,
        };
        let address = match client.ip() {
            IpAddr::V4(address) => Address::v4(address.octets()),
            IpAddr::V6(address) => Address::v6(address.octets()),
        };
        let port = client.port();
        let cookie = cookies.issue(&Endpoint { address, port });
        cookie.context("no key for this epoch")
    }

    /// Sets the MAC address of an address on the edge's side.
    pub(super) fn settle(&self, address: IpAddr, mac: Mac) -> Result<()> {
        let (side, mac) = (&self.session.testbed.bed.edge, bed::station(mac));
        let words = format!(
            "neigh replace {address} lladdr {mac} nud permanent dev {}",
            side.link
        );
        side.ip(&words).map(drop)
    }
}

/// Unused source addresses: the networks for benchmarks, and one of the unique local ones.
pub(super) fn unused(number: u16, v6: bool, port: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    let address: IpAddr = if v6 {
        Ipv6Addr::new(0xfd99, 0, 0, 0, 0, 0, 0, number).into()
    } else {
        Ipv4Addr::new(198, 18, high, low).into()
    };
    SocketAddr::new(address, port)
}

/// Addresses on the edge's own link that no host has.
pub(super) fn silent(number: u16) -> SocketAddr {
    let [high, low] = number.to_be_bytes();
    SocketAddr::from((Ipv4Addr::new(198, 19, high, low), 40_000))
}

/// The first unused one, over IPv4 and IPv6.
pub(super) fn unused_pair() -> [SocketAddr; 2] {
    [false, true].map(|v6| unused(1, v6, 40_000))
}

/// The client that a frame welcomes, and its cookie.
fn cookie_in(front: &[u8]) -> Option<(SocketAddr, Cookie)> {
    let packet = packet::read(front)?;
    let welcome = Welcome::decode(packet.payload()?.first_chunk()?).ok()?;
    Some((packet.to, welcome.cookie))
}

/// The current cookie epoch.
pub(super) fn epoch() -> Result<u32> {
    let now = clock_gettime(ClockId::Realtime);
    Ok(epoch_at(u64::try_from(now.tv_sec)?))
}

/// Waits until the edge has noticed the start of an epoch; it looks once a second.
pub(super) fn wait_for_the_turn() -> Result<()> {
    let begun = epoch()?;
    let settled = clock::poll(EPOCH_NOTICED_WITHIN * 2, || {
        let now = clock_gettime(ClockId::Realtime);
        let into = u64::try_from(now.tv_sec).unwrap_or(0) % EPOCH_SECONDS;
        (into >= EPOCH_NOTICED_WITHIN.as_secs()).then_some(())
    });
    settled.with_context(|| format!("epoch {begun} does not advance"))
}

/// The key of a cookie epoch (docs/WIRE.md, "Cookie").
fn key(secret: &[u8], epoch: u32) -> Result<CookieKey> {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret)?;
    mac.update(b"edge1 cookie");
    mac.update(&epoch.to_be_bytes());
    let digest: [u8; 32] = mac.finalize().into_bytes().into();
    let (words, _) = digest.as_chunks::<8>();
    Ok(CookieKey {
        epoch,
        live: 1,
        words: [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])],
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_key_is_that_of_the_specifications_vector() {
        let secret: [u8; 32] = std::array::from_fn(|at| u8::try_from(at).unwrap());
        let key = key(&secret, 14_000_000).unwrap();
        assert_eq!(key.words, [0x1051_c598_1363_022e, 0xb7ed_6bb5_8d9d_9482]);
    }
}
