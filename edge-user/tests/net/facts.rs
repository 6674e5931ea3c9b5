//! What the kernel reports about interfaces, and for which namespace.

use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;
use std::time::{Duration, Instant};

use edge_user::network::{AddressState, Network};

use crate::daemon::{Edged, command_beside, settings};
use crate::objects::Object;
use crate::testbed::{Plan, Side, Testbed};
use crate::wait;

fn with_queues(queues: u32) -> Option<Testbed> {
    Testbed::with(Plan {
        queues,
        ..Plan::default()
    })
}

fn ask<T: Send>(side: &Side, what: impl FnOnce(Network) -> T + Send) -> T {
    side.enter(|| what(Network::open().unwrap())).unwrap()
}

fn ip_in(side: &Side, words: &str) {
    side.ip(words).unwrap();
}

#[test]
fn edged_serves_where_sys_shows_the_devices_of_another_namespace() {
    let Some(testbed) = with_queues(2) else {
        return;
    };
    let object = Object::seal(&testbed, "elsewhere", 300_000);
    // `nsenter --net` leaves /sys as it is, and so does systemd's NetworkNamespacePath=.
    assert!(!Path::new("/sys/class/net").join(testbed.edge.link).exists());
    let setup = settings(&testbed, "gso");
    let command = command_beside(&testbed, &setup);
    let edged = Edged::start_command(&setup, command);
    object.fetch(&testbed, testbed.service_v4());
    let stat = edged.settled();
    assert_eq!(
        (stat.interfaces[0].queues, stat.mode.xdp.as_str()),
        (2, "native")
    );
    assert!(stat.interfaces[0].up);
    edged.stop();
}

#[test]
fn an_interface_is_known_by_name_and_by_index_with_all_that_counts() {
    let Some(testbed) = with_queues(2) else {
        return;
    };
    let side = &testbed.edge;
    ip_in(side, "link set dev edge0 mtu 1400");
    ask(side, |network| {
        let edge = network.interface("edge0").unwrap().unwrap();
        assert_eq!((edge.mac, edge.mtu_bytes), (Some(side.mac), 1400));
        assert!(edge.up);
        assert_eq!(edge.kind, "veth");
        assert_eq!(network.queue_count(&edge).unwrap(), 2);
        let again = network.interface_by_index(edge.index).unwrap();
        assert_eq!(again.as_ref(), Some(&edge));

        assert_eq!(network.vlans().unwrap(), []);
        let addresses = network.addresses_of(edge.index).unwrap();
        let ipv4 = addresses.iter().find(|one| one.address == side.ipv4);
        assert_eq!(ipv4.map(|one| one.prefix_bits), Some(24));
        assert_eq!(network.interface("nowhere0").unwrap(), None);
        assert_eq!(network.interface("a-name-longer-than-any").unwrap(), None);
        assert_eq!(network.interface_by_index(0x7fff_ff00).unwrap(), None);
        assert_eq!(network.addresses_of(0x7fff_ff00).unwrap(), []);
        // Drivers without channels: what they made room for.
        let loopback = network.interface("lo").unwrap().unwrap();
        assert_eq!(network.queue_count(&loopback).unwrap(), 1);
    });
    ip_in(side, "link set dev edge0 down");
    let edge = ask(side, |network| network.interface("edge0").unwrap().unwrap());
    assert!(!edge.up);
}

#[test]
fn an_address_that_is_not_usable_yet_or_never_is_told_apart() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let side = &testbed.edge;
    // One of its own, which takes a second to be found unique, and one the reader has already.
    ip_in(side, "address add fd71::77/64 dev edge0");
    ip_in(
        side,
        &format!("address add {}/64 dev edge0", testbed.reader.ipv6),
    );
    let state = |address: &str| {
        let address: IpAddr = address.parse().unwrap();
        ask(side, |network| {
            let edge = network.interface("edge0").unwrap().unwrap();
            let all = network.addresses_of(edge.index).unwrap();
            let found = all.into_iter().find(|one| one.address == address);
            found.map(|one| one.state)
        })
    };
    assert_eq!(state("fd71::77"), Some(AddressState::Tentative));
    assert_eq!(state("fd71::1"), Some(AddressState::Usable));
    assert_eq!(state("10.71.0.1"), Some(AddressState::Usable));
    let duplicate = testbed.reader.ipv6.to_string();
    let settled = wait::until(Duration::from_secs(5), || {
        let both = (state("fd71::77"), state(&duplicate));
        (both == (Some(AddressState::Usable), Some(AddressState::Duplicate))).then_some(())
    });
    assert!(
        settled.is_some(),
        "{:?}",
        (state("fd71::77"), state(&duplicate))
    );
}

#[test]
#[expect(
    clippy::disallowed_methods,
    reason = "the time it takes is what is tested"
)]
fn a_look_at_one_interface_is_cheap_among_ten_thousand_addresses() {
    const COUNT: u32 = 10_000;
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let side = &testbed.edge;
    let addresses = (1..=COUNT).map(|number| Ipv4Addr::from(0x0a48_0000 + number));
    let add = |address| format!("address add {address}/32 dev lo");
    side.ip_batch(addresses.map(add)).unwrap();
    let (look, all) = ask(side, |network| {
        let mut looks: Vec<_> = (0..9)
            .map(|_| {
                let start = Instant::now();
                let edge = network.interface("edge0").unwrap().unwrap();
                assert_eq!(network.addresses_of(edge.index).unwrap().len(), 3);
                start.elapsed()
            })
            .collect();
        looks.sort_unstable();
        (looks[4], network.addresses().unwrap().len())
    });
    assert!(all > COUNT as usize, "only {all} of all");
    assert!(look < Duration::from_millis(5), "one look takes {look:?}");
}
