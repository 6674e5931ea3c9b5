//! Transfers over simulated paths, in virtual time.

use std::time::Duration;

use edge_ebpf::wire::NackCode;
use edge_user::client::failure::Failure;
use edge_user::client::transfer::Stats;
use edge_user::object::ticket::PublicTicket;
use edge_user::object::tree::Shape;
use edge_user::seal::cipher::{Key, Nonce};
use edge_user::seal::ticket::Ticket;
use proptest::prelude::*;

use crate::edge::{Edge, Faults};
use crate::link::{Outcome, Path, fetch};
use crate::object::Object;

const MS: Duration = Duration::from_millis(1);

/// Fetches an object over a path; must succeed.
fn succeeds(object: &Object, faults: Faults, path: Path) -> (Stats, Duration, Edge) {
    let mut edge = Edge::new(object.chunks.clone(), faults);
    let Outcome {
        result,
        plaintext,
        took,
    } = fetch(object, &mut edge, path, 7);
    let stats = result.unwrap_or_else(|failure| panic!("{failure}"));
    assert!(
        plaintext == object.plaintext,
        "other bytes came out than went in"
    );
    assert_eq!(stats.chunks, object.chunks.len() as u64);
    (stats, took, edge)
}

fn fails(object: &Object, faults: Faults) -> (Failure, Duration) {
    let mut edge = Edge::new(object.chunks.clone(), faults);
    let Outcome { result, took, .. } = fetch(object, &mut edge, Path::default(), 7);
    (result.expect_err("a failure"), took)
}

#[test]
fn objects_of_every_boundary_size_are_fetched() {
    for size in [0, 1, 1215, 1216, 1217, 131_071, 131_072, 131_073, 1_000_000] {
        let object = Object::sealed(size);
        let (stats, ..) = succeeds(&object, Faults::default(), Path::default());
        assert_eq!(stats.retransmitted, 0, "{size}");
    }
}

#[test]
fn the_empty_object_needs_no_network() {
    let object = Object::sealed(0);
    let (stats, took, _) = succeeds(&object, Faults::default(), Path::default());
    assert_eq!((stats, took), (Stats::default(), Duration::ZERO));
}

#[test]
fn a_clean_path_is_filled_without_asking_twice() {
    let object = Object::sealed(20_000_000);
    let path = Path {
        bytes_per_second: 12_500_000,
        ..Path::default()
    };
    let (stats, took, _) = succeeds(&object, Faults::default(), path);
    assert_eq!(stats.retransmitted, 0);
    // 1.6 s on the wire, and the start with a small window.
    assert!(took < MS * 2300, "took {took:?}");
}

#[test]
fn five_percent_loss_each_way_costs_little_more_than_the_loss() {
    let object = Object::sealed(20_000_000);
    let path = Path {
        loss: 0.05,
        ..Path::default()
    };
    let (stats, took, _) = succeeds(&object, Faults::default(), path);
    let segments = object.plaintext.len() as u64 / 1216;
    // A lost GET takes its whole burst with it, so 5 % each way makes about 10 %.
    assert!(
        stats.retransmitted < segments * 16 / 100,
        "{} of {segments}",
        stats.retransmitted
    );
    assert!(took < Duration::from_secs(5), "took {took:?}");
}

#[test]
fn a_slow_path_with_a_short_queue_is_filled_and_not_flooded() {
    let object = Object::sealed(300_000);
    let segments = object.plaintext.len() as u64 / 1216;
    for kilobits in [64_u32, 128, 256, 512, 1000] {
        for queue_bytes in [16_384, 65_536] {
            for (delay_ms, past_queue) in [(0, true), (1, false), (10, true), (80, false)] {
                let path = Path {
                    delay: MS * delay_ms,
                    burst_bytes: if past_queue { 4096 } else { 0 },
                    past_queue,
                    bytes_per_second: u64::from(kilobits) * 125,
                    queue_bytes,
                    ..Path::default()
                };
                let ideal = MS.mul_f64(300_000.0 * 8.0 * 1274.0 / 1216.0) / kilobits;
                let mut edge = Edge::new(object.chunks.clone(), Faults::default());
                let outcome = fetch(&object, &mut edge, path, 7);
                let stats = outcome.result.unwrap();
                let row = format!(
                    "{kilobits} kbit/s, {queue_bytes} bytes, {delay_ms} ms: {:?} of {ideal:?}, {} of {segments}",
                    outcome.took, stats.retransmitted
                );
                assert!(outcome.took < ideal.mul_f64(1.6), "{row}");
                assert!(stats.retransmitted * 10 < segments * 3, "{row}");
            }
        }
    }
}

