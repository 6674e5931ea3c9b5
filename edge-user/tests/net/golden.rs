//! The golden packets, as frames on a wire.

use std::time::Duration;

use edge_ebpf::golden::{self, Case, Expect};
use edge_ebpf::reason::Reason;
use edge_testbed::raw_socket::RawSocket;
use edge_user::counters::{ReasonCounts, Snapshot, sum};

use crate::daemon::{Edged, Settings, settings};
use crate::testbed::{FULL_MTU_BYTES, Plan, Testbed};
use crate::wait;

const PATIENCE: Duration = Duration::from_secs(2);

with_each_sender!(
    golden_packets_end_as_named_on_a_wire_with_the_native_program,
    golden_packets_end_as_named_on_a_wire_with_the_generic_program
);

fn golden_packets_end_as_named_on_a_wire_with_the_native_program(sender: &'static str) {
    golden_packets_end_as_named_on_a_wire("native", sender);
}

fn golden_packets_end_as_named_on_a_wire_with_the_generic_program(sender: &'static str) {
    golden_packets_end_as_named_on_a_wire("generic", sender);
}

fn golden_packets_end_as_named_on_a_wire(xdp: &'static str, sender: &'static str) {
    let Some(testbed) = Testbed::with(Plan {
        golden: true,
        mtu_bytes: FULL_MTU_BYTES,
        ..Plan::default()
    }) else {
        return;
    };
    let edged = Edged::start(
        &testbed,
        &Settings {
            xdp: xdp.to_owned(),
            vlans: &["untagged", "5", "5.5"],
            ..settings(&testbed, sender)
        },
    );
    let tap = RawSocket::on(&testbed.reader).unwrap();
    let mut before = counts(&edged.settled());
    let cases = match xdp {
        "generic" => golden::generic(),
        _ => golden::all(),
    };
    for case in cases {
        assert!(tap.send(&case.frame).unwrap(), "{}", case.name);
        let now = wait::until(PATIENCE, || {
            let now = counts(&edged.stat());
            (sum(&now) > sum(&before)).then_some(now)
        });
        let now = now.unwrap_or_else(|| panic!("{}: not counted", case.name));
        let reason = reason(&case.expect);
        before.entry(reason.label().to_owned()).or_default().packets += 1;
        let ended = |counts: &ReasonCounts| -> Vec<_> {
            counts
                .iter()
                .map(|(label, count)| (label.clone(), count.packets))
                .collect()
        };
        assert_eq!(ended(&now), ended(&before), "{}", case.name);
        before = now;
        if reason == Reason::NackCookie || matches!(case.expect, Expect::Reply(..)) {
            assert_answered(&case, &tap);
        }
    }
    edged.stop();
}

fn counts(snapshot: &Snapshot) -> ReasonCounts {
    snapshot.interfaces[0]
        .xdp
        .get(&0)
        .cloned()
        .unwrap_or_default()
}

/// The golden cookies are of an epoch long past, so here nobody's is good.
fn reason(expect: &Expect) -> Reason {
    match expect {
        Expect::Pass(Reason::Miss) | Expect::Steer(_) => Reason::NackCookie,
        Expect::Pass(reason) | Expect::Drop(reason) | Expect::Reply(reason, _) => *reason,
    }
}

fn assert_answered(case: &Case, tap: &RawSocket) {
    let answer = loop {
        let frame = tap.receive(PATIENCE).unwrap();
        let frame = frame.unwrap_or_else(|| panic!("{}: no answer", case.name));
        // The kernel asks who 192.0.2.7 is, on behalf of the socket front: nobody answers it.
        if frame
            .windows(2)
            .skip(12)
            .any(|bytes| bytes == [0xed, 0x12] || bytes == [0xed, 0x15])
        {
            break frame;
        }
    };
    let Expect::Reply(reason, golden) = &case.expect else {
        return;
    };
    let mut golden = golden.clone();
    if matches!(golden[12..14], [0x81, 0x00] | [0x88, 0xa8]) {
        // The kernel takes the outer tag off before anybody sees the frame.
        golden.drain(12..16);
    }
    assert_eq!(answer.len(), golden.len(), "{}", case.name);
    let payload_at = golden.windows(2).rposition(|bytes| bytes == [0xed, 0x12]);
    let mut answer = answer;
    if let (Reason::Welcome, Some(at)) = (reason, payload_at) {
        // Another secret and another time make another cookie, and that another checksum.
        for frame in [&mut answer, &mut golden] {
            frame[at - 2..at].fill(0);
            frame[at + 16..at + 32].fill(0);
        }
    }
    assert!(
        answer == golden,
        "{}:\n{answer:02x?}\n{golden:02x?}",
        case.name
    );
}
