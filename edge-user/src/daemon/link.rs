//! Looks after the interface and its addresses, which others can change while they are served.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use edge_ebpf::frame::Address;
use edge_ebpf::maps::{ADDRESSES_MAX, Settings};

use super::facts::Facts;
use super::host::packet_bytes_max;
use crate::config::{Config, XdpMode};
use crate::counters::{Cause, Fault};
use crate::network::{AddressState, Changes, Interface, LocalAddress, Network};
use crate::serve::peer::endpoint;

/// The interface as it was when it was served first, and the host as it was last seen.
#[derive(Debug)]
pub(super) struct Watch {
    network: Network,
    changes: Changes,
    config: Config,
    index: u32,
    /// All but what the host decides.
    settings: Settings,
    queues: u32,
    /// The program that shall be on the interface.
    program: Option<u32>,
    host: Host,
    /// Of the service's addresses, those some interface had. Others are routed to this host by
    /// means that do not show there.
    had: BTreeSet<IpAddr>,
}

/// What is listed again only when the kernel reports a change.
#[derive(Debug, Default)]
struct Host {
    vlans: Vec<Interface>,
    addresses: Vec<LocalAddress>,
}

/// The interface at one moment.
#[derive(Debug)]
pub(super) struct Look {
    pub(super) interface: Interface,
    queues: u32,
}

/// What the program is to be told.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Wanted {
    pub(super) settings: Settings,
    pub(super) locals: Vec<Address>,
    pub(super) left_out: Option<String>,
}

impl Watch {
    pub(super) fn new(
        config: &Config,
        settings: &Settings,
        index: u32,
        queues: u32,
        program: Option<u32>,
    ) -> io::Result<Self> {
        let mut watch = Self {
            network: Network::open()?,
            changes: Changes::open()?,
            config: config.clone(),
            index,
            settings: *settings,
            queues,
            program,
            host: Host::default(),
            had: BTreeSet::new(),
        };
        watch.list()?;
        Ok(watch)
    }

    fn list(&mut self) -> io::Result<()> {
        self.host = Host {
            vlans: self.network.vlans()?,
            addresses: self.network.addresses()?,
        };
        let usable = self.config.service.listen.iter().map(SocketAddr::ip);
        self.had
            .extend(usable.filter(|address| self.host.has(*address)));
        Ok(())
    }

    /// Looks at the interface, and at the host when something changed; nothing when the interface
    /// is gone.
    pub(super) fn look(&mut self) -> io::Result<Option<Look>> {
        if self.changes.any() {
            self.list()?;
        }
        let Some(interface) = self.network.interface_by_index(self.index)? else {
            return Ok(None);
        };
        let queues = match self.program {
            Some(_) => self.network.queue_count(&interface)?,
            None => 0,
        };
        Ok(Some(Look { interface, queues }))
    }

    /// Addresses of the service that the host had and does not have now.
    fn removed(&self) -> impl Iterator<Item = IpAddr> {
        let had = self.had.iter().copied();
        had.filter(|address| !self.host.has(*address))
    }

    pub(super) fn wanted(&self, interface: &Interface) -> Wanted {
        let Host { vlans, addresses } = &self.host;
        let facts = Facts::of(interface, vlans, addresses, &self.config);
        let mut settings = facts.complete(&self.settings);
        if let Some(mac) = interface.mac {
            settings.mac = mac;
        }
        let removed: Vec<_> = self
            .removed()
            .map(|address| endpoint(&(address, 0).into()).0.address)
            .collect();
        settings.addresses = [Address::UNSPECIFIED; ADDRESSES_MAX];
        let served = self.settings.addresses.iter();
        let served = served.filter(|address| !removed.contains(address));
        for (place, address) in settings.addresses.iter_mut().zip(served) {
            *place = *address;
        }
        Wanted {
            settings,
            left_out: facts.left_out(),
            locals: facts.locals,
        }
    }

    /// What keeps the edge from serving as it did when it was started.
    pub(super) fn faults(&self, look: &Look) -> Vec<Fault> {
        let Look { interface, queues } = look;
        let name = &interface.name;
        let mut faults = Vec::new();
        let mut fault = |cause, subject: &str, text| {
            let subject = subject.to_owned();
            faults.push(Fault {
                cause,
                subject,
                text,
            });
        };
        if !interface.up {
            let text = format!(
                "the interface {name} is down, so nobody is served; with its link went its IPv6 \
                 addresses, unless it is told to keep them"
            );
            fault(Cause::LinkDown, "", text);
        }
        for address in self.removed() {
            let text = format!(
                "the service address {address} is no longer usable on this host, so nobody is \
                 served there; set it again (`ip address add …`)"
            );
            fault(Cause::AddressRemoved, &address.to_string(), text);
        }
        let needed_bytes = packet_bytes_max(&self.config);
        if interface.mtu_bytes < needed_bytes {
            let mtu_bytes = interface.mtu_bytes;
            let text = format!(
                "the MTU of {name} is now {mtu_bytes}, and full datagrams make packets of \
                 {needed_bytes}, which are lost: raise it again (`ip link set dev {name} mtu …`)"
            );
            fault(Cause::MtuTooSmall, "", text);
        }
        if let Some(program) = self.program {
            let there = match self.config.xdp.mode {
                XdpMode::Native => interface.xdp_native,
                XdpMode::Generic | XdpMode::Off => interface.xdp_generic,
            };
            if there != Some(program) {
                let mode = self.config.xdp.mode;
                let text = format!(
                    "the XDP program was taken off {name}, so every request takes the kernel's \
                     path and none is served in mode {mode}; restart edged"
                );
                fault(Cause::ProgramDetached, "", text);
            }
            if *queues > self.queues {
                let text = format!(
                    "{name} has now {queues} RX queues and {} are served: hits on the others take \
                     the kernel's path; restart edged, or set their number back (`ethtool -L`)",
                    self.queues
                );
                fault(Cause::QueuesAdded, "", text);
            }
        }
        faults
    }
}

