//! Interfaces and addresses in the network namespace of this process.
//!
//! Uses netlink and ioctl only: `/sys` and `/proc/sys` may show another namespace, as after
//! `nsenter --net`, or under systemd with `NetworkNamespacePath=`.
#![expect(
    clippy::host_endian_bytes,
    reason = "the kernel has the same byte order"
)]

use std::io;
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::sync::{Mutex, PoisonError};

use netlink_packet_core::{
    NLA_F_NESTED, NLM_F_DUMP, NLM_F_DUMP_INTR, NLM_F_REQUEST, NLMSG_DONE, NLMSG_ERROR,
    NetlinkBuffer, NlaBuffer, NlasIterator, parse_ip, parse_mac, parse_string, parse_u8, parse_u16,
    parse_u32,
};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags, recv, send};

use crate::sys::netlink::{receive_queues, route_socket};

const NAME_BYTES_MAX: usize = libc::IFNAMSIZ - 1;
/// Larger than any datagram of the kernel.
const RECEIVE_BYTES: usize = 64 << 10;
/// How often a dump that was interrupted by a change is repeated.
const DUMP_ATTEMPTS: u32 = 8;

/// `struct ifinfomsg` and `struct ifaddrmsg`, before their attributes.
const LINK_HEADER_BYTES: usize = 16;
const ADDRESS_HEADER_BYTES: usize = 8;
/// `linux/if_link.h`, inside `IFLA_INFO_DATA` of a VLAN.
const IFLA_VLAN_ID: u16 = 1;
const IFLA_VLAN_PROTOCOL: u16 = 5;
/// `linux/if_link.h`, inside `IFLA_XDP`.
const IFLA_XDP_DRV_PROG_ID: u16 = 5;
const IFLA_XDP_SKB_PROG_ID: u16 = 6;

