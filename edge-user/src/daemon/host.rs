//! What the host gives: sockets, and facts about the interface.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::thread;

use edge_ebpf::frame::{Address, IPV4_BYTES, IPV6_BYTES, UDP_BYTES};
use edge_ebpf::maps::{ABI_VERSION, ADDRESSES_MAX, QUEUES_MAX, Settings};
use edge_ebpf::wire::DATA_HEADER_BYTES;
use rustix::thread::{CpuSet, sched_getaffinity};

use super::error::{StartError, refused, system};
use super::memory::memory;
use super::remedy::Operation;
use crate::clock;
use crate::config::{Config, Sender, XdpMode};
use crate::limits::{DETECTION_FOR, DETECTION_LOOK, XSK, XSK_SENDING};
use crate::network::{AddressState, Interface, Network};
use crate::serve::peer::endpoint;
use crate::sys::socket::ServiceSocket;
use crate::sys::xsk::Xsk;

pub(super) fn listen(
    addresses: &[SocketAddr],
    network: &Network,
    interface: &Interface,
) -> Result<Arc<[ServiceSocket]>, StartError> {
    let bind = |address: &SocketAddr| {
        await_detection(*address, network)?;
        let bound = scoped(*address, network, interface).and_then(ServiceSocket::bind);
        refused(Operation::Listen, address, bound)
    };
    addresses.iter().map(bind).collect()
}

/// Waits a while for a new IPv6 address: nobody can use it before it was found to be unique.
#[expect(
    clippy::disallowed_methods,
    reason = "one look after the other at what another host may still say"
)]
fn await_detection(address: SocketAddr, network: &Network) -> Result<(), StartError> {
    if address.is_ipv4() {
        return Ok(());
    }
    let until = clock::now() + DETECTION_FOR;
    loop {
        let all = system("a look at addresses", network.addresses())?;
        let mut states = all
            .iter()
            .filter(|local| local.address == address.ip())
            .map(|local| local.state);
        match states.next() {
            // Whether it is missing is for the socket to say.
            Some(AddressState::Usable) | None => return Ok(()),
            Some(AddressState::Duplicate) => return Err(StartError::Duplicate { address }),
            Some(AddressState::Tentative) if clock::now() >= until => {
                return Err(StartError::Tentative { address });
            }
            Some(AddressState::Tentative) => thread::sleep(DETECTION_LOOK),
        }
    }
}

/// A link-local address with the interface that it is meant on: the one that is served, unless only
/// another has it, as a VLAN above.
fn scoped(address: SocketAddr, network: &Network, interface: &Interface) -> io::Result<SocketAddr> {
    let SocketAddr::V6(mut address) = address else {
        return Ok(address);
    };
    if !address.ip().is_unicast_link_local() || address.scope_id() != 0 {
        return Ok(address.into());
    }
    let all = network.addresses()?;
    let owners = all.iter().filter(|local| local.address == *address.ip());
    let mut owners = owners.map(|local| local.interface);
    let place = match owners.next() {
        Some(first) if !owners.any(|index| index == interface.index) => first,
        _ => interface.index,
    };
    address.set_scope_id(place);
    Ok(address.into())
}

/// What the program must know to tell whose packet it has, but for the facts of the host.
pub(super) fn settings(config: &Config, interface: &Interface) -> Result<Settings, StartError> {
    let mac = match interface.mac {
        Some(mac) => mac,
        // Only the program looks at it.
        None if config.xdp.mode == XdpMode::Off => [0; 6],
        None => {
            return Err(StartError::Interface {
                interface: interface.name.clone(),
                error: io::Error::other("it has no Ethernet address"),
            });
        }
    };
    let mut addresses = [Address::UNSPECIFIED; ADDRESSES_MAX];
    let listen = &config.service.listen;
    for (place, address) in addresses.iter_mut().zip(listen) {
        *place = endpoint(address).0.address;
    }
    Ok(Settings {
        abi_version: ABI_VERSION,
        port: listen[0].port(),
        segment_bytes: config.service.segment_bytes,
        mac,
        max_burst: config.service.max_burst,
        coalesced: u8::from(config.xdp.mode == XdpMode::Generic),
        addresses,
        ..Settings::NONE
    })
}

/// The interface that is served.
pub(super) fn interface(network: &Network, name: &str) -> Result<Interface, StartError> {
    let unknown = |error| StartError::Interface {
        interface: name.to_owned(),
        error,
    };
    let found = network.interface(name).map_err(unknown)?;
    found.ok_or_else(|| unknown(io::Error::from_raw_os_error(libc::ENODEV)))
}

/// How many of its RX queues are served; drivers may change their number when a program is
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
            "{name} has {queues} RX queues and {QUEUES_MAX} can be served: hits on the others take \
             the kernel's path"
        );
    }
    Ok(queues.min(QUEUES_MAX))
}

/// A full DATA datagram must fit the interface: it is never fragmented.
pub(super) fn check_mtu(config: &Config, interface: &Interface) -> Result<(), StartError> {
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

/// Length of the longest IP packet with DATA.
pub(super) fn packet_bytes_max(config: &Config) -> u32 {
    let ip_bytes = if config.service.listen.iter().any(SocketAddr::is_ipv6) {
        IPV6_BYTES
    } else {
        IPV4_BYTES
    };
    let header_bytes = ip_bytes + UDP_BYTES + DATA_HEADER_BYTES;
    u32::from(config.service.segment_bytes) + u32::try_from(header_bytes).unwrap_or(u32::MAX)
}

/// Workers go round the CPUs this process may use.
pub(super) fn worker_cpu(queue: u32) -> usize {
    let allowed = sched_getaffinity(None).ok();
    let cpus: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|cpu| allowed.as_ref().is_some_and(|allowed| allowed.is_set(*cpu)))
        .collect();
    cpus.get(queue as usize % cpus.len().max(1))
        .copied()
        .unwrap_or(0)
}

/// An AF_XDP socket on a queue, with a umem of its own; it can send if the sender wants it to.
pub(super) fn xsk(config: &Config, interface: &str, queue: u32) -> Result<Xsk, StartError> {
    let sizes = match config.service.sender {
        Sender::Gso => XSK,
        Sender::Xsk => XSK_SENDING,
    };
    let what = format!("the umem of queue {queue}");
    let umem = memory(&what, sizes.umem_bytes(), config)?;
    let bound = Xsk::new(umem, sizes).and_then(|xsk| {
        xsk.bind(interface, queue)?;
        Ok(xsk)
    });
    let subject = format!("queue {queue} of {interface}");
    refused(Operation::Xsk, subject, bound)
}
