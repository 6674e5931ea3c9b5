//! Whose request it is, as far as addresses tell: what one source may hold is counted by these.

use std::net::{IpAddr, SocketAddr};

/// An IPv4 address, or the /56 of an IPv6 address: what one customer of a provider commonly has.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum Source {
    V4([u8; 4]),
    V6([u8; 7]),
}

impl Source {
    pub fn of(client: &SocketAddr) -> Self {
        match client.ip() {
            IpAddr::V4(ip) => Self::V4(ip.octets()),
            IpAddr::V6(ip) => {
                let [prefix @ .., _, _, _, _, _, _, _, _, _] = ip.octets();
                Self::V6(prefix)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_is_an_ipv4_address_or_an_ipv6_56() {
        let source = |ip: &str| Source::of(&SocketAddr::new(ip.parse().unwrap(), 1));
        assert_eq!(source("192.0.2.7"), Source::V4([192, 0, 2, 7]));
        assert_ne!(source("192.0.2.7"), source("192.0.2.8"));
        assert_eq!(source("2001:db8:1:23ff::1"), source("2001:db8:1:2300::2"));
        assert_ne!(source("2001:db8:1:2300::1"), source("2001:db8:1:2400::1"));
    }
}