#[test]
fn one_datagram_in_five_may_be_lost_each_way() {
    let object = Object::sealed(20_000_000);
    for (delay_ms, most) in [(1, 30), (10, 30), (50, 60)] {
        let path = Path {
            delay: MS * delay_ms,
            loss: 0.2,
            ..Path::default()
        };
        let (_, took, _) = succeeds(&object, Faults::default(), path);
        assert!(took < MS * most * 1000, "{delay_ms} ms: took {took:?}");
    }
}

#[test]
fn chunks_that_the_edge_must_fetch_are_fetched_many_at_a_time() {
    let object = Object::sealed(5_000_000);
    let faults = Faults {
        fill: MS * 1500,
        ..Faults::default()
    };
    let (_, took, _) = succeeds(&object, faults, Path::default());
    assert!(took < MS * 6000, "took {took:?}");
}

#[test]
fn a_path_that_repeats_and_reorders_is_not_taken_for_a_lossy_one() {
    let object = Object::sealed(5_000_000);
    let path = Path {
        jitter: MS * 8,
        repeats: 0.1,
        ..Path::default()
    };
    let (stats, ..) = succeeds(&object, Faults::default(), path);
    let segments = object.plaintext.len() as u64 / 1216;
    assert!(
        stats.retransmitted < segments / 20,
        "{} of {segments}",
        stats.retransmitted
    );
}

#[test]
fn loss_repetition_and_reordering_at_once_still_give_the_object() {
    let object = Object::sealed(3_000_000);
    let path = Path {
        jitter: MS * 5,
        loss: 0.2,
        repeats: 0.2,
        ..Path::default()
    };
    succeeds(&object, Faults::default(), path);
}

#[test]
fn every_legal_segment_size_and_burst_works() {
    let object = Object::sealed(300_000);
    for (segment_bytes, max_burst) in [(1024, 128), (1216, 1), (1400, 53), (1440, 128)] {
        let faults = Faults {
            segment_bytes,
            max_burst,
            ..Faults::default()
        };
        let (_, _, edge) = succeeds(&object, faults, Path::default());
        let full = 16 + usize::from(segment_bytes);
        assert_eq!(edge.hellos.first(), Some(&1232));
        match segment_bytes {
            ..=1216 => assert_eq!(edge.hellos, [1232]),
            _ => assert_eq!(edge.hellos, [1232, full]),
        }
    }
}

#[test]
fn forged_data_and_forged_refusals_are_ignored() {
    let object = Object::sealed(600_000);
    let faults = Faults {
        forges: true,
        forges_nacks: true,
        ..Faults::default()
    };
    let (stats, _, edge) = succeeds(&object, faults, Path::default());
    assert_eq!((stats.retransmitted, edge.ports.len()), (0, 1));
}

#[test]
fn a_chunk_altered_once_is_fetched_again_from_another_port() {
    let object = Object::sealed(600_000);
    for id in [object.data_id(2), object.ticket.public().root()] {
        let faults = Faults {
            altered: [(id, 1)].into(),
            ..Faults::default()
        };
        let (_, _, edge) = succeeds(&object, faults, Path::default());
        assert_eq!((edge.ports.len(), edge.hellos.len()), (2, 2));
    }
}

#[test]
fn a_chunk_altered_twice_blames_the_edge() {
    let object = Object::sealed(600_000);
    for id in [object.data_id(2), object.ticket.public().root()] {
        let faults = Faults {
            altered: [(id, 2)].into(),
            ..Faults::default()
        };
        let (failure, _) = fails(&object, faults);
        assert!(
            matches!(failure, Failure::Corrupt(found) if found == id),
            "{failure}"
        );
        assert!(!failure.is_temporary());
    }
}

