//! Opens sockets and looks up the interfaces of the host.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use edge_ebpf::frame::{Address, IPV4_BYTES, IPV6_BYTES, UDP_BYTES};
use edge_ebpf::maps::{ABI_VERSION, ADDRESSES_MAX, QUEUES_MAX, Settings};
use edge_ebpf::wire::DATA_HEADER_BYTES;
use rustix::thread::{CpuSet, sched_getaffinity};

use super::error::{StartError, refused, system};
use super::facts::{is_link_local, tags_on};
use super::memory::memory;
use super::remedy::Operation;
use crate::clock;
use crate::config::{Config, Sender, XdpMode};
use crate::limits::{DAD_POLL_INTERVAL, DAD_TIMEOUT, XSK, XSK_SENDING};
use crate::network::{AddressState, Interface, Network};
use crate::serve::peer::endpoint;
use crate::sys::socket::ServiceSocket;
use crate::sys::xsk::Xsk;

pub(super) fn listen(
    addresses: &[SocketAddr],
    network: &Network,
    interfaces: &[Interface],
) -> Result<Arc<[ServiceSocket]>, StartError> {
    let bind = |address: &SocketAddr| {
        await_detection(*address, network)?;
        let scoped = scoped(*address, network, interfaces)?;
        refused(Operation::Listen, address, ServiceSocket::bind(scoped))
    };
    addresses.iter().map(bind).collect()
}

/// Waits for duplicate address detection, before which a new IPv6 address is not usable.
#[expect(
    clippy::disallowed_methods,
    reason = "duplicate address detection is polled"
)]
fn await_detection(address: SocketAddr, network: &Network) -> Result<(), StartError> {
    if address.is_ipv4() {
        return Ok(());
    }
    let until = clock::now() + DAD_TIMEOUT;
    loop {
        let all = system("address information", network.addresses())?;
        let mut states = all
            .iter()
            .filter(|local| local.address == address.ip())
            .map(|local| local.state);
        match states.next() {
            // If the address is missing, binding the socket fails.
            Some(AddressState::Usable) | None => return Ok(()),
            Some(AddressState::Duplicate) => return Err(StartError::Duplicate { address }),
            Some(AddressState::Tentative) if clock::now() >= until => {
                return Err(StartError::Tentative { address });
            }
            Some(AddressState::Tentative) => thread::sleep(DAD_POLL_INTERVAL),
        }
    }
}

/// Adds the scope to a link-local address: the served interface that has it, itself or through a
/// VLAN; else another interface that has it; else the first served one.
fn scoped(
    address: SocketAddr,
    network: &Network,
    interfaces: &[Interface],
) -> Result<SocketAddr, StartError> {
    let SocketAddr::V6(mut scoped) = address else {
        return Ok(address);
    };
    if !is_link_local(address.ip()) || scoped.scope_id() != 0 {
        return Ok(address);
    }
    let vlans = system("interface information", network.vlans())?;
    let all = system("address information", network.addresses())?;
    let having =
        |interface: &&Interface| !tags_on(address.ip(), interface, &vlans, &all).is_empty();
    let mut served = interfaces.iter().filter(having);
    let first = served.next();
    if let (Some(first), Some(second)) = (first, served.next()) {
        return Err(StartError::LinkLocal {
            address,
            first: first.name.clone(),
            second: second.name.clone(),
        });
    }
    let index = first.unwrap_or(&interfaces[0]).index;
    let owners = all.iter().filter(|local| local.address == address.ip());
    let mut owners = owners.map(|local| local.interface);
    scoped.set_scope_id(match owners.next() {
        Some(owner) if owner != index && !owners.any(|owner| owner == index) => owner,
        _ => index,
    });
    Ok(scoped.into())
}

/// The settings that the program recognises requests by, without the facts about the host.
pub(super) fn settings(config: &Config) -> Settings {
    let mut addresses = [Address::UNSPECIFIED; ADDRESSES_MAX];
    let listen = &config.service.listen;
    for (place, address) in addresses.iter_mut().zip(listen) {
        *place = endpoint(address).0.address;
    }
    Settings {
        abi_version: ABI_VERSION,
        port: listen[0].port(),
        segment_bytes: config.service.segment_bytes,
        max_burst: config.service.max_burst,
        coalesced: u8::from(config.xdp.mode == XdpMode::Generic),
        addresses,
        ..Settings::NONE
    }
}

