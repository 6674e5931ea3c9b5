//! Watches the interfaces and addresses of the host, which can change while they are served.

use std::collections::BTreeMap;
use std::io;
use std::iter;
use std::net::{IpAddr, SocketAddr};

use edge_ebpf::frame::{Address, VLAN_TAGS_MAX};
use edge_ebpf::maps::Settings;

use super::facts::{Facts, address_of};
use super::host::packet_bytes_max;
use crate::config::{Config, XdpMode};
use crate::counters::{Cause, Fault};
use crate::network::{AddressState, Changes, Interface, LocalAddress, Network};

#[derive(Debug)]
pub(super) struct Monitor {
    network: Network,
    changes: Changes,
    config: Config,
    /// The kernel's id of the program that must be attached to the interfaces.
    program: Option<u32>,
    host: Host,
    /// The service addresses that an interface has or had, with that interface's index. Other
    /// addresses reach this host by means that the kernel's address list does not show.
    owners: BTreeMap<IpAddr, u32>,
}

/// Listed again only when the kernel reports a change.
#[derive(Debug, Default)]
struct Host {
    vlans: Vec<Interface>,
    addresses: Vec<LocalAddress>,
}

/// The state of an interface.
#[derive(Debug)]
pub(super) struct Link {
    pub(super) interface: Interface,
    queues: u32,
}

/// What the program must know: settings for each interface, in the order of the configuration, and
/// addresses of the host.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct ProgramState {
    pub(super) settings: Vec<Settings>,
    pub(super) locals: Vec<Address>,
    /// A line for each table of the program that is too small.
    pub(super) warnings: Vec<String>,
}

/// A served interface: its index, its name at startup, and its number of workers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Served<'a> {
    pub(super) index: u32,
    pub(super) label: &'a str,
    pub(super) queues: u32,
}

impl Monitor {
    pub(super) fn new(config: &Config, program: Option<u32>) -> io::Result<Self> {
        let mut monitor = Self {
            network: Network::open()?,
            changes: Changes::open()?,
            config: config.clone(),
            program,
            host: Host::default(),
            owners: BTreeMap::new(),
        };
        monitor.list()?;
        Ok(monitor)
    }

    fn list(&mut self) -> io::Result<()> {
        self.host = Host {
            vlans: self.network.vlans()?,
            addresses: self.network.addresses()?,
        };
        let listen = self.config.service.listen.iter().map(SocketAddr::ip);
        let owned = listen.filter_map(|address| Some((address, self.host.owner(address)?)));
        self.owners.extend(owned);
        Ok(())
    }

    /// Lists the host's addresses and VLANs again if something has changed.
    pub(super) fn refresh(&mut self) -> io::Result<()> {
        if self.changes.any() {
            self.list()?;
        }
        Ok(())
    }

    /// The interface with this index; `None` if it was removed.
    pub(super) fn link(&self, index: u32) -> io::Result<Option<Link>> {
        let Some(interface) = self.network.interface_by_index(index)? else {
            return Ok(None);
        };
        let queues = match self.program {
            Some(_) => self.network.queue_count(&interface)?,
            None => 0,
        };
        Ok(Some(Link { interface, queues }))
    }

    /// Service addresses that the host had and lost, with the index of the interface that had them.
    fn removed(&self) -> impl Iterator<Item = (IpAddr, u32)> {
        let owners = self
            .owners
            .iter()
            .map(|(address, owner)| (*address, *owner));
        owners.filter(|(address, _)| self.host.owner(*address).is_none())
    }

