//! One edge on several interfaces.

use std::net::{Ipv6Addr, SocketAddrV6};

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::SERVICE_PORT;
use edge_user::counters::{Fault, Snapshot};

use crate::daemon::{Edged, Settings, command, settings};
use crate::objects::Object;
use crate::testbed::{SecondLink, Testbed, ip};
use crate::wait::{self, ANSWER_TIME_MAX, assert_refused, ended};

with_each_sender!(
    readers_behind_two_interfaces_get_their_hits_by_the_workers_of_their_own,
    an_interface_that_is_removed_is_a_fault_and_the_other_goes_on_until_it_is_removed_too
);

/// An address of the link itself, on the edge's second interface.
const LINK_LOCAL: Ipv6Addr = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x71);

/// Both interfaces, and all addresses of both.
fn setup(testbed: &Testbed, second: &SecondLink, sender: &'static str) -> Settings {
    let mut setup = settings(testbed, sender);
    setup.interfaces.push(second.edge.link.to_owned());
    let [v4, v6] = second.services();
    setup.listen.extend([v4, v6]);
    setup
}

/// On each interface: frames steered, and datagrams that its workers sent.
fn hits(snapshot: &Snapshot) -> Vec<(u64, u64)> {
    let interfaces = snapshot.interfaces.iter();
    let hits = interfaces.map(|found| {
        let sent = found.workers.iter().map(|worker| worker.sends.datagrams);
        (found.xdp_packets(Reason::Steered), sent.sum())
    });
    hits.collect()
}

/// Fetches what is resident, and asserts that the hits came and went by this interface alone.
fn assert_hits_on(edged: &Edged, place: usize, fetch: impl FnOnce()) {
    let before = hits(&edged.settled());
    fetch();
    let after = hits(&edged.settled());
    for (at, (before, after)) in before.iter().zip(&after).enumerate() {
        if at == place {
            assert!(after.0 > before.0 && after.1 > before.1, "{after:?}");
        } else {
            assert_eq!(before, after, "hits on interface {at}");
        }
    }
}

fn readers_behind_two_interfaces_get_their_hits_by_the_workers_of_their_own(sender: &'static str) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let second = testbed.add_link();
    let local = format!("{LINK_LOCAL}/64");
    for (side, address) in [
        (&second.edge, local.as_str()),
        (&second.reader, "fe80::72/64"),
    ] {
        let there = ["-n", &side.namespace, "address", "add", address];
        ip(&[&there[..], &["dev", side.link, "nodad"]].concat());
    }
    let mut setup = setup(&testbed, &second, sender);
    setup.listen.push((LINK_LOCAL, SERVICE_PORT).into());
    let object = Object::seal(&testbed, "both", 300_000);
    let edged = Edged::start(&testbed, &setup);
    assert!(
        edged.log().contains("on edge0 (1 queues) edge1 (1 queues)"),
        "{}",
        edged.log()
    );
    // What one reader made resident, the other gets by its own interface.
    object.fetch(&testbed, testbed.service_v4());
    for address in testbed.services() {
        assert_hits_on(&edged, 0, || object.fetch(&testbed, address));
    }
    for address in second.services() {
        let fetch = || object.fetch_by(&second.reader, &testbed, address);
        assert_hits_on(&edged, 1, fetch);
    }
    // All addresses are served on all interfaces, but for those of one link.
    let via = second.edge.ipv4.to_string();
    let there = ["-n", &second.reader.namespace, "route", "add", "10.71.0.1"];
    ip(&[&there[..], &["via", &via]].concat());
    let fetch = || object.fetch_by(&second.reader, &testbed, testbed.service_v4());
    assert_hits_on(&edged, 1, fetch);
    let index = second.reader.enter(|| {
        let network = edge_user::network::Network::open().unwrap();
        network.interface("reader1").unwrap().unwrap().index
    });
    let index = index.unwrap();
    let local = SocketAddrV6::new(LINK_LOCAL, SERVICE_PORT, 0, index).into();
    let fetch = || object.fetch_by(&second.reader, &testbed, local);
    assert_hits_on(&edged, 1, fetch);
    edged.stop();
}

