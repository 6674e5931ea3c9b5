//! The address of an edge on the command line: IP address or name, with or without a port.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use edge_ebpf::wire::SERVICE_PORT;
use edge_user::client::connect::ADDRESSES_MAX;

use crate::error::CommandError;
use crate::ticket::redact;

/// An argument and the addresses it resolves to: at least one.
#[derive(Debug)]
pub(crate) struct Edge {
    argument: String,
    pub(crate) all: Vec<SocketAddr>,
}

impl fmt::Display for Edge {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.all.as_slice() {
            [one] => one.fmt(out),
            _ => out.write_str(&self.argument),
        }
    }
}

/// Resolves to the usable addresses, in the resolver's order.
///
/// Accepts `10.0.0.1`, `10.0.0.1:7347`, `fd00::1`, `[fd00::1]`, `[fd00::1]:7347`, `name` and
/// `name:7347`, and link-local addresses with `%INTERFACE`, with brackets or without.
pub(crate) fn resolve(text: &str) -> Result<Edge, CommandError> {
    let mut all = look_up(text)?;
    let mut refused = None;
    all.retain(|address| match unusable(address) {
        None => true,
        Some(why) => {
            refused = Some(why);
            false
        }
    });
    all.truncate(ADDRESSES_MAX);
    match refused {
        Some(why) if all.is_empty() => Err(CommandError::usage(format!("edge {text:?}: {why}"))),
        Some(_) | None => Ok(Edge {
            argument: text.to_owned(),
            all,
        }),
    }
}

fn unusable(address: &SocketAddr) -> Option<&'static str> {
    let ip = address.ip();
    if address.port() == 0 {
        return Some("port 0 is not valid; the default is 7347");
    }
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return Some("not the address of a single host");
    }
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            Some("a link-local address needs its interface: ADDR%INTERFACE")
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => None,
    }
}

fn look_up(text: &str) -> Result<Vec<SocketAddr>, CommandError> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(vec![address]);
    }
    // A lookup would send it to name servers.
    if redact(text) != text {
        return Err(CommandError::usage(
            "a ticket is not the address of an edge",
        ));
    }
    let unknown = |why: &str| {
        CommandError::new(format!(
            "cannot resolve edge {text:?} ({why}): use ADDR or ADDR:PORT"
        ))
    };
    let (host, port) = match bracketed(text) {
        Some((host, "")) => (host, SERVICE_PORT),
        Some((host, rest)) => {
            let port = rest.strip_prefix(':').and_then(|port| port.parse().ok());
            (host, port.ok_or_else(|| unknown("invalid port"))?)
        }
        None if text.parse::<IpAddr>().is_ok() || !has_port(text) => (text, SERVICE_PORT),
        None => {
            let (host, port) = text.rsplit_once(':').unwrap_or((text, ""));
            (host, port.parse().unwrap_or(SERVICE_PORT))
        }
    };
    // Also accepts `%INTERFACE`, by name or index.
    match (host, port).to_socket_addrs() {
        Ok(addresses) => {
            let addresses: Vec<_> = addresses.collect();
            if addresses.is_empty() {
                return Err(unknown("no addresses"));
            }
            Ok(addresses)
        }
        Err(error) => Err(unknown(&error.to_string())),
    }
}

fn bracketed(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix('[')?.split_once(']')
}

fn has_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_a_port_gets_the_default_port() {
        for (typed, expected) in [
            ("10.0.0.1", "10.0.0.1:7347"),
            ("10.0.0.1:99", "10.0.0.1:99"),
            ("fd00::1", "[fd00::1]:7347"),
            ("[fd00::1]", "[fd00::1]:7347"),
            ("[fd00::1]:99", "[fd00::1]:99"),
        ] {
            let found = resolve(typed).ok().map(|edge| edge.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{typed}");
        }
        for (typed, port) in [
            ("localhost:99", 99),
            ("localhost", 7347),
            ("fe80::1%lo", 7347),
            ("[fe80::1%lo]", 7347),
            ("[fe80::1%lo]:99", 99),
        ] {
            let edge = resolve(typed).unwrap_or_else(|refused| panic!("{typed}: {refused}"));
            assert!(!edge.all.is_empty());
            assert!(edge.all.iter().all(|address| address.port() == port));
        }
        for (typed, why) in [
            ("0.0.0.0", "single host"),
            ("[::]:7347", "single host"),
            ("255.255.255.255", "single host"),
            ("224.0.0.1", "single host"),
            ("ff02::1", "single host"),
            ("10.0.0.1:0", "port 0"),
            ("fe80::1", "%INTERFACE"),
        ] {
            let refused = resolve(typed).expect_err(typed).to_string();
            assert!(refused.contains(why), "{refused}");
        }
        for typed in ["", ":", "10.0.0.1:", "10.0.0.1:99999", "[fd00::1]:x"] {
            assert!(resolve(typed).is_err(), "{typed:?}");
        }
    }
}
