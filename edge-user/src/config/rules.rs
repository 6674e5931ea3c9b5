//! Required values, and constraints between values.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};

use tracing_subscriber::EnvFilter;

use super::schema::{Config, LISTEN_COUNT_MAX};
use super::source::ConfigError;
use super::value::{Sender, XdpMode};
use crate::limits::{INTERFACES_MAX, ORIGINS_MAX};

/// `IFNAMSIZ`, less its final zero.
const INTERFACE_NAME_BYTES_MAX: usize = 15;

pub(super) fn check(config: &Config) -> Result<(), ConfigError> {
    check_interfaces(config)?;
    check_listen(config)?;
    if config.origins.is_empty() {
        return Err(config.error("origin", "missing; add an [[origin]] with a url"));
    }
    if config.origins.len() > ORIGINS_MAX {
        let message = format!(
            "{} origins are too many; use {ORIGINS_MAX} at most",
            config.origins.len()
        );
        return Err(config.error("origin", &message));
    }
    if config.service.sender == Sender::Xsk && config.xdp.mode == XdpMode::Off {
        let message = "\"xsk\" sends through the XDP sockets; set xdp.mode = \"native\" or \
                       \"generic\", or use \"gso\"";
        return Err(config.error("service.sender", message));
    }
    if let Err(error) = EnvFilter::builder().parse(&config.log.filter) {
        let message = format!("{error}; use a filter such as \"info\" or \"info,edge_user=debug\"");
        return Err(config.error("log.filter", &message));
    }
    Ok(())
}

fn check_interfaces(config: &Config) -> Result<(), ConfigError> {
    let names = &config.service.interfaces;
    if names.is_empty() {
        let message = "missing; list the interfaces to serve on, such as [\"eth0\"]";
        return Err(config.error("service.interfaces", message));
    }
    if names.len() > INTERFACES_MAX {
        let message = format!(
            "{} interfaces are too many; use {INTERFACES_MAX} at most",
            names.len()
        );
        return Err(config.error("service.interfaces", &message));
    }
    let mut seen = BTreeSet::new();
    for (index, name) in names.iter().enumerate() {
        // The name becomes a path in /sys.
        let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'/';
        let special = matches!(name.as_str(), "" | "." | "..");
        let wrong = if special || name.len() > INTERFACE_NAME_BYTES_MAX || !name.bytes().all(plain)
        {
            format!("\"{name}\" is not an interface name; see `ip link`")
        } else if !seen.insert(name) {
            format!("\"{name}\" is listed twice; remove one")
        } else {
            continue;
        };
        return Err(config.error(&format!("service.interfaces[{index}]"), &wrong));
    }
    Ok(())
}

fn check_listen(config: &Config) -> Result<(), ConfigError> {
    let listen = &config.service.listen;
    let Some(first) = listen.first() else {
        let message = "missing; list the service addresses, such as [\"192.0.2.10:7347\"]";
        return Err(config.error("service.listen", message));
    };
    if listen.len() > LISTEN_COUNT_MAX {
        let message = format!(
            "{} addresses are too many; use {LISTEN_COUNT_MAX} at most",
            listen.len()
        );
        return Err(config.error("service.listen", &message));
    }
    let mut seen = BTreeSet::new();
    for (index, address) in listen.iter().enumerate() {
        let wrong = unusable(*address).map(String::from).or_else(|| {
            if address.port() != first.port() {
                return Some(format!(
                    "all addresses must have the same port; use port {}",
                    first.port()
                ));
            }
            if address.ip().is_loopback() && config.xdp.mode != XdpMode::Off {
                return Some(format!(
                    "XDP cannot serve a loopback address; set xdp.mode = \"off\", or use another address \
                     (xdp.mode is \"{}\")",
                    config.xdp.mode
                ));
            }
            (!seen.insert(address)).then(|| String::from("is listed twice; remove one"))
        });
        if let Some(wrong) = wrong {
            let key = format!("service.listen[{index}]");
            return Err(config.error(&key, &format!("{address}: {wrong}")));
        }
    }
    Ok(())
}

/// Why this cannot be a service address.
fn unusable(address: SocketAddr) -> Option<&'static str> {
    let ip = address.ip();
    if ip.is_unspecified() {
        return Some(
            "a wildcard cannot be served, as a reply is sent from the address of its request; list \
             each address",
        );
    }
    if ip.is_multicast() || matches!(ip, IpAddr::V4(ip) if ip.is_broadcast()) {
        return Some("multicast and broadcast cannot be served; use a unicast address");
    }
    if matches!(ip, IpAddr::V6(ip) if ip.to_ipv4_mapped().is_some()) {
        return Some("an IPv4-mapped IPv6 address; write it as IPv4");
    }
    (address.port() == 0).then_some("port 0 is not valid; use 7347")
}
