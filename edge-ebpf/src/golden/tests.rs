//! The table on the host, and variations of its packets.

use alloc::vec;
use alloc::vec::Vec;

use super::*;
use crate::rewrite;
use crate::steer::{Verdict, decide};

/// The host's equivalent of the program.
fn judge(frame: &[u8], world: &World) -> Expect {
    match decide(frame, world) {
        Verdict::Pass(reason) => Expect::Pass(reason),
        Verdict::Drop(reason) => Expect::Drop(reason),
        Verdict::Steer(resident) => Expect::Steer(resident),
        Verdict::Reply(reason, parsed, reply) => {
            let mut answer = frame.to_vec();
            let resize = rewrite::reply(answer.as_mut_slice(), &parsed, &reply).unwrap();
            assert!(
                resize.frame_bytes <= frame.len(),
                "I14: the answer is longer than the request"
            );
            answer.truncate(resize.keep_bytes);
            answer.resize(resize.frame_bytes, 0);
            Expect::Reply(reason, answer)
        }
    }
}

#[test]
fn every_golden_packet_gets_its_verdict() {
    for case in all().into_iter().chain(generic()) {
        assert_eq!(
            judge(&case.frame, &case.world),
            case.expect,
            "{}",
            case.name
        );
    }
}

#[test]
fn the_filter_of_local_addresses_has_no_false_negatives() {
    let world = world();
    for local in world.locals {
        assert!(world.settings.locals.may_hold(&local), "{local:?}");
    }
    // A false positive, which a row of the table uses.
    let near = Address::v4([192, 1, 2, 13]);
    assert!(world.settings.locals.may_hold(&near) && !world.is_local(&near));
    assert!(!world.settings.locals.may_hold(&Address::v4(CLIENT_V4)));
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = generic().iter().map(|case| case.name).collect();
    names.sort_unstable();
    let count = names.len();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn golden_requests_and_answers_are_real_packets() {
    for case in all() {
        let frames = match &case.expect {
            Expect::Reply(_, answer) => vec![&case.frame, answer],
            Expect::Steer(_) => vec![&case.frame],
            Expect::Pass(_) | Expect::Drop(_) => continue,
        };
        for frame in frames {
            let packet = etherparse::PacketHeaders::from_ethernet_slice(frame)
                .unwrap_or_else(|error| panic!("{}: {error}", case.name));
            let Some(etherparse::TransportHeader::Udp(_)) = packet.transport else {
                panic!("{}: not UDP", case.name);
            };
            if let Some(etherparse::NetHeaders::Ipv4(ip, _)) = packet.net {
                assert_eq!(
                    ip.header_checksum,
                    ip.calc_header_checksum(),
                    "{}",
                    case.name
                );
            }
        }
    }
}

#[test]
fn no_truncation_and_no_changed_byte_panics_or_amplifies() {
    let mut judged = 0_u64;
    for case in all().into_iter().chain(generic()) {
        for len_bytes in 0..case.frame.len() {
            judge(&case.frame[..len_bytes], &case.world);
            judged += 1;
        }
        let mut frame = case.frame.clone();
        for at in 0..frame.len() {
            // The bytes after the headers are padding, which is not read.
            let changes = if at < 200 { 1..=0xff } else { 0xff..=0xff };
            for change in changes {
                frame[at] ^= change;
                judge(&frame, &case.world);
                frame[at] ^= change;
                judged += 1;
            }
        }
    }
    assert!(judged > 1_000_000, "only {judged} packets");
}

#[test]
fn a_hundred_thousand_random_slices_do_not_panic_or_amplify() {
    let world = world();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let seeds = all();
    for round in 0..100_000_u64 {
        let len_bytes = usize::try_from(random() % 1600).unwrap();
        let mut bytes: Vec<u8> = (0..len_bytes).map(|_| random().to_be_bytes()[0]).collect();
        // Noise alone rarely passes the ethertype: most slices begin like a packet.
        if round % 4 != 0 {
            let seed = &seeds[usize::try_from(random()).unwrap() % seeds.len()].frame;
            let keep = usize::try_from(random()).unwrap() % 80;
            for (byte, good) in bytes.iter_mut().zip(seed.iter().take(keep)) {
                *byte = *good;
            }
        }
        judge(&bytes, &world);
    }
}

#[test]
fn settings_of_another_abi_version_are_not_served() {
    let mut world = world();
    world.settings.abi_version = ABI_VERSION + 1;
    for case in all() {
        assert_eq!(
            judge(&case.frame, &world),
            Expect::Pass(Reason::NotServing),
            "I13"
        );
    }
}
