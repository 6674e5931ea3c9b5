//! Start, idle, end.

use std::fs;
use std::process::Command;
use std::time::Duration;

use edge_ebpf::golden::build;
use edge_ebpf::reason::Reason;
use edge_testbed::raw_socket::RawSocket;
use edge_user::clock;
use rustix::process::Signal;

use crate::daemon::{Edged, Settings, settings};
use crate::objects::Object;
use crate::testbed::{Testbed, ip};
use crate::wait::{self, ANSWER_TIME_MAX, pause};

with_each_sender!(
    an_idle_edged_uses_less_than_a_hundredth_of_a_core,
    a_stopped_edged_leaves_nothing_on_the_interface_and_a_killed_one_no_program,
    an_edged_that_is_told_to_stop_while_it_serves_stops,
    an_interface_that_changes_is_told_and_one_that_is_removed_ends_edged
);

/// Whether this fault, and no other, is found within the time of some looks; "" for none.
fn ails(edged: &Edged, cause: &str) -> bool {
    let expected: Vec<_> = (!cause.is_empty()).then_some(cause).into_iter().collect();
    let found = wait::until(ANSWER_TIME_MAX, || {
        let faults = edged.stat().faults;
        let causes: Vec<_> = faults.iter().map(|fault| fault.cause.label()).collect();
        (causes == expected).then_some(())
    });
    found.is_some()
}

#[test]
fn a_host_that_changes_is_a_fault_until_it_is_mended_and_the_program_follows() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "followed", 300_000);
    let setup = Settings {
        listen: vec![testbed.service_v4()],
        ..settings(&testbed, "gso")
    };
    let edged = Edged::start(&testbed, &setup);
    object.fetch(&testbed, testbed.service_v4());
    let in_edge = |words: &str| {
        let words: Vec<_> = words.split(' ').collect();
        ip(&[&["-n", &testbed.edge.namespace], &words[..]].concat())
    };
    let steered = || edged.settled().xdp_packets(Reason::Steered);

    in_edge("link set dev edge0 mtu 1200");
    assert!(ails(&edged, "mtu_too_small"), "{}", edged.log());
    in_edge("link set dev edge0 mtu 1500");
    assert!(ails(&edged, ""), "{}", edged.log());

    // Hits are steered for the new station address within a look or two.
    in_edge("link set dev edge0 address 02:00:00:00:00:99");
    let told = wait::until(ANSWER_TIME_MAX, || {
        edged.log().contains("02:00:00:00:00:99").then_some(())
    });
    assert!(told.is_some(), "{}", edged.log());
    assert!(edged.stat().host_changes_total > 0);
    let before = steered();
    let reader = ["-n", &testbed.reader.namespace];
    ip(&[&reader[..], &["neigh", "flush", "dev", "reader0"]].concat());
    object.fetch(&testbed, testbed.service_v4());
    assert!(steered() > before, "hits take the kernel's path");

    // Nobody is greeted at an address that was removed; it is served again when it is back.
    let tap = RawSocket::on(&testbed.reader).unwrap();
    let macs = (testbed.reader.mac, [2, 0, 0, 0, 0, 0x99]);
    let hello = testbed
        .request(false, build::hello(1232))
        .macs(macs.0, macs.1);
    let welcomes = || edged.settled().xdp_packets(Reason::Welcome);
    in_edge("address del 10.71.0.1/24 dev edge0");
    assert!(ails(&edged, "address_removed"), "{}", edged.log());
    let before = welcomes();
    assert!(tap.send(&hello.frame()).unwrap());
    pause(Duration::from_millis(200));
    assert_eq!(welcomes(), before, "greeted at an address that is gone");
    in_edge("address add 10.71.0.1/24 dev edge0");
    assert!(ails(&edged, ""), "{}", edged.log());
    assert!(tap.send(&hello.frame()).unwrap());
    let greeted = wait::until(ANSWER_TIME_MAX, || (welcomes() > before).then_some(()));
    assert!(greeted.is_some(), "{}", edged.log());

    let script = include_str!("../../testbed/src/bin/edge-testbed/scenario/faults/detach.py");
    let mut detach = Command::new("python3");
    detach.args([
        "-c",
        script,
        &testbed.edge.program().unwrap().unwrap().to_string(),
    ]);
    assert!(detach.status().unwrap().success());
    assert!(ails(&edged, "program_detached"), "{}", edged.log());
    object.fetch(&testbed, testbed.service_v4());
    edged.stop();
}