/// Queries the kernel through a netlink socket.
#[derive(Debug)]
pub struct Network {
    socket: Mutex<OwnedFd>,
}

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Interface {
    /// Stable while the interface exists, even if it is renamed.
    pub index: u32,
    pub name: String,
    pub mtu_bytes: u32,
    /// `None` unless it is an Ethernet interface.
    pub mac: Option<[u8; 6]>,
    /// Whether it carries packets; true if the driver does not report it.
    pub up: bool,
    /// RX queues that the driver allocated.
    pub queues_max: u32,
    /// The bond or bridge that it is a port of.
    pub master: Option<u32>,
    /// "veth", "bond", "vlan"; empty for hardware.
    pub kind: String,
    pub vlan: Option<Vlan>,
    /// Ids of the attached XDP programs, in native and in generic mode.
    pub xdp_native: Option<u32>,
    pub xdp_generic: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Vlan {
    pub id: u16,
    /// Whether it is a service VLAN (802.1ad).
    pub service: bool,
    /// Index of the interface below, if that is in this namespace.
    pub parent: Option<u32>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LocalAddress {
    pub interface: u32,
    pub address: IpAddr,
    pub prefix_bits: u8,
    pub state: AddressState,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AddressState {
    Usable,
    /// Duplicate address detection is in progress.
    Tentative,
    /// A neighbour has the same address.
    Duplicate,
}

/// Reports changes of interfaces and addresses.
#[derive(Debug)]
pub struct Changes(OwnedFd);

impl Changes {
    pub fn open() -> io::Result<Self> {
        let groups = libc::RTMGRP_LINK | libc::RTMGRP_IPV4_IFADDR | libc::RTMGRP_IPV6_IFADDR;
        Ok(Self(route_socket(groups.cast_unsigned())?))
    }

    /// Whether anything has changed since the last call.
    pub fn any(&self) -> bool {
        let mut changed = false;
        let mut word = [0; 4];
        loop {
            match recv(&self.0, &mut word[..], RecvFlags::DONTWAIT) {
                Ok(_) => changed = true,
                Err(Errno::AGAIN) => return changed,
                // Including ENOBUFS: notifications were lost.
                Err(_) => return true,
            }
        }
    }
}

impl Network {
    pub fn open() -> io::Result<Self> {
        let socket = Mutex::new(route_socket(0)?);
        Ok(Self { socket })
    }

    /// The interface with this name, if it exists.
    pub fn interface(&self, name: &str) -> io::Result<Option<Interface>> {
        if name.is_empty() || name.len() > NAME_BYTES_MAX {
            return Ok(None);
        }
        let text = [name.as_bytes(), &[0]].concat();
        self.one_interface(0, &[attribute(libc::IFLA_IFNAME, &text)])
    }

    /// The interface with this index, if it exists.
    pub fn interface_by_index(&self, index: u32) -> io::Result<Option<Interface>> {
        self.one_interface(index, &[])
    }

    fn one_interface(&self, index: u32, by: &[Vec<u8>]) -> io::Result<Option<Interface>> {
        let request = link_request(index, by, 0);
        let mut found = None;
        let result = self.query(&request, |kind, payload| {
            if kind == libc::RTM_NEWLINK {
                found = parse_interface(payload);
            }
        });
        match result {
            Ok(_) => Ok(found),
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The VLANs of this namespace.
    pub fn vlans(&self) -> io::Result<Vec<Interface>> {
        let kind = attribute(libc::IFLA_INFO_KIND, b"vlan\0");
        let by = attribute(libc::IFLA_LINKINFO | NLA_F_NESTED, &kind);
        let request = link_request(0, &[by], NLM_F_DUMP);
        let mut vlans = self.list(&request, |kind, payload| {
            (kind == libc::RTM_NEWLINK)
                .then(|| parse_interface(payload))
                .flatten()
        })?;
        vlans.retain(|link| link.vlan.is_some());
        Ok(vlans)
    }

    /// The addresses of one interface. Cheap even if other interfaces have many.
    pub fn addresses_of(&self, index: u32) -> io::Result<Vec<LocalAddress>> {
        let mut addresses = self.list_addresses(index)?;
        addresses.retain(|address| address.interface == index);
        Ok(addresses)
    }

    /// The addresses of all interfaces.
    pub fn addresses(&self) -> io::Result<Vec<LocalAddress>> {
        self.list_addresses(0)
    }

    fn list_addresses(&self, index: u32) -> io::Result<Vec<LocalAddress>> {
        let mut header = [0; ADDRESS_HEADER_BYTES];
        header[4..].copy_from_slice(&index.to_ne_bytes());
        let request = request(libc::RTM_GETADDR, NLM_F_DUMP, &header, &[]);
        let listed = self.list(&request, |kind, payload| {
            (kind == libc::RTM_NEWADDR)
                .then(|| parse_address(payload))
                .flatten()
        });
        match listed {
            // The interface does not exist any more.
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(Vec::new()),
            listed => listed,
        }
    }

    /// The number of RX queues; drivers may change it when a program is attached.
    pub fn queue_count(&self, interface: &Interface) -> io::Result<u32> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let counted = receive_queues(&socket, &interface.name)?;
        Ok(counted.unwrap_or(interface.queues_max))
    }

    /// A consistent dump.
    fn list<T>(
        &self,
        request: &[u8],
        parse: impl Fn(u16, &[u8]) -> Option<T>,
    ) -> io::Result<Vec<T>> {
        for _ in 0..DUMP_ATTEMPTS {
            let mut all = Vec::new();
            if self.query(request, |kind, payload| all.extend(parse(kind, payload)))? {
                return Ok(all);
            }
        }
        Err(io::Error::other("interfaces or addresses keep changing"))
    }

    /// Sends a request and passes the messages of the answer to `each`. Returns whether the answer
    /// is consistent.
    fn query(&self, request: &[u8], mut each: impl FnMut(u16, &[u8])) -> io::Result<bool> {
        let socket = self.socket.lock().unwrap_or_else(PoisonError::into_inner);
        let mut answer = vec![0; RECEIVE_BYTES];
        // Drops unread answers to earlier requests.
        while recv(&*socket, &mut answer[..], RecvFlags::DONTWAIT).is_ok() {}
        send(&*socket, request, SendFlags::empty())?;
        let dump = NetlinkBuffer::new(request).flags() & NLM_F_DUMP != 0;
        let mut consistent = true;
        loop {
            let (len_bytes, _) = recv(&*socket, &mut answer[..], RecvFlags::empty())?;
            let mut rest = &answer[..len_bytes];
            while !rest.is_empty() {
                let message = NetlinkBuffer::new_checked(rest).map_err(io::Error::other)?;
                consistent &= message.flags() & NLM_F_DUMP_INTR == 0;
                match message.message_type() {
                    NLMSG_DONE => return Ok(consistent),
                    NLMSG_ERROR => return Err(error_of(message.payload())),
                    kind => each(kind, message.payload()),
                }
                if !dump {
                    return Ok(consistent);
                }
                let len_bytes = message.length() as usize;
                rest = rest
                    .get(len_bytes.next_multiple_of(4)..)
                    .unwrap_or_default();
            }
        }
    }
}

/// The error in an `NLMSG_ERROR`, which begins with a negative `errno`.
fn error_of(payload: &[u8]) -> io::Error {
    let number = payload
        .first_chunk()
        .map_or(-libc::EPROTO, |bytes| i32::from_ne_bytes(*bytes));
    io::Error::from_raw_os_error(number.wrapping_neg())
}

fn link_request(index: u32, by: &[Vec<u8>], flags: u16) -> Vec<u8> {
    let mut header = [0; LINK_HEADER_BYTES];
    header[4..8].copy_from_slice(&index.to_ne_bytes());
    let without = libc::RTEXT_FILTER_SKIP_STATS.cast_unsigned().to_ne_bytes();
    let attributes = [by, &[attribute(libc::IFLA_EXT_MASK, &without)]].concat();
    request(libc::RTM_GETLINK, flags, &header, &attributes)
}

fn request(kind: u16, flags: u16, header: &[u8], attributes: &[Vec<u8>]) -> Vec<u8> {
    const NETLINK_HEADER_BYTES: usize = 16;
    let mut bytes = vec![0; NETLINK_HEADER_BYTES];
    bytes.extend_from_slice(header);
    bytes.extend(attributes.iter().flatten());
    let len_bytes = u32::try_from(bytes.len()).expect("a request is short");
    let mut message = NetlinkBuffer::new(&mut bytes);
    message.set_length(len_bytes);
    message.set_message_type(kind);
    message.set_flags(flags | NLM_F_REQUEST);
    bytes
}

/// Type, length and value, padded to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let len_bytes = u16::try_from(4 + value.len()).expect("an attribute is short");
    let mut bytes = [len_bytes.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn attributes(bytes: &[u8]) -> impl Iterator<Item = NlaBuffer<&[u8]>> {
    NlasIterator::new(bytes).map_while(Result::ok)
}

fn parse_interface(payload: &[u8]) -> Option<Interface> {
    let (header, rest) = payload.split_at_checked(LINK_HEADER_BYTES)?;
    let mut found = Interface {
        index: parse_u32(&header[4..8]).ok()?,
        ..Interface::default()
    };
    let (mut parent, mut elsewhere, mut vlan) = (None, false, None);
    for nla in attributes(rest) {
        let value = nla.value();
        match nla.kind() {
            libc::IFLA_IFNAME => found.name = parse_string(value).ok()?,
            libc::IFLA_MTU => found.mtu_bytes = parse_u32(value).ok()?,
            libc::IFLA_ADDRESS => found.mac = parse_mac(value).ok(),
            libc::IFLA_OPERSTATE => {
                let up = [libc::IF_OPER_UP, libc::IF_OPER_UNKNOWN];
                found.up = up.contains(&i32::from(parse_u8(value).ok()?));
            }
            libc::IFLA_NUM_RX_QUEUES => found.queues_max = parse_u32(value).ok()?,
            libc::IFLA_MASTER => found.master = parse_u32(value).ok(),
            libc::IFLA_LINK => parent = parse_u32(value).ok(),
            libc::IFLA_LINK_NETNSID => elsewhere = true,
            libc::IFLA_XDP => {
                for nla in attributes(value) {
                    match nla.kind() {
                        IFLA_XDP_DRV_PROG_ID => found.xdp_native = parse_u32(nla.value()).ok(),
                        IFLA_XDP_SKB_PROG_ID => found.xdp_generic = parse_u32(nla.value()).ok(),
                        _ => {}
                    }
                }
            }
            libc::IFLA_LINKINFO => {
                for nla in attributes(value) {
                    match nla.kind() {
                        libc::IFLA_INFO_KIND => found.kind = parse_string(nla.value()).ok()?,
                        libc::IFLA_INFO_DATA => vlan = parse_vlan(nla.value()),
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    if found.kind == "vlan" {
        let parent = parent.filter(|_| !elsewhere);
        found.vlan = vlan.map(|vlan| Vlan { parent, ..vlan });
    }
    Some(found)
}

/// Without the parent, which is an attribute of the interface.
fn parse_vlan(data: &[u8]) -> Option<Vlan> {
    const SERVICE: [u8; 2] = [0x88, 0xa8];
    let value = |kind| attributes(data).find(|nla| nla.kind() == kind);
    Some(Vlan {
        id: parse_u16(value(IFLA_VLAN_ID)?.value()).ok()?,
        service: value(IFLA_VLAN_PROTOCOL).is_some_and(|nla| nla.value() == SERVICE),
        parent: None,
    })
}

fn parse_address(payload: &[u8]) -> Option<LocalAddress> {
    let (header, rest) = payload.split_at_checked(ADDRESS_HEADER_BYTES)?;
    let (mut local, mut address, mut flags) = (None, None, u32::from(header[2]));
    for nla in attributes(rest) {
        match nla.kind() {
            // On a point-to-point link, IFA_ADDRESS is the peer's address.
            libc::IFA_LOCAL => local = parse_ip(nla.value()).ok(),
            libc::IFA_ADDRESS => address = parse_ip(nla.value()).ok(),
            libc::IFA_FLAGS => flags = parse_u32(nla.value()).ok()?,
            _ => {}
        }
    }
    let state = if flags & libc::IFA_F_DADFAILED != 0 {
        AddressState::Duplicate
    } else if flags & libc::IFA_F_TENTATIVE != 0 && flags & libc::IFA_F_OPTIMISTIC == 0 {
        AddressState::Tentative
    } else {
        AddressState::Usable
    };
    Some(LocalAddress {
        interface: parse_u32(&header[4..]).ok()?,
        address: local.or(address)?,
        prefix_bits: header[1],
        state,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(index: u32, attributes: &[(u16, &[u8])]) -> Interface {
        let mut bytes = vec![0; LINK_HEADER_BYTES];
        bytes[4..8].copy_from_slice(&index.to_ne_bytes());
        for (kind, value) in attributes {
            bytes.extend(attribute(*kind, value));
        }
        parse_interface(&bytes).unwrap()
    }

    fn vlan(index: u32, id: u16, rest: &[(u16, &[u8])]) -> Interface {
        let data = attribute(IFLA_VLAN_ID, &id.to_ne_bytes());
        let info = [
            attribute(libc::IFLA_INFO_KIND, b"vlan\0"),
            attribute(libc::IFLA_INFO_DATA, &data),
        ];
        let info = info.concat();
        link(index, &[&[(libc::IFLA_LINKINFO, &info[..])], rest].concat())
    }

    #[test]
    fn a_vlan_has_a_parent_only_in_its_own_namespace() {
        let on: &[(u16, &[u8])] = &[(libc::IFLA_LINK, &[2, 0, 0, 0])];
        let expected = Vlan {
            id: 7,
            service: false,
            parent: Some(2),
        };
        assert_eq!(vlan(3, 7, on).vlan, Some(expected));
        let elsewhere = [on, &[(libc::IFLA_LINK_NETNSID, &[0; 4])]].concat();
        let parent = None;
        let expected = Vlan { parent, ..expected };
        assert_eq!(vlan(3, 7, &elsewhere).vlan, Some(expected));
        assert_eq!(link(2, on).vlan, None);
    }

    #[test]
    fn malformed_messages_do_not_panic() {
        let good = vlan(3, 7, &[(libc::IFLA_LINK, &[2, 0, 0, 0])]);
        assert_eq!(good.index, 3);
        for len_bytes in 0..64 {
            let bytes = vec![0xff; len_bytes];
            let (_, _) = (parse_interface(&bytes), parse_address(&bytes));
        }
    }
}
