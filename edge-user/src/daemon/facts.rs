//! What the program must know about the host: under which VLAN tags of an interface requests
//! arrive, and which addresses no client can have.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use edge_ebpf::frame::{Address, Tags, VLAN_TAGS_MAX};
use edge_ebpf::maps::{AddressFilter, LOCALS_MAX, Settings, TAGS_MAX};

use crate::config::Config;
use crate::network::{Interface, LocalAddress};
use crate::serve::peer::endpoint;

#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Facts {
    tags: BTreeSet<Tags>,
    /// Link-local service addresses that belong to another interface.
    elsewhere: Vec<Address>,
    /// Service addresses come first, in case there are too many.
    pub(super) locals: Vec<Address>,
}

impl Facts {
    /// The facts for one served interface.
    pub(super) fn of(
        served: &Interface,
        others: &[Interface],
        vlans: &[Interface],
        addresses: &[LocalAddress],
        config: &Config,
    ) -> Self {
        let mut facts = Self::from(served, others, vlans, addresses, &config.service.listen);
        if !config.xdp.vlans.is_empty() {
            facts.tags = config.xdp.vlans.iter().copied().collect();
        }
        facts
    }

    fn from(
        served: &Interface,
        others: &[Interface],
        vlans: &[Interface],
        addresses: &[LocalAddress],
        listen: &[SocketAddr],
    ) -> Self {
        let on = |address, interface| tags_on(address, interface, vlans, addresses);
        let (mut tags, mut elsewhere) = (BTreeSet::new(), Vec::new());
        let mut any_tags = false;
        for address in listen.iter().map(SocketAddr::ip) {
            let here = on(address, served);
            if !here.is_empty() {
                tags.extend(here);
            } else if !others.iter().any(|other| !on(address, other).is_empty()) {
                // For example on `lo`: requests can arrive on all interfaces, under all tags.
                any_tags = true;
            } else if is_link_local(address) {
                elsewhere.push(address_of(address));
            }
        }
        if any_tags || tags.is_empty() {
            let base = |index| is_base(index, served);
            tags.insert(Tags::UNTAGGED);
            tags.extend((vlans.iter()).filter_map(|vlan| tags_to(vlan.index, &base, vlans)));
        }
        let service = listen.iter().map(|listen| endpoint(listen).0.address);
        let others = addresses.iter().flat_map(invalid_sources).map(address_of);
        let mut seen = BTreeSet::new();
        let locals = service.chain(others).filter(|local| seen.insert(*local));
        Self {
            tags,
            elsewhere,
            locals: locals.take(LOCALS_MAX as usize).collect(),
        }
    }

    /// Adds the facts to these settings, and leaves out `removed` addresses.
    pub(super) fn complete(&self, settings: &Settings, removed: &[Address]) -> Settings {
        let mut settings = *settings;
        let all = settings.addresses;
        let mut served = all
            .into_iter()
            .filter(|address| !removed.contains(address) && !self.elsewhere.contains(address));
        (settings.addresses).fill_with(|| served.next().unwrap_or(Address::UNSPECIFIED));
        settings.tags = [Tags::NONE; TAGS_MAX];
        for (place, tags) in settings.tags.iter_mut().zip(&self.tags) {
            *place = *tags;
        }
        settings.locals = AddressFilter::NONE;
        for local in &self.locals {
            settings.locals.insert(local);
        }
        settings
    }

    /// A line for each table of the program that is too small; `name` is the interface's.
    pub(super) fn warnings(&self, name: &str) -> Vec<String> {
        let (tags, locals) = (self.tags.len(), self.locals.len());
        let mut lines = Vec::new();
        if tags > TAGS_MAX {
            lines.push(format!(
                "requests can arrive under {tags} VLANs of {name}, but the program has room for \
                 {TAGS_MAX}: those under the others take the kernel's path; select with xdp.vlans"
            ));
        }
        if locals >= LOCALS_MAX as usize {
            lines.push(format!(
                "the host has at least {locals} addresses, as many as the program has room for: \
                 requests with a forged source address that is one of the others are answered"
            ));
        }
        lines
    }
}