fn an_idle_edged_uses_less_than_a_hundredth_of_a_core(sender: &'static str) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "once", 3_000_000);
    let edged = Edged::start(&testbed, &settings(&testbed, sender));
    object.fetch(&testbed, testbed.service_v4());
    edged.settled();
    pause(Duration::from_secs(1));
    let before = cpu_ticks(edged.pid());
    pause(Duration::from_secs(5));
    let ticks = cpu_ticks(edged.pid()) - before;
    assert!(ticks < 5, "{ticks} hundredths of a second in 5 seconds");
    edged.stop();
}

/// Time in user and in kernel mode, of all threads; 100 ticks are a second.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields: Vec<_> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    [fields[11], fields[12]]
        .iter()
        .map(|field| field.parse::<u64>().unwrap())
        .sum()
}

fn a_stopped_edged_leaves_nothing_on_the_interface_and_a_killed_one_no_program(
    sender: &'static str,
) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "again", 2_000_000);
    let setup = settings(&testbed, sender);
    for signal in [Signal::TERM, Signal::INT, Signal::KILL] {
        let edged = Edged::start(&testbed, &setup);
        assert!(testbed.has_program());
        assert!(setup.socket.exists());
        object.fetch(&testbed, testbed.service_v4());
        edged.settled();
        edged.signal(signal);
        let status = edged.end(Duration::from_secs(2));
        if signal == Signal::KILL {
            assert_eq!(status.code(), None);
            // The kernel takes the program down when the last handle is gone, a moment later.
            let gone = wait::until(Duration::from_secs(2), || {
                (!testbed.has_program()).then_some(())
            });
            assert!(gone.is_some());
        } else {
            assert_eq!(status.code(), Some(0), "{}", edged.log());
            assert!(!testbed.has_program());
            assert!(!setup.socket.exists());
        }
    }
    let edged = Edged::start(&testbed, &setup);
    // There is nothing to reload yet, and a terminal that closes is no reason to end.
    edged.signal(Signal::HUP);
    object.fetch(&testbed, testbed.service_v6());
    edged.stop();
}

fn an_edged_that_is_told_to_stop_while_it_serves_stops(sender: &'static str) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "cut-short", 200_000_000);
    let edged = Edged::start(
        &testbed,
        &Settings {
            arena_bytes: 16 << 20,
            ..settings(&testbed, sender)
        },
    );
    let mut get = object.get(&testbed, testbed.service_v4(), 0);
    let mut get = get
        .stdout(std::process::Stdio::null())
        .stderr(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let busy = wait::until(Duration::from_secs(5), || {
        (edged.stat().store.evicted_total > 100).then_some(())
    });
    let told = clock::now();
    edged.signal(Signal::TERM);
    let status = edged.end(Duration::from_secs(2));
    let took = told.elapsed();
    get.kill().unwrap();
    get.wait().unwrap();
    assert!(busy.is_some(), "the load never came");
    assert_eq!(status.code(), Some(0), "after {took:?}: {}", edged.log());
    assert!(!testbed.has_program());
}

fn an_interface_that_changes_is_told_and_one_that_is_removed_ends_edged(sender: &'static str) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "moved", 300_000);
    let edged = Edged::start(&testbed, &settings(&testbed, sender));
    let link = |words: &[&str]| ip(&[&["-n", &testbed.edge.namespace, "link"], words].concat());
    let told = |edged: &Edged, words: &str| {
        let told = wait::until(ANSWER_TIME_MAX, || {
            edged.log().contains(words).then_some(())
        });
        assert!(told.is_some(), "no {words:?} in:\n{}", edged.log());
    };
    link(&["set", "dev", "edge0", "name", "other0"]);
    told(&edged, "edge0 is now called other0");
    object.fetch(&testbed, testbed.service_v4());
    assert!(edged.settled().interfaces[0].up);

    link(&["set", "dev", "other0", "down"]);
    told(&edged, "other0 is down");
    assert!(!edged.stat().interfaces[0].up);
    link(&["set", "dev", "other0", "up"]);
    told(&edged, "over: the interface other0 is down");
    object.fetch(&testbed, testbed.service_v4());
    edged.settled();

    link(&["delete", "other0"]);
    let status = edged.end(ANSWER_TIME_MAX);
    assert_eq!(status.code(), Some(1), "{}", edged.log());
    told(&edged, "edge0 was removed while it was served");
}
