//! Who asked, and which service address was asked.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use edge_ebpf::frame::{Address, Endpoint, Family};

/// Both ends of a request.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Peer {
    /// Index of the service socket the answer leaves by.
    pub socket: usize,
    pub client: SocketAddr,
}

/// The service's addresses, in the order of its sockets.
#[derive(Clone, Debug)]
pub struct Listeners {
    endpoints: Arc<[Endpoint]>,
    /// Where a link-local client is.
    interface_index: u32,
}

impl Listeners {
    pub fn new(listen: &[SocketAddr], interface_index: u32) -> Self {
        let endpoints = listen.iter().map(|address| endpoint(address).0).collect();
        Self {
            endpoints,
            interface_index,
        }
    }

    /// The other end of a packet that XDP saw, if it was for the service.
    #[inline]
    pub fn peer(&self, source: &Endpoint, destination: &Endpoint, family: Family) -> Option<Peer> {
        let socket = self.endpoints.iter().position(|ours| ours == destination)?;
        let bytes = source.address.bytes();
        let client = match family {
            Family::V4 => {
                let [.., a, b, c, d] = bytes;
                SocketAddr::from(([a, b, c, d], source.port))
            }
            Family::V6 => {
                let [first, second, ..] = bytes;
                let link_local = first == 0xfe && second & 0xc0 == 0x80;
                let scope = if link_local { self.interface_index } else { 0 };
                SocketAddrV6::new(bytes.into(), source.port, 0, scope).into()
            }
        };
        Some(Peer { socket, client })
    }
}

/// An address in the form that packets are judged by.
pub fn endpoint(address: &SocketAddr) -> (Endpoint, Family) {
    let (ip, family) = match address.ip() {
        IpAddr::V4(ip) => (Address::v4(ip.octets()), Family::V4),
        IpAddr::V6(ip) => (Address::v6(ip.octets()), Family::V6),
    };
    (
        Endpoint {
            address: ip,
            port: address.port(),
        },
        family,
    )
}
