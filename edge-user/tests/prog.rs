//! The golden packets through the loaded program: same table, same verdicts, same bytes, and every
//! packet counted once (I10).
#![cfg(feature = "server")]

use edge_ebpf::golden::{self, Case, Expect};
use edge_ebpf::maps::{ABI_VERSION, Settings};
use edge_ebpf::reason::Reason;
use edge_user::counters::ReasonCounts;
use edge_user::daemon::nic::program::{
    AttachError, LOOPBACK_INDEX, Maps, Program, Verdict, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX,
};
use edge_user::limits::XSK;
use edge_user::sys::bpf::{ChunkIdKey, CookiesValue, ResidentValue};
use edge_user::sys::mapping::Mapping;
use edge_user::sys::xsk::Xsk;

/// The program in the golden world.
struct WorkerState {
    program: Program,
    maps: Maps,
}

fn bench() -> WorkerState {
    let (mut program, mut maps) = match Program::load(64, &[LOOPBACK_INDEX]) {
        Ok(loaded) => loaded,
        Err(error @ (AttachError::NotBuilt | AttachError::NotPermitted(_))) => {
            panic!("{error}: run this by `cargo xtask test`, as root")
        }
        Err(error) => panic!("{error}"),
    };
    program.check_abi(&mut maps.counters).unwrap();
    let world = golden::world();
    program.serve(&[world.settings], &world.locals).unwrap();
    maps.cookies.set(0, CookiesValue(world.cookies), 0).unwrap();
    maps.resident
        .insert(ChunkIdKey(world.id), ResidentValue(world.resident), 0)
        .unwrap();
    WorkerState { program, maps }
}

impl WorkerState {
    /// A socket on the queue that test runs come in by.
    fn socket(&mut self) -> Xsk {
        let xsk = Xsk::new(Mapping::anonymous(XSK.umem_bytes(), false).unwrap(), XSK).unwrap();
        self.program.set_socket(0, 0, xsk.share_fd()).unwrap();
        xsk
    }

    /// Action, output, and how the counters rose.
    fn run(&mut self, frame: &[u8]) -> (u32, Vec<u8>, Vec<(String, u64, u64)>) {
        let before = self.maps.counters.of_queue(0, 0);
        let mut output = vec![0; 4096];
        let Verdict { action, len_bytes } = self.program.run(frame, &mut output).unwrap();
        output.truncate(len_bytes);
        let after = self.maps.counters.of_queue(0, 0);
        (action, output, risen(&before, &after))
    }
}

fn risen(before: &ReasonCounts, after: &ReasonCounts) -> Vec<(String, u64, u64)> {
    after
        .iter()
        .map(|(label, count)| {
            let old = before.get(label).copied().unwrap_or_default();
            (
                label.clone(),
                count.packets - old.packets,
                count.bytes - old.bytes,
            )
        })
        .filter(|(_, packets, _)| *packets > 0)
        .collect()
}

fn expected(case: &Case) -> (u32, Vec<u8>, Reason) {
    match &case.expect {
        Expect::Pass(reason) => (XDP_PASS, case.frame.clone(), *reason),
        Expect::Drop(reason) => (XDP_DROP, case.frame.clone(), *reason),
        Expect::Reply(reason, answer) => (XDP_TX, answer.clone(), *reason),
        Expect::Steer(resident) => {
            let marked = [resident.to_metadata().as_slice(), &case.frame].concat();
            (XDP_REDIRECT, marked, Reason::Steered)
        }
    }
}

#[test]
fn every_golden_packet_gets_its_verdict_from_the_kernel() {
    let mut state = bench();
    let xsk = state.socket();
    let (all, generic) = (golden::all(), golden::generic());
    let mut settings = golden::world().settings;
    for case in all.iter().chain(&generic) {
        if case.world.settings != settings {
            settings = case.world.settings;
            state
                .program
                .serve(&[settings], &case.world.locals)
                .unwrap();
        }
        let (action, output, risen) = state.run(&case.frame);
        let (expected_action, expected_output, reason) = expected(case);
        assert_eq!(action, expected_action, "{}", case.name);
        assert_eq!(output, expected_output, "{}", case.name);
        let once = (reason.label().to_owned(), 1, case.frame.len() as u64);
        assert_eq!(risen, [once], "I10: {}", case.name);
    }
    assert!(all.len() > 60, "the table lost rows");
    assert_eq!(xsk.frames_missing(), 0, "I2");
}

#[test]
fn a_hit_on_a_queue_without_a_socket_goes_to_the_kernel() {
    // I3
    let mut state = bench();
    for case in golden::all() {
        let (action, _, risen) = state.run(&case.frame);
        if matches!(case.expect, Expect::Steer(_)) {
            assert_eq!(action, XDP_PASS, "{}", case.name);
            assert_eq!(risen[0].0, Reason::NoSocket.label(), "{}", case.name);
        }
    }
}

#[test]
fn a_program_that_was_not_told_its_settings_leaves_everything_to_the_kernel() {
    // I1 and I13: before the server has spoken, after it has stopped, and when it speaks another
    // ABI.
    let mut state = bench();
    let _socket = state.socket();
    let other = Settings {
        abi_version: ABI_VERSION + 1,
        ..golden::world().settings
    };
    for settings in [Settings::NONE, other] {
        state.program.serve(&[settings], &[]).unwrap();
        for case in golden::all() {
            let (action, output, risen) = state.run(&case.frame);
            assert_eq!((action, &output), (XDP_PASS, &case.frame), "{}", case.name);
            assert_eq!(risen[0].0, Reason::NotServing.label(), "{}", case.name);
        }
    }
}

#[test]
fn damaged_packets_get_the_same_verdict_from_kernel_and_host() {
    use edge_ebpf::steer::{Verdict, decide};

    let mut state = bench();
    let _socket = state.socket();
    let mut judged = 0;
    for case in golden::all() {
        let mut frames = Vec::new();
        // The kernel wants at least an Ethernet header.
        for len_bytes in (14..case.frame.len()).step_by(5) {
            frames.push(case.frame[..len_bytes].to_vec());
        }
        for at in 0..case.frame.len().min(120) {
            let mut frame = case.frame.clone();
            frame[at] ^= 1 << (at % 8);
            frames.push(frame);
        }
        for frame in frames {
            let (action, _, risen) = state.run(&frame);
            let (expected, reason) = match decide(frame.as_slice(), &case.world) {
                Verdict::Pass(reason) => (XDP_PASS, reason),
                Verdict::Drop(reason) => (XDP_DROP, reason),
                Verdict::Reply(reason, ..) => (XDP_TX, reason),
                Verdict::Steer(_) => (XDP_REDIRECT, Reason::Steered),
            };
            assert_eq!(
                (action, risen[0].0.as_str()),
                (expected, reason.label()),
                "{}",
                case.name
            );
            judged += 1;
        }
    }
    assert!(judged > 5000, "only {judged} were judged");
}