fn an_interface_that_is_removed_is_a_fault_and_the_other_goes_on_until_it_is_removed_too(
    sender: &'static str,
) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let second = testbed.add_link();
    let object = Object::seal(&testbed, "half", 300_000);
    let edged = Edged::start(&testbed, &setup(&testbed, &second, sender));
    object.fetch(&testbed, testbed.service_v4());
    object.fetch_by(&second.reader, &testbed, second.services()[0]);
    edged.settled();
    let delete = |link| ip(&["-n", &testbed.edge.namespace, "link", "delete", link]);

    delete("edge1");
    let found = |faults: &[Fault]| {
        let removed =
            |fault: &Fault| fault.cause.label() == "interface_removed" && fault.subject == "edge1";
        faults.iter().any(removed)
    };
    let seen = wait::until(ANSWER_TIME_MAX, || {
        let stat = edged.stat();
        found(&stat.faults).then_some(stat)
    });
    let stat = seen.unwrap_or_else(|| panic!("no fault:\n{}", edged.log()));
    // Its addresses went with it: that is the same interface's, and the edge stays ready.
    let on = |fault: &Fault| fault.interface.as_deref() == Some("edge1");
    assert!(stat.faults.iter().all(on), "{:?}", stat.faults);
    assert!(stat.interfaces[0].up && !stat.interfaces[1].up);
    let threads = || -> Vec<String> {
        let tasks = std::fs::read_dir(format!("/proc/{}/task", edged.pid())).unwrap();
        let name = |task: std::io::Result<std::fs::DirEntry>| {
            std::fs::read_to_string(task.ok()?.path().join("comm")).ok()
        };
        tasks.filter_map(name).collect()
    };
    let ended = wait::until(ANSWER_TIME_MAX, || {
        (!threads().contains(&"worker-1\n".to_owned())).then_some(())
    });
    assert!(ended.is_some(), "{:?}", threads());
    assert!(threads().contains(&"worker-0\n".to_owned()));
    for address in testbed.services() {
        assert_hits_on(&edged, 0, || object.fetch(&testbed, address));
    }
    assert!(found(&edged.stat().faults), "the fault lasts");

    delete("edge0");
    let status = edged.end(ANSWER_TIME_MAX);
    assert_eq!(status.code(), Some(1), "{}", edged.log());
    let words = "edge0, edge1 were removed while they were served";
    assert!(edged.log().contains(words), "{}", edged.log());
}

#[test]
fn a_fault_of_one_interface_names_it_and_the_others_serve() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let second = testbed.add_link();
    let object = Object::seal(&testbed, "one", 300_000);
    let edged = Edged::start(&testbed, &setup(&testbed, &second, "gso"));
    object.fetch(&testbed, testbed.service_v4());
    let link = |words: &[&str]| ip(&[&["-n", &testbed.edge.namespace, "link"], words].concat());
    let faults = || -> Vec<_> {
        let faults = edged.stat().faults.into_iter();
        faults
            .filter(|fault| fault.cause.label() != "address_removed")
            .map(|fault| (fault.cause.label(), fault.subject, fault.interface))
            .collect()
    };
    let soon = |cause: &'static str| {
        let on = "edge1".to_owned();
        let expected = vec![(cause, on.clone(), Some(on))];
        let found = wait::until(ANSWER_TIME_MAX, || (faults() == expected).then_some(()));
        assert!(found.is_some(), "{:?}\n{}", faults(), edged.log());
        for address in testbed.services() {
            assert_hits_on(&edged, 0, || object.fetch(&testbed, address));
        }
    };
    link(&["set", "dev", "edge1", "mtu", "1279"]);
    soon("mtu_too_small");
    link(&["set", "dev", "edge1", "mtu", "1500"]);
    link(&["set", "dev", "edge1", "down"]);
    soon("link_down");
    edged.stop();
}

#[test]
fn what_edged_cannot_start_with_on_several_interfaces_is_one_line_that_names_them() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let second = testbed.add_link();
    let edge = &testbed.edge.namespace;
    let refused = |setup: &Settings, code, words: &[&str]| {
        assert_refused(
            &ended(command(&testbed, setup), ANSWER_TIME_MAX),
            code,
            words,
        );
        assert!(!testbed.has_program(), "the program is left on the first");
    };
    let good = || setup(&testbed, &second, "gso");
    let alias = ["-n", edge, "link", "property", "add", "dev", "edge1"];
    ip(&[&alias[..], &["altname", "uplink1"]].concat());
    let mut twice = good();
    twice.interfaces.push("uplink1".to_owned());
    refused(&twice, 78, &["edge1 and uplink1", "remove one"]);

    for link in [testbed.edge.link, second.edge.link] {
        let local = format!("{LINK_LOCAL}/64");
        let add = ["-n", edge, "address", "add", &local, "nodad", "dev", link];
        ip(&add);
    }
    let mut local = good();
    local.listen.push((LINK_LOCAL, SERVICE_PORT).into());
    refused(&local, 78, &["fe80::71", "both edge0 and edge1"]);

    ip(&["-n", edge, "link", "set", "dev", "edge1", "mtu", "1279"]);
    refused(&good(), 78, &["edge1", "1279", "raise the MTU"]);
}