#[test]
fn an_edge_that_never_answers_is_given_up_within_ten_seconds() {
    let object = Object::sealed(1000);
    let (failure, took) = fails(
        &object,
        Faults {
            dropped_hellos: u32::MAX,
            ..Faults::default()
        },
    );
    assert!(matches!(failure, Failure::Unanswered), "{failure}");
    assert!(took < MS * 10_000, "took {took:?}");
}

#[test]
fn a_lost_hello_is_repeated_from_a_new_port() {
    let object = Object::sealed(1000);
    let faults = Faults {
        dropped_hellos: 2,
        ..Faults::default()
    };
    let (_, _, edge) = succeeds(&object, faults, Path::default());
    assert_eq!(edge.ports.len(), 3);
}

#[test]
fn an_interface_that_is_down_for_a_while_costs_that_while() {
    let object = Object::sealed(2_000_000);
    for (from, until) in [(0, 3000), (5, 1000), (300, 1000), (300, 5000), (500, 6000)] {
        let path = Path {
            bytes_per_second: 2_000_000,
            down: MS * from..MS * until,
            ..Path::default()
        };
        let (_, took, _) = succeeds(&object, Faults::default(), path);
        // A silence is waited for before the network is asked again; then the window grows anew.
        let most = MS * until.max(from + 3000) + MS * 2500;
        assert!(took < most, "down {from} to {until} ms: took {took:?}");
    }
}

#[test]
fn an_outage_of_two_minutes_costs_those_two_minutes() {
    let object = Object::sealed(2_000_000);
    for (from, lasts) in [(500, 20), (500, 120), (20, 5)] {
        let out = MS * from..MS * (from + lasts * 1000);
        let path = Path {
            bytes_per_second: 1_000_000,
            out: out.clone(),
            ..Path::default()
        };
        let (_, took, _) = succeeds(&object, Faults::default(), path);
        assert!(took < out.end + MS * 14_000, "{out:?} took {took:?}");
    }
}

#[test]
fn a_timeout_that_was_asked_for_is_kept() {
    let object = Object::sealed(2_000_000);
    for from in [0, 500] {
        for seconds in [1, 30, 400] {
            let path = Path {
                bytes_per_second: 1_000_000,
                out: MS * from..Duration::MAX,
                timeout: Some(MS * seconds * 1000),
                ..Path::default()
            };
            let mut edge = Edge::new(object.chunks.clone(), Faults::default());
            let Outcome { took, .. } = fetch(&object, &mut edge, path, 7);
            let gone = took.saturating_sub(MS * from);
            let range = MS * (seconds * 1000 - 200)..MS * (seconds * 1000 + 500);
            assert!(range.contains(&gone), "{gone:?} of {seconds} s");
        }
    }
}

#[test]
fn an_edge_that_restarts_with_another_segment_size_costs_a_round_trip() {
    let object = Object::sealed(6_000_000);
    let faults = Faults {
        restarts: vec![(40, 1024), (120, 1400), (200, 1216)],
        ..Faults::default()
    };
    let path = Path {
        bytes_per_second: 1_000_000,
        ..Path::default()
    };
    let (_, took, edge) = succeeds(&object, faults, path);
    assert_eq!((edge.ports.len(), edge.hellos.len()), (1, 5));
    assert!(took < MS * 10_000, "took {took:?}");
}

#[test]
fn an_interface_that_stays_down_ends_the_transfer_in_time() {
    let object = Object::sealed(2_000_000);
    for from in [0, 300] {
        let path = Path {
            bytes_per_second: 2_000_000,
            down: MS * from..Duration::MAX,
            ..Path::default()
        };
        let mut edge = Edge::new(object.chunks.clone(), Faults::default());
        let Outcome { result, took, .. } = fetch(&object, &mut edge, path, 7);
        let failure = result.unwrap_err();
        // The driver then says what the network said.
        assert_eq!(matches!(failure, Failure::Lost), from > 0, "{failure}");
        assert_eq!(edge.ports.is_empty(), from == 0);
        // Once data has flowed, an outage of two minutes must not end it.
        let most = if from == 0 { 10_000 } else { 165_000 };
        assert!(took < MS * most, "took {took:?}");
    }
}

