//! I10: every packet has one end, and the ends add up.

use std::fs;
use std::time::Duration;

use edge_ebpf::reason::Reason;
use edge_user::counters::{Snapshot, packets, sum};

use crate::amplification::{answers, cookie};
use crate::daemon::{Edged, settings};
use crate::objects::Object;
use crate::testbed::{FULL_MTU_BYTES, Plan, Testbed};
use crate::trace::{Bait, rows};
use crate::wait;

with_each_sender!(every_frame_of_a_mixed_load_is_counted_once_at_every_stage);

fn every_frame_of_a_mixed_load_is_counted_once_at_every_stage(sender: &'static str) {
    let Some(testbed) = Testbed::with(Plan {
        queues: 2,
        mtu_bytes: FULL_MTU_BYTES,
        ..Plan::default()
    }) else {
        return;
    };
    let object = Object::seal(&testbed, "mixed", 5_000_000);
    let edged = Edged::start(&testbed, &settings(&testbed, sender));
    let start = at_rest(&edged);

    object.fetch_by_many(&testbed, 4);
    let bait = Bait {
        id: object.chunk_id(),
        stolen: cookie(&testbed),
    };
    let trace = rows(&testbed, &bait);
    testbed.claim_for_reader(trace.iter().map(|row| row.source));
    answers(&testbed, &trace);
    object.fetch_by_many(&testbed, 2);

    let end = at_rest(&edged);
    let seen = |snapshot: &Snapshot| -> u64 { snapshot.interfaces[0].xdp.values().map(sum).sum() };
    let by_program = seen(&end.0) - seen(&start.0);
    assert_eq!(
        by_program,
        end.1 - start.1,
        "frames the link delivered, and the program counted"
    );
    assert_eq!(end.0.unbalanced(), [""; 0]);

    // What the trace must have left behind, wherever it was counted.
    let socket = |reason| packets(&end.0.socket.reasons, reason);
    for reason in [
        Reason::Steered,
        Reason::Miss,
        Reason::IpOptions,
        Reason::Ipv6Extension,
    ] {
        assert!(end.0.xdp_packets(reason) > 0, "{}", reason.label());
    }
    let both = [
        Reason::Welcome,
        Reason::WelcomeVersion,
        Reason::NackCookie,
        Reason::BadMagic,
        Reason::BadVersion,
        Reason::BadKind,
        Reason::BadReserved,
        Reason::HelloSize,
        Reason::GetSize,
    ];
    for reason in both {
        assert!(end.0.xdp_packets(reason) > 0, "program: {}", reason.label());
        assert!(socket(reason) > 0, "socket: {}", reason.label());
    }
    assert!(socket(Reason::FetchStarted) >= object.chunks.len() as u64);
    edged.stop();
}

#[test]
fn by_xsk_a_single_reader_finds_a_frame_for_what_it_asks_for() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "polite", 10_000_000);
    let edged = Edged::start(&testbed, &settings(&testbed, "xsk"));
    for _ in 0..4 {
        object.fetch(&testbed, testbed.service_v4());
    }
    let reasons = &edged.settled().interfaces[0].workers[0].reasons;
    let dropped = [Reason::SendQueueFull, Reason::ServedPartly].map(|why| packets(reasons, why));
    let served = packets(reasons, Reason::Served);
    assert!(
        served > 200 && dropped.iter().sum::<u64>() * 1000 <= served,
        "{reasons:?}"
    );
    edged.stop();
}

/// The counts, and how many frames the edge's end of the link has received, with none on its way.
fn at_rest(edged: &Edged) -> (Snapshot, u64) {
    let rest = wait::until(Duration::from_secs(5), || {
        let before = received_frames(edged.pid());
        let snapshot = edged.settled();
        (received_frames(edged.pid()) == before).then_some((snapshot, before))
    });
    rest.expect("the link never rests")
}

/// As the kernel counts them; frames before the program was there are among them.
fn received_frames(pid: u32) -> u64 {
    let table = fs::read_to_string(format!("/proc/{pid}/net/dev")).unwrap();
    let line = table
        .lines()
        .find_map(|line| line.trim().strip_prefix("edge0:"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}
