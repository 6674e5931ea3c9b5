//! The address of an edge, as it is typed: with or without a port, by number or by name.

use std::net::{IpAddr, Ipv4Addr, SocketAddr, ToSocketAddrs};

use edge_ebpf::wire::SERVICE_PORT;

use crate::failed::Failed;
use crate::ticket::hidden;

/// The address, if it can be that of an edge.
///
/// Understands `10.0.0.1`, `10.0.0.1:7347`, `fd00::1`, `[fd00::1]`, `[fd00::1]:7347`, `name` and
/// `name:7347`.
pub(crate) fn resolve(text: &str) -> Result<SocketAddr, Failed> {
    let address = look_up(text)?;
    let refuse = |why: &str| Err(Failed::usage(format!("edge {text:?}: {why}")));
    let ip = address.ip();
    if address.port() == 0 {
        return refuse("nobody has port 0; without a port it is 7347");
    }
    if ip.is_unspecified() || ip.is_multicast() || ip == IpAddr::V4(Ipv4Addr::BROADCAST) {
        return refuse("this is not the address of one host");
    }
    match address {
        SocketAddr::V6(v6) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            refuse("a link-local address needs its interface: ADDR%INTERFACE")
        }
        SocketAddr::V4(_) | SocketAddr::V6(_) => Ok(address),
    }
}

fn look_up(text: &str) -> Result<SocketAddr, Failed> {
    if let Ok(address) = text.parse::<SocketAddr>() {
        return Ok(address);
    }
    // Asking for it would hand it to every name server on the way.
    if hidden(text) != text {
        return Err(Failed::usage("a ticket is not the address of an edge"));
    }
    let bare = text
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'))
        .unwrap_or(text);
    if let Ok(address) = bare.parse::<IpAddr>() {
        return Ok((address, SERVICE_PORT).into());
    }
    let found = if has_port(text) {
        text.to_socket_addrs()
    } else {
        (text, SERVICE_PORT).to_socket_addrs()
    };
    let unknown = |why: String| {
        Failed::new(format!(
            "no address for edge {text:?} ({why}): name it as ADDR or ADDR:PORT"
        ))
    };
    match found {
        Ok(mut addresses) => addresses
            .next()
            .ok_or_else(|| unknown("none known".to_owned())),
        Err(error) => Err(unknown(error.to_string())),
    }
}

fn has_port(text: &str) -> bool {
    text.rsplit_once(':')
        .is_some_and(|(_, port)| port.parse::<u16>().is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_without_port_gets_the_services_port() {
        for (typed, expected) in [
            ("10.0.0.1", "10.0.0.1:7347"),
            ("10.0.0.1:99", "10.0.0.1:99"),
            ("fd00::1", "[fd00::1]:7347"),
            ("[fd00::1]", "[fd00::1]:7347"),
            ("[fd00::1]:99", "[fd00::1]:99"),
        ] {
            let found = resolve(typed).ok().map(|address| address.to_string());
            assert_eq!(found.as_deref(), Some(expected), "{typed}");
        }
        assert!(resolve("localhost:99").is_ok_and(|address| address.port() == 99));
        assert!(resolve("localhost").is_ok_and(|address| address.port() == 7347));
        assert!(resolve("fe80::1%lo").is_ok_and(|address| address.port() == 7347));
        for (typed, why) in [
            ("0.0.0.0", "one host"),
            ("[::]:7347", "one host"),
            ("255.255.255.255", "one host"),
            ("224.0.0.1", "one host"),
            ("ff02::1", "one host"),
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