fn is_base(index: u32, served: &Interface) -> bool {
    index == served.index || Some(index) == served.master
}

/// The tags under which frames to this address arrive on an interface: those of the VLANs above it
/// that have the address, and untagged if it has the address itself.
pub(super) fn tags_on(
    address: IpAddr,
    interface: &Interface,
    vlans: &[Interface],
    addresses: &[LocalAddress],
) -> Vec<Tags> {
    let base = |index| is_base(index, interface);
    let having = addresses.iter().filter(|local| local.address == address);
    having
        .filter_map(|local| tags_to(local.interface, &base, vlans))
        .collect()
}

pub(super) fn is_link_local(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

/// The tags between the served interface and an interface stacked above it.
fn tags_to(index: u32, base: &impl Fn(u32) -> bool, vlans: &[Interface]) -> Option<Tags> {
    let mut path = Vec::new();
    let mut at = index;
    while !base(at) {
        let vlan = vlans.iter().find(|link| link.index == at)?.vlan?;
        if path.len() == VLAN_TAGS_MAX {
            return None;
        }
        path.push(vlan);
        at = vlan.parent?;
    }
    let outermost_first = path.iter().rev();
    Some(outermost_first.fold(Tags::UNTAGGED, |tags, vlan| {
        tags.around(vlan.service, vlan.id)
    }))
}

/// The addresses that the kernel rejects as a source: a local address and the broadcast addresses
/// of its network.
fn invalid_sources(local: &LocalAddress) -> Vec<IpAddr> {
    let mut all = vec![local.address];
    if let IpAddr::V4(address) = local.address
        && local.prefix_bits < 31
    {
        let host_bits = u32::MAX.checked_shr(local.prefix_bits.into()).unwrap_or(0);
        let address = u32::from(address);
        all.push(Ipv4Addr::from(address | host_bits).into());
        all.push(Ipv4Addr::from(address & !host_bits).into());
    }
    all
}

pub(super) fn address_of(address: IpAddr) -> Address {
    endpoint(&(address, 0).into()).0.address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::{AddressState, Vlan};

    const SERVED: u32 = 2;
    const BOND: u32 = 9;
    const OTHER: u32 = 12;

    fn served() -> Interface {
        Interface {
            index: SERVED,
            master: Some(BOND),
            ..Interface::default()
        }
    }

    /// Another served interface.
    fn other() -> Interface {
        Interface {
            index: OTHER,
            ..Interface::default()
        }
    }

    fn vlan(index: u32, parent: u32, service: bool, id: u16) -> Interface {
        let parent = Some(parent);
        Interface {
            index,
            vlan: Some(Vlan {
                id,
                service,
                parent,
            }),
            ..Interface::default()
        }
    }

    fn on(interface: u32, address: &str, prefix_bits: u8) -> LocalAddress {
        LocalAddress {
            interface,
            address: address.parse().unwrap(),
            prefix_bits,
            state: AddressState::Usable,
        }
    }

    fn tags(addresses: &[LocalAddress]) -> Vec<Tags> {
        tags_of(1, addresses)
    }

    /// For the first addresses of the service.
    fn tags_of(listened: usize, addresses: &[LocalAddress]) -> Vec<Tags> {
        let vlans = [
            vlan(3, SERVED, false, 100),
            vlan(4, BOND, true, 7),
            vlan(5, 4, false, 8),
            vlan(6, 5, false, 9),
            vlan(7, 77, false, 100),
            vlan(8, OTHER, false, 300),
        ];
        let listen = ["192.0.2.10:7347", "192.0.2.20:7347"].map(|text| text.parse().unwrap());
        let listen = &listen[..listened];
        let facts = Facts::from(&served(), &[other()], &vlans, addresses, listen);
        facts.tags.into_iter().collect()
    }

    #[test]
    fn requests_arrive_under_the_tags_of_the_interfaces_that_have_the_address() {
        let hundred = Tags::UNTAGGED.around(false, 100);
        let seven = Tags::UNTAGGED.around(true, 7);
        let eight = seven.around(false, 8);
        let at = |index| on(index, "192.0.2.10", 24);
        let other = on(3, "192.0.2.11", 24);
        assert_eq!(tags(&[at(SERVED), other]), [Tags::UNTAGGED]);
        assert_eq!(tags(&[at(BOND), other]), [Tags::UNTAGGED]);
        assert_eq!(tags(&[at(3)]), [hundred]);
        assert_eq!(tags(&[at(SERVED), at(5)]), [Tags::UNTAGGED, eight]);
        // On lo, on an interface of another parent, under three tags: any tags are possible.
        let all = [Tags::UNTAGGED, hundred, seven, eight];
        let all: Vec<_> = BTreeSet::from(all).into_iter().collect();
        for elsewhere in [1, 7, 6] {
            assert_eq!(tags(&[at(elsewhere), other]), all);
        }
        // Addresses of other served interfaces add no tags, unless there are no others.
        for on_other in [OTHER, 8] {
            let second = on(on_other, "192.0.2.20", 24);
            assert_eq!(tags_of(2, &[at(3), second]), [hundred]);
            assert_eq!(tags(&[at(on_other)]), all);
        }
    }

    #[test]
    fn a_link_local_address_of_the_service_is_served_on_its_own_interface_only() {
        let listen = ["[fe80::10]:7347", "192.0.2.10:7347"].map(|text| text.parse().unwrap());
        let addresses = [on(OTHER, "fe80::10", 64), on(OTHER, "192.0.2.10", 24)];
        let mut settings = Settings::NONE;
        for (place, listen) in settings.addresses.iter_mut().zip(&listen) {
            *place = endpoint(listen).0.address;
        }
        let served = |here: Interface, there| {
            let facts = Facts::from(&here, &[there], &[], &addresses, &listen);
            facts.complete(&settings, &[]).addresses
        };
        assert_eq!(served(other(), self::served()), settings.addresses);
        let elsewhere = served(self::served(), other());
        assert_eq!(elsewhere[0], settings.addresses[1]);
        assert_eq!(elsewhere[1], Address::UNSPECIFIED);
    }

    #[test]
    fn local_and_broadcast_addresses_are_invalid_sources() {
        let listen = ["192.0.2.10:7347".parse().unwrap()];
        let addresses = [
            on(SERVED, "192.0.2.10", 24),
            on(1, "127.0.0.1", 8),
            on(3, "198.51.100.1", 31),
            on(3, "fe80::1", 64),
        ];
        let facts = Facts::from(&served(), &[], &[], &addresses, &listen);
        let expected = [
            "192.0.2.10",
            "192.0.2.255",
            "192.0.2.0",
            "127.0.0.1",
            "127.255.255.255",
            "127.0.0.0",
            "198.51.100.1",
            "fe80::1",
        ];
        let expected = expected.map(|address| address_of(address.parse().unwrap()));
        assert_eq!(facts.locals, expected);
        let settings = facts.complete(&Settings::NONE, &[]);
        assert!(expected.iter().all(|local| settings.locals.may_hold(local)));
    }

    #[test]
    fn a_table_of_the_program_that_is_too_small_is_a_warning() {
        let listen = ["192.0.2.10:7347".parse().unwrap()];
        let few = Facts::from(&served(), &[], &[], &[], &listen);
        assert_eq!(few.warnings("eth0"), [""; 0]);
        let vlans: Vec<_> = (0..17)
            .map(|number| vlan(100 + number, SERVED, false, 100))
            .zip(0..)
            .map(|(link, id)| vlan(link.index, SERVED, false, id))
            .collect();
        let many = Facts::from(&served(), &[], &vlans, &[], &listen);
        assert!(many.warnings("eth0")[0].contains("VLANs of eth0"));
        let addresses: Vec<_> = (0..2000_u32)
            .map(|number| on(1, &Ipv4Addr::from(0x0a00_0000 + number).to_string(), 32))
            .collect();
        let many = Facts::from(&served(), &[], &[], &addresses, &listen);
        assert_eq!(many.locals.len(), LOCALS_MAX as usize);
        assert!(many.warnings("eth0")[0].contains("addresses"));
    }
}