impl Host {
    /// Whether an interface has the address, and the kernel takes datagrams for it.
    fn has(&self, address: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|local| local.address == address && local.state == AddressState::Usable)
    }
}

/// The interface, for those who only ask whether it is up.
#[derive(Debug)]
pub(super) struct Link {
    index: u32,
    network: Network,
}

impl Link {
    pub(super) const fn new(index: u32, network: Network) -> Self {
        Self { index, network }
    }

    pub(super) fn is_up(&self) -> bool {
        let found = self.network.interface_by_index(self.index);
        found.is_ok_and(|found| found.is_some_and(|interface| interface.up))
    }
}

/// What the program was told anew, for the log.
pub(super) fn changes(name: &str, before: &Wanted, now: &Wanted) -> Vec<String> {
    let mut lines = Vec::new();
    let (old, new) = (&before.settings, &now.settings);
    if old.mac != new.mac {
        let mac = new.mac.map(|byte| format!("{byte:02x}")).join(":");
        lines.push(format!(
            "the station address of {name} is now {mac}; the program takes frames for it"
        ));
    }
    if old.tags != new.tags {
        lines.push(format!(
            "the service is asked under other VLANs of {name} than before"
        ));
    }
    if before.left_out != now.left_out {
        lines.extend(now.left_out.clone());
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_ebpf::frame::Tags;

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

    /// Program 7 on two queues; both addresses were there.
    fn watch(addresses: &[LocalAddress]) -> Watch {
        let config = config();
        let had = config.service.listen.iter().map(SocketAddr::ip);
        let mut settings = Settings::NONE;
        for (place, listen) in settings.addresses.iter_mut().zip(&config.service.listen) {
            *place = endpoint(listen).0.address;
        }
        Watch {
            network: Network::open().unwrap(),
            changes: Changes::open().unwrap(),
            had: had.collect(),
            config,
            index: 2,
            settings,
            queues: 2,
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

    fn found(watch: &Watch, interface: Interface, queues: u32) -> Vec<(Cause, String)> {
        let faults = watch.faults(&Look { interface, queues });
        let name = |fault: Fault| (fault.cause, fault.subject);
        faults.into_iter().map(name).collect()
    }

    #[test]
    fn each_change_of_the_host_is_a_fault_of_its_own_name() {
        let good = watch(&whole());
        assert_eq!(found(&good, interface(), 2), []);
        assert_eq!(found(&good, interface(), 1), [], "idle workers harm nobody");
        let one = |cause| vec![(cause, String::new())];
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
            let watch = watch(&[whole()[0], local("2001:db8::10", gone)]);
            let expected = (Cause::AddressRemoved, "2001:db8::10".to_owned());
            assert_eq!(found(&watch, interface(), 2), [expected]);
            let served = watch.wanted(&interface()).settings.addresses;
            assert_eq!(served[0], watch.settings.addresses[0]);
            assert_eq!(served[1..], [Address::UNSPECIFIED; ADDRESSES_MAX - 1]);
        }
        let back = watch(&whole()).wanted(&interface()).settings;
        assert_eq!(back.addresses, watch(&[]).settings.addresses);
    }

    #[test]
    fn an_address_that_no_interface_had_is_served_on() {
        let mut routed = watch(&[]);
        routed.had.clear();
        assert_eq!(found(&routed, interface(), 2), []);
        let served = routed.wanted(&interface()).settings.addresses;
        assert_eq!(served, routed.settings.addresses);
    }

    #[test]
    fn a_new_station_address_and_new_vlans_are_told_to_the_program_and_the_log() {
        let watch = watch(&whole());
        let before = watch.wanted(&interface());
        assert_eq!(
            (before.settings.mac, before.settings.tags[0]),
            ([2; 6], Tags::UNTAGGED)
        );
        let mac = Some([2, 0, 0, 0, 0, 0x99]);
        let mut now = watch.wanted(&Interface { mac, ..interface() });
        assert_eq!(Some(now.settings.mac), mac);
        now.settings.tags[1] = Tags::UNTAGGED.around(false, 5);
        let lines = changes("eth0", &before, &now);
        assert!(lines[0].contains("02:00:00:00:00:99"), "{lines:?}");
        assert!(lines[1].contains("VLANs"), "{lines:?}");
        assert_eq!(changes("eth0", &now, &now), [""; 0]);
    }
}
