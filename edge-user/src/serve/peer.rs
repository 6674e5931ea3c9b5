//! Client and service address of a request.

use std::net::{IpAddr, SocketAddr, SocketAddrV6};
use std::sync::Arc;

use edge_ebpf::frame::{Address, Endpoint, Family};

#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Peer {
    /// Index of the service socket that sends the answer.
    pub socket: usize,
    pub client: SocketAddr,
}

/// The service's addresses, in the order of its sockets.
#[derive(Clone, Debug)]
pub struct Listeners {
    endpoints: Arc<[Endpoint]>,
    /// The scope of link-local clients.
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

    /// The peer of a steered packet, if its destination is a service address.
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

/// An address in the form that the steering code uses.
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