#[test]
fn an_edge_that_dies_is_reported_as_lost() {
    let object = Object::sealed(2_000_000);
    for segment_bytes in [1216, 1400] {
        let faults = Faults {
            segment_bytes,
            dies_after: 10,
            ..Faults::default()
        };
        let (failure, took) = fails(&object, faults);
        assert!(matches!(failure, Failure::Lost), "{failure}");
        assert!(took < MS * 165_000, "took {took:?}");
    }
}

#[test]
fn a_chunk_shorter_than_the_ticket_requires_is_reported() {
    let mut object = Object::sealed(1000);
    let root = object.ticket.public().root();
    let lie = PublicTicket::new(Shape::of(1100).unwrap(), root).unwrap();
    object.ticket = Ticket::new(lie, Key::generate().unwrap(), Nonce::generate().unwrap());
    let (failure, _) = fails(&object, Faults::default());
    assert!(
        matches!(failure, Failure::LengthMismatch { id, edge_bytes: 1000, ticket_bytes: 1100 } if id == root),
        "{failure}"
    );
}

#[test]
fn an_edge_that_never_sends_data_is_given_up_within_ten_seconds() {
    let object = Object::sealed(1000);
    let (failure, took) = fails(
        &object,
        Faults {
            dropped_gets: u32::MAX,
            ..Faults::default()
        },
    );
    assert!(matches!(failure, Failure::NoData), "{failure}");
    assert!(took < MS * 10_000, "took {took:?}");
}

#[test]
fn an_edge_that_was_silent_for_a_while_is_asked_again() {
    let object = Object::sealed(300_000);
    succeeds(
        &object,
        Faults {
            dropped_gets: 4,
            ..Faults::default()
        },
        Path::default(),
    );
}

#[test]
fn an_edge_that_must_fetch_each_chunk_first_is_asked_for_each_once() {
    let object = Object::sealed(20_000_000);
    let faults = Faults {
        fill: MS * 60,
        ..Faults::default()
    };
    let (stats, took, _) = succeeds(
        &object,
        faults,
        Path {
            delay: MS,
            ..Path::default()
        },
    );
    assert_eq!(stats.retransmitted, 0);
    assert!(took < MS * 1500, "took {took:?}");
}

#[test]
fn pending_waits_without_another_port_or_a_smaller_window() {
    let object = Object::sealed(600_000);
    let faults = Faults {
        refusals: 12,
        refusal: NackCode::Pending,
        ..Faults::default()
    };
    let (_, _, edge) = succeeds(&object, faults, Path::default());
    assert_eq!(edge.ports.len(), 1);
}

#[test]
fn busy_and_origin_are_tried_again_for_a_while_and_then_try_again_later() {
    let object = Object::sealed(600_000);
    for refusal in [NackCode::Busy, NackCode::Origin] {
        let few = Faults {
            refusals: 20,
            refusal,
            ..Faults::default()
        };
        succeeds(&object, few, Path::default());
        for retry_ms in [0, 50, u32::MAX] {
            let always = Faults {
                refusals: u32::MAX,
                refusal,
                retry_ms,
                ..Faults::default()
            };
            let (failure, took) = fails(&object, always);
            assert!(failure.is_temporary(), "{failure}");
            assert!(took < MS * 10_000, "took {took:?}");
        }
    }
}

#[test]
fn pending_for_ever_ends_and_may_be_tried_again() {
    let object = Object::sealed(1000);
    let refusal = NackCode::Pending;
    for retry_ms in [0, 50, u32::MAX] {
        let faults = Faults {
            refusals: u32::MAX,
            refusal,
            retry_ms,
            ..Faults::default()
        };
        let (failure, took) = fails(&object, faults);
        assert!(matches!(failure, Failure::Pending(_)), "{failure}");
        assert!(took < MS * 40_000, "took {took:?}");
    }
}

#[test]
fn an_absent_chunk_is_named() {
    let mut object = Object::sealed(600_000);
    let id = object.data_id(3);
    object.chunks.remove(&id);
    let (failure, _) = fails(&object, Faults::default());
    assert!(
        matches!(failure, Failure::Absent(found) if found == id),
        "{failure}"
    );
    assert!(failure.to_string().contains(&id.to_string()));
}