/// The served interfaces, in the order of the configuration.
pub(super) fn interfaces(network: &Network, config: &Config) -> Result<Vec<Interface>, StartError> {
    let names = &config.service.interfaces;
    let mut all: Vec<Interface> = Vec::new();
    for name in names {
        let unfit = |error| StartError::Interface {
            interface: name.clone(),
            error,
        };
        let found = network.interface(name).map_err(unfit)?;
        let found = found.ok_or_else(|| unfit(io::Error::from_raw_os_error(libc::ENODEV)))?;
        // An interface can have alternative names.
        if let Some(place) = all.iter().position(|other| other.index == found.index) {
            return Err(StartError::SameInterface {
                first: names[place].clone(),
                second: name.clone(),
                name: found.name,
            });
        }
        // Only the program needs a MAC address.
        if found.mac.is_none() && config.xdp.mode != XdpMode::Off {
            return Err(unfit(io::Error::other("it has no Ethernet address")));
        }
        check_mtu(config, &found)?;
        all.push(found);
    }
    Ok(all)
}

/// The number of served RX queues. Drivers may change the number of queues when a program is
/// attached.
pub(super) fn queue_count(network: &Network, interface: &Interface) -> Result<u32, StartError> {
    let name = &interface.name;
    let queues = network
        .queue_count(interface)
        .map_err(|error| StartError::Interface {
            interface: name.clone(),
            error,
        })?;
    if queues > QUEUES_MAX {
        tracing::warn!(
            "{name} has {queues} RX queues, of which {QUEUES_MAX} can have a worker: hits on the \
             others take the kernel's path"
        );
    }
    Ok(queues.min(QUEUES_MAX))
}

/// A full DATA datagram must fit the MTU, since it is never fragmented.
fn check_mtu(config: &Config, interface: &Interface) -> Result<(), StartError> {
    let mtu_bytes = interface.mtu_bytes;
    let needed_bytes = packet_bytes_max(config);
    if needed_bytes <= mtu_bytes {
        return Ok(());
    }
    Err(StartError::Mtu {
        interface: interface.name.clone(),
        mtu_bytes,
        needed_bytes,
        segment_bytes: config.service.segment_bytes,
    })
}

/// The length of the longest IP packet with DATA.
pub(super) fn packet_bytes_max(config: &Config) -> u32 {
    let ip_bytes = if config.service.listen.iter().any(SocketAddr::is_ipv6) {
        IPV6_BYTES
    } else {
        IPV4_BYTES
    };
    let header_bytes = ip_bytes + UDP_BYTES + DATA_HEADER_BYTES;
    u32::from(config.service.segment_bytes) + u32::try_from(header_bytes).unwrap_or(u32::MAX)
}

/// Assigns workers to the CPUs of this process in turn.
pub(super) fn worker_cpu(number: usize) -> usize {
    let allowed = sched_getaffinity(None).ok();
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| allowed.as_ref().is_some_and(|allowed| allowed.is_set(*cpu)))
        .collect();
    cpus.get(number % cpus.len().max(1)).copied().unwrap_or(0)
}

/// An AF_XDP socket on a queue, with its own umem. It can send if the configured sender is `xsk`.
pub(super) fn xsk(config: &Config, interface: &str, queue: u32) -> Result<Xsk, StartError> {
    let sizes = match config.service.sender {
        Sender::Gso => XSK,
        Sender::Xsk => XSK_SENDING,
    };
    let what = format!("the umem of queue {queue} of {interface}");
    let umem = memory(&what, sizes.umem_bytes(), config)?;
    let bound = Xsk::new(umem, sizes).and_then(|xsk| {
        xsk.bind(interface, queue)?;
        Ok(xsk)
    });
    let subject = format!("queue {queue} of {interface}");
    refused(Operation::Xsk, subject, bound)
}