    /// What the program must know. Removed interfaces have no settings.
    pub(super) fn program_state(&self, served: &[(&Settings, Option<Interface>)]) -> ProgramState {
        let links = || {
            served
                .iter()
                .filter_map(|(_, interface)| interface.as_ref())
        };
        let Host { vlans, addresses } = &self.host;
        let removed = self.removed().map(|(address, _)| address_of(address));
        let removed: Vec<_> = removed.collect();
        let mut state = ProgramState {
            settings: Vec::new(),
            locals: Vec::new(),
            warnings: Vec::new(),
        };
        for (settings, interface) in served {
            let Some(interface) = interface else {
                state.settings.push(Settings::NONE);
                continue;
            };
            let others = links().filter(|other| other.index != interface.index);
            let others: Vec<_> = others.cloned().collect();
            let facts = Facts::of(interface, &others, vlans, addresses, &self.config);
            let mut settings = facts.complete(settings, &removed);
            if let Some(mac) = interface.mac {
                settings.mac = mac;
            }
            state.settings.push(settings);
            for line in facts.warnings(&interface.name) {
                // The line about addresses is the same for all interfaces.
                if !state.warnings.contains(&line) {
                    state.warnings.push(line);
                }
            }
            state.locals = facts.locals;
        }
        state
    }

    /// Lost service addresses: each is a fault of the interface that had it, or of the whole edge.
    pub(super) fn address_faults(&self, served: &[Served<'_>]) -> Vec<Fault> {
        let fault = |(address, owner): (IpAddr, u32)| {
            let text = format!(
                "the service address {address} is not usable on this host, and requests to it get no \
                 answer: add it again (`ip address add …`)"
            );
            let owner = served.iter().find(|served| served.index == owner);
            Fault {
                cause: Cause::AddressRemoved,
                interface: owner.map(|owner| owner.label.to_owned()),
                subject: address.to_string(),
                text,
            }
        };
        self.removed().map(fault).collect()
    }

    /// Faults that keep an interface from being served as it was at startup.
    pub(super) fn link_faults(&self, served: &Served<'_>, link: &Link) -> Vec<Fault> {
        let Link { interface, queues } = link;
        let name = &interface.name;
        let mut faults = Vec::new();
        let mut fault = |cause, text| faults.push(served.fault(cause, text));
        if !interface.up {
            let text = format!(
                "the interface {name} is down, and no requests are served on it; the kernel removes \
                 its IPv6 addresses unless keep_addr_on_down is set"
            );
            fault(Cause::LinkDown, text);
        }
        let needed_bytes = packet_bytes_max(&self.config);
        if interface.mtu_bytes < needed_bytes {
            let mtu_bytes = interface.mtu_bytes;
            let text = format!(
                "the MTU of {name} is now {mtu_bytes}, and replies in packets of {needed_bytes} bytes \
                 are lost: raise it (`ip link set dev {name} mtu …`)"
            );
            fault(Cause::MtuTooSmall, text);
        }
        if let Some(program) = self.program {
            let attached = match self.config.xdp.mode {
                XdpMode::Native => interface.xdp_native,
                XdpMode::Generic | XdpMode::Off => interface.xdp_generic,
            };
            if attached != Some(program) {
                let mode = self.config.xdp.mode;
                let text = format!(
                    "the XDP program was detached from {name}: all its requests take the kernel's path \
                     instead of being served in mode {mode}; restart edged"
                );
                fault(Cause::ProgramDetached, text);
            }
            let workers = served.queues;
            if *queues > workers {
                let text = format!(
                    "{name} now has {queues} RX queues, of which {workers} have a worker: hits on the \
                     others take the kernel's path; restart edged, or restore their number \
                     (`ethtool -L`)"
                );
                fault(Cause::QueuesAdded, text);
            }
        }
        faults
    }
}

impl Served<'_> {
    fn fault(&self, cause: Cause, text: String) -> Fault {
        Fault {
            cause,
            interface: Some(self.label.to_owned()),
            subject: self.label.to_owned(),
            text,
        }
    }

    /// The fault that the interface was removed.
    pub(super) fn removed(&self) -> Fault {
        let text = format!(
            "the interface {} was removed, and no requests are served on it; restart edged when it \
             is restored (`ip link`)",
            self.label
        );
        self.fault(Cause::InterfaceRemoved, text)
    }
}

impl Host {
    /// The index of the interface that has the address, itself or through a VLAN, if the address is
    /// usable.
    fn owner(&self, address: IpAddr) -> Option<u32> {
        let usable =
            |local: &&LocalAddress| local.address == address && local.state == AddressState::Usable;
        let local = self.addresses.iter().find(usable)?;
        Some(self.below(local.interface))
    }