#[test]
fn one_refusal_for_good_is_asked_again_from_another_port_and_two_are_believed() {
    let object = Object::sealed(1000);
    for (refusal, retry_ms) in [
        (NackCode::Range, 0),
        (NackCode::Absent, 0),
        (NackCode::Busy, 0),
        (NackCode::Origin, 0),
    ] {
        let faults = |refusals| Faults {
            refusals,
            refusal,
            retry_ms,
            ..Faults::default()
        };
        let (_, took, edge) = succeeds(&object, faults(1), Path::default());
        assert_eq!(edge.ports.len(), 2, "{refusal:?}");
        assert!(took < MS * 1000, "{refusal:?} took {took:?}");
        let (failure, took) = fails(&object, faults(2));
        let named = match refusal {
            NackCode::Range => matches!(failure, Failure::Range(_)),
            NackCode::Absent => matches!(failure, Failure::Absent(_)),
            NackCode::Busy => matches!(failure, Failure::Busy),
            NackCode::Pending | NackCode::Cookie | NackCode::Origin => {
                matches!(failure, Failure::Origin(_))
            }
        };
        assert!(named && took < MS * 1000, "{failure} after {took:?}");
    }
}

#[test]
fn a_cookie_that_ran_out_is_renewed_on_the_same_port() {
    let object = Object::sealed(3_000_000);
    let faults = Faults {
        cookie_gets: 5,
        ..Faults::default()
    };
    let (_, _, edge) = succeeds(&object, faults, Path::default());
    assert_eq!(edge.ports.len(), 1);
    assert!(edge.hellos.len() > 3);
}

#[test]
fn a_cookie_is_renewed_before_it_runs_out() {
    let object = Object::sealed(3_000_000);
    let faults = Faults {
        lifetime_seconds: 4,
        ..Faults::default()
    };
    let path = Path {
        bytes_per_second: 500_000,
        ..Path::default()
    };
    let (stats, took, edge) = succeeds(&object, faults, path);
    assert_eq!((edge.ports.len(), stats.retransmitted), (1, 0));
    assert!(
        edge.hellos.len() as u64 >= took.as_secs() / 2,
        "{:?} {took:?}",
        edge.hellos
    );
}

#[test]
fn an_edge_that_refuses_its_own_cookies_is_named() {
    let object = Object::sealed(1000);
    let (failure, _) = fails(
        &object,
        Faults {
            cookie_gets: 0,
            ..Faults::default()
        },
    );
    assert!(matches!(failure, Failure::CookieRefused), "{failure}");
}

#[test]
fn an_edge_that_keeps_changing_its_segment_size_is_given_up() {
    let object = Object::sealed(600_000);
    let faults = Faults {
        // Any HELLO proves either size.
        segment_bytes: 1100,
        unstable: true,
        ..Faults::default()
    };
    let (failure, took) = fails(&object, faults);
    assert!(matches!(failure, Failure::UnstableSegmentSize), "{failure}");
    assert!(took < MS * 1000, "took {took:?}");
}

#[test]
fn an_edge_of_another_version_is_named() {
    let object = Object::sealed(1000);
    let (failure, _) = fails(
        &object,
        Faults {
            version: 2,
            ..Faults::default()
        },
    );
    assert!(matches!(failure, Failure::Version(2)), "{failure}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn an_object_is_fetched_over_any_path(
        size in 1_usize..700_000,
        delay_ms in 0_u32..80,
        jitter_ms in 0_u32..20,
        loss in 0.0..0.15,
        repeats in 0.0..0.3,
        kilobytes_per_second in 300_u64..200_000,
        seed: u8,
    ) {
        let object = Object::sealed(size);
        let mut edge = Edge::new(object.chunks.clone(), Faults::default());
        let path = Path {
            delay: MS * delay_ms,
            jitter: MS * jitter_ms,
            loss,
            repeats,
            bytes_per_second: kilobytes_per_second * 1000,
            ..Path::default()
        };
        let outcome = fetch(&object, &mut edge, path, seed);
        match outcome.result {
            Ok(_) => prop_assert!(outcome.plaintext == object.plaintext),
            // Three handshakes lost in a row: possible at this loss, and the right answer then.
            Err(Failure::Unanswered | Failure::Lost) => prop_assert!(loss > 0.05),
            Err(failure) => panic!("{failure}"),
        }
    }
}
