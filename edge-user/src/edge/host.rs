//! What the host gives: memory, sockets, and what it says of the interface.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use edge_ebpf::frame::{Address, IPV4_BYTES, IPV6_BYTES, UDP_BYTES};
use edge_ebpf::maps::{ABI_VERSION, ADDRESSES_MAX, Settings};
use edge_ebpf::wire::DATA_HEADER_BYTES;
use rustix::thread::{CpuSet, sched_getaffinity};

use super::error::StartError;
use crate::config::{Config, Hugepages, Sender};
use crate::limits::{XSK, XSK_SENDING};
use crate::reply::peer::endpoint;
use crate::sys::mapping::{HUGEPAGE_BYTES, Mapping};
use crate::sys::socket::ServiceSocket;
use crate::sys::xsk::Xsk;

/// Memory, in hugepages as the configuration says.
pub(super) fn memory(what: &str, len_bytes: usize, config: &Config) -> Result<Mapping, StartError> {
    let what = || what.to_owned();
    let small = |error| StartError::Memory {
        what: what(),
        error,
    };
    match config.store.hugepages {
        Hugepages::Off => Mapping::anonymous(len_bytes, false).map_err(small),
        Hugepages::Prefer => Mapping::anonymous(len_bytes, true)
            .or_else(|_| Mapping::anonymous(len_bytes, false))
            .map_err(small),
        Hugepages::Require => {
            Mapping::anonymous(len_bytes, true).map_err(|error| StartError::Hugepages {
                what: what(),
                bytes_mib: len_bytes >> 20,
                pages: len_bytes.div_ceil(HUGEPAGE_BYTES),
                error,
            })
        }
    }
}

pub(super) fn listen(addresses: &[SocketAddr]) -> Result<Arc<[ServiceSocket]>, StartError> {
    let bind = |address: &SocketAddr| {
        ServiceSocket::bind(*address).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => StartError::AddressInUse { address: *address },
            Some(libc::EADDRNOTAVAIL) => StartError::NoSuchAddress { address: *address },
            _ => StartError::Listen {
                address: *address,
                error,
            },
        })
    };
    addresses.iter().map(bind).collect()
}

/// What the program must know to tell whose packet it has.
pub(super) fn settings(config: &Config, interface: &str) -> Result<Settings, StartError> {
    let mut addresses = [Address::UNSPECIFIED; ADDRESSES_MAX];
    let listen = &config.service.listen;
    for (place, address) in addresses.iter_mut().zip(listen) {
        *place = endpoint(address).0.address;
    }
    Ok(Settings {
        abi_version: ABI_VERSION,
        port: listen[0].port(),
        segment_bytes: config.service.segment_bytes,
        address_count: u32::try_from(listen.len()).unwrap_or(u32::MAX),
        max_burst: config.service.max_burst,
        reserved: 0,
        mac: station_address(interface)?,
        reserved_too: [0; 4],
        addresses,
    })
}

fn interface_file(interface: &str, name: &str) -> Result<String, StartError> {
    std::fs::read_to_string(format!("/sys/class/net/{interface}/{name}")).map_err(|error| {
        StartError::Interface {
            interface: interface.to_owned(),
            error,
        }
    })
}

/// The kernel's number of the interface.
pub(super) fn interface_index(interface: &str) -> Result<u32, StartError> {
    interface_number(interface, "ifindex")
}

/// A full DATA datagram must fit the interface: it is never fragmented.
pub(super) fn check_mtu(config: &Config, interface: &str) -> Result<(), StartError> {
    let mtu_bytes = interface_number(interface, "mtu")?;
    let segment_bytes = config.service.segment_bytes;
    let ip_bytes = if config.service.listen.iter().any(SocketAddr::is_ipv6) {
        IPV6_BYTES
    } else {
        IPV4_BYTES
    };
    let header_bytes = ip_bytes + UDP_BYTES + DATA_HEADER_BYTES;
    let needed_bytes = u32::from(segment_bytes) + u32::try_from(header_bytes).unwrap_or(u32::MAX);
    if needed_bytes <= mtu_bytes {
        return Ok(());
    }
    Err(StartError::Mtu {
        interface: interface.to_owned(),
        mtu_bytes,
        needed_bytes,
        segment_bytes,
    })
}

fn interface_number(interface: &str, name: &str) -> Result<u32, StartError> {
    let text = interface_file(interface, name)?;
    text.trim().parse().map_err(|error| StartError::Interface {
        interface: interface.to_owned(),
        error: io::Error::other(error),
    })
}

fn station_address(interface: &str) -> Result<[u8; 6], StartError> {
    let text = interface_file(interface, "address")?;
    let mut bytes = text
        .trim()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16));
    let mut mac = [0; 6];
    for place in &mut mac {
        *place = bytes
            .next()
            .and_then(Result::ok)
            .ok_or_else(|| StartError::Interface {
                interface: interface.to_owned(),
                error: io::Error::other("it has no Ethernet address"),
            })?;
    }
    Ok(mac)
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
    bound.map_err(|error| {
        let interface = interface.to_owned();
        match error.raw_os_error() {
            Some(libc::EBUSY) => StartError::QueueInUse { queue, interface },
            _ => StartError::Bind {
                queue,
                interface,
                error,
            },
        }
    })
}