    /// The interface at the bottom of a stack of VLANs.
    fn below(&self, index: u32) -> u32 {
        let parent = |at: &u32| {
            let vlan = self.vlans.iter().find(|link| link.index == *at)?;
            vlan.vlan?.parent
        };
        let path = iter::successors(Some(index), parent).take(VLAN_TAGS_MAX + 1);
        path.last().unwrap_or(index)
    }
}

/// Log lines for the changes in one interface's settings.
pub(super) fn changes(name: &str, before: &Settings, now: &Settings) -> Vec<String> {
    let mut lines = Vec::new();
    if *now == Settings::NONE {
        return lines;
    }
    if before.mac != now.mac {
        let mac = now.mac.map(|byte| format!("{byte:02x}")).join(":");
        lines.push(format!(
            "the MAC address of {name} is now {mac}; the program accepts frames to it"
        ));
    }
    if before.tags != now.tags {
        lines.push(format!(
            "the VLANs of {name} under which requests are accepted have changed"
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::network::Vlan;
    use crate::serve::peer::endpoint;
    use edge_ebpf::frame::Tags;
    use edge_ebpf::maps::ADDRESSES_MAX;

    const MODE: &str = "native";

    fn config() -> Config {
        let text = format!(
            "service = {{ interfaces = ['eth0'], listen = ['192.0.2.10:7347', \
             '[2001:db8::10]:7347'] }}\nxdp = {{ mode = '{MODE}' }}\n\
             origin = [{{ url = 'file:///srv' }}]"
        );
        Config::parse("edged.toml", &text, &[]).unwrap()
    }

    fn local(address: &str, state: AddressState) -> LocalAddress {
        LocalAddress {
            interface: 2,
            address: address.parse().unwrap(),
            prefix_bits: 24,
            state,
        }
    }

    fn interface() -> Interface {
        Interface {
            index: 2,
            name: "eth0".to_owned(),
            mtu_bytes: 1500,
            mac: Some([2; 6]),
            up: true,
            xdp_native: Some(7),
            ..Interface::default()
        }
    }

    fn settings() -> Settings {
        let mut settings = Settings::NONE;
        for (place, listen) in settings.addresses.iter_mut().zip(&config().service.listen) {
            *place = endpoint(listen).0.address;
        }
        settings
    }

    /// Program 7; the interface had both service addresses.
    fn monitor(addresses: &[LocalAddress]) -> Monitor {
        let config = config();
        let listen = config.service.listen.iter().map(SocketAddr::ip);
        Monitor {
            network: Network::open().unwrap(),
            changes: Changes::open().unwrap(),
            owners: listen.map(|address| (address, 2)).collect(),
            config,
            program: Some(7),
            host: Host {
                vlans: Vec::new(),
                addresses: addresses.to_vec(),
            },
        }
    }

    fn whole() -> [LocalAddress; 2] {
        [
            local("192.0.2.10", AddressState::Usable),
            local("2001:db8::10", AddressState::Usable),
        ]
    }

    /// The faults of the interface and its addresses, with two workers.
    fn found(monitor: &Monitor, interface: Interface, queues: u32) -> Vec<(Cause, String)> {
        let served = Served {
            index: 2,
            label: "eth0",
            queues: 2,
        };
        let mut faults = monitor.link_faults(&served, &Link { interface, queues });
        faults.extend(monitor.address_faults(&[served]));
        assert!(
            faults
                .iter()
                .all(|fault| fault.interface.as_deref() == Some("eth0"))
        );
        let name = |fault: Fault| (fault.cause, fault.subject);
        faults.into_iter().map(name).collect()
    }

    /// The settings of the only interface.
    fn wanted(monitor: &Monitor, interface: &Interface) -> Settings {
        let (settings, interface) = (settings(), interface.clone());
        let state = monitor.program_state(&[(&settings, Some(interface))]);
        state.settings[0]
    }

    #[test]
    fn each_change_of_the_host_has_its_own_fault() {
        let good = monitor(&whole());
        assert_eq!(found(&good, interface(), 2), []);
        assert_eq!(
            found(&good, interface(), 1),
            [],
            "workers without a queue do no harm"
        );
        let one = |cause| vec![(cause, "eth0".to_owned())];
        let change = |change: fn(&mut Interface)| {
            let mut interface = interface();
            change(&mut interface);
            found(&good, interface, 2)
        };
        assert_eq!(change(|link| link.up = false), one(Cause::LinkDown));
        assert_eq!(
            change(|link| link.mtu_bytes = 1279),
            one(Cause::MtuTooSmall)
        );
        assert_eq!(change(|link| link.mtu_bytes = 1280), []);
        let detached = one(Cause::ProgramDetached);
        assert_eq!(change(|link| link.xdp_native = None), detached);
        assert_eq!(change(|link| link.xdp_native = Some(8)), detached);
        let generic = |link: &mut Interface| {
            (link.xdp_native, link.xdp_generic) = (None, Some(7));
        };
        assert_eq!(change(generic), detached, "no silent downgrade");
        assert_eq!(found(&good, interface(), 3), one(Cause::QueuesAdded));
    }

    #[test]
    fn an_address_that_was_removed_is_not_served_until_it_is_back() {
        for gone in [AddressState::Tentative, AddressState::Duplicate] {
            let monitor = monitor(&[whole()[0], local("2001:db8::10", gone)]);
            let expected = (Cause::AddressRemoved, "2001:db8::10".to_owned());
            assert_eq!(found(&monitor, interface(), 2), [expected]);
            let served = wanted(&monitor, &interface()).addresses;
            assert_eq!(served[0], settings().addresses[0]);
            assert_eq!(served[1..], [Address::UNSPECIFIED; ADDRESSES_MAX - 1]);
        }
        let back = wanted(&monitor(&whole()), &interface());
        assert_eq!(back.addresses, settings().addresses);
    }

    #[test]
    fn an_address_that_no_interface_ever_had_is_served() {
        let mut routed = monitor(&[]);
        routed.owners.clear();
        assert_eq!(found(&routed, interface(), 2), []);
        let served = wanted(&routed, &interface()).addresses;
        assert_eq!(served, settings().addresses);
    }

    #[test]
    fn an_address_belongs_to_the_interface_below_its_vlans() {
        let mut monitor = monitor(&[]);
        let vlan = |index, parent| Interface {
            index,
            vlan: Some(Vlan {
                id: 100,
                service: false,
                parent: Some(parent),
            }),
            ..Interface::default()
        };
        monitor.host.vlans = vec![vlan(5, 4), vlan(4, 2)];
        assert_eq!(
            [2, 4, 5, 9].map(|index| monitor.host.below(index)),
            [2, 2, 2, 9]
        );
        // Removed interfaces have no settings; others keep theirs.
        let settings = settings();
        let served = [(&settings, None), (&settings, Some(interface()))];
        let state = monitor.program_state(&served);
        assert_eq!(state.settings[0], Settings::NONE);
        assert_eq!(state.settings[1].mac, [2; 6]);
        assert!(changes("eth1", &settings, &state.settings[0]).is_empty());
    }

    #[test]
    fn a_new_mac_address_and_new_vlans_go_to_the_program_and_the_log() {
        let monitor = monitor(&whole());
        let before = wanted(&monitor, &interface());
        assert_eq!((before.mac, before.tags[0]), ([2; 6], Tags::UNTAGGED));
        let mac = Some([2, 0, 0, 0, 0, 0x99]);
        let mut now = wanted(&monitor, &Interface { mac, ..interface() });
        assert_eq!(Some(now.mac), mac);
        now.tags[1] = Tags::UNTAGGED.around(false, 5);
        let lines = changes("eth0", &before, &now);
        assert!(lines[0].contains("02:00:00:00:00:99"), "{lines:?}");
        assert!(lines[1].contains("VLANs"), "{lines:?}");
        assert_eq!(changes("eth0", &now, &now), [""; 0]);
    }
}
