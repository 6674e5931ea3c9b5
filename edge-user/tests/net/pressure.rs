//! More than fits: many clients, a small arena, a large object, a map that lies.

use aya::maps::{HashMap, Map, MapData, MapInfo};
use aya::programs::loaded_programs;
use edge_ebpf::maps::{RESIDENT, Resident};
use edge_ebpf::reason::Reason;
use edge_user::counters::{Snapshot, packets, sum};
use edge_user::limits::XSK;

use crate::daemon::{Edged, Settings, settings};
use crate::objects::Object;
use crate::testbed::{Plan, Testbed};

with_each_sender!(
    eight_clients_at_once_on_a_cold_edge_fetch_each_chunk_once,
    an_object_much_larger_than_the_arena_reaches_four_readers_at_once,
    an_object_of_two_index_levels_comes_back,
    a_chunk_withdrawn_between_steering_and_answer_is_bounced_and_right
);

fn eight_clients_at_once_on_a_cold_edge_fetch_each_chunk_once(sender: &'static str) {
    let Some(testbed) = Testbed::with(Plan {
        queues: 2,
        ..Plan::default()
    }) else {
        return;
    };
    let object = Object::seal(&testbed, "wanted", 12_000_000);
    let edged = Edged::start(&testbed, &settings(&testbed, sender));
    assert_eq!(edged.stat().interfaces[0].queues, 2);
    object.fetch_by_many(&testbed, 8);
    let counts = edged.settled();
    assert_eq!(counts.origin.fetches_total, object.chunks.len() as u64);
    assert_eq!(counts.store.evicted_total, 0);
    edged.stop();
}

fn an_object_much_larger_than_the_arena_reaches_four_readers_at_once(sender: &'static str) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "stream", 200_000_000);
    let setup = Settings {
        arena_bytes: 16 << 20,
        ..settings(&testbed, sender)
    };
    let edged = Edged::start(&testbed, &setup);
    object.fetch_by_many(&testbed, 4);
    let counts = edged.settled();
    assert!(counts.store.evicted_total > 0);
    assert!(counts.store.evicted_total >= object.chunks.len() as u64 - counts.store.slots);
    assert_eq!(counts.origin.failed_total + counts.origin.corrupt_total, 0);
    assert_eq!(counts.store.publish_failed_total, 0);
    edged.stop();
}

fn an_object_of_two_index_levels_comes_back(sender: &'static str) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    // An index chunk lists 4096 chunks of 128 KiB: 512 MiB.
    let object = Object::seal(&testbed, "large", 540_000_000);
    assert_eq!(
        object.chunks.len(),
        4120 + 2 + 1,
        "data, index, and an index of these"
    );
    let edged = Edged::start(&testbed, &settings(&testbed, sender));
    object.fetch(&testbed, testbed.service_v4());
    assert!(edged.settled().origin.fetches_total >= object.chunks.len() as u64);
    edged.stop();
}

fn a_chunk_withdrawn_between_steering_and_answer_is_bounced_and_right(sender: &'static str) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "moved", 40_000_000);
    let chunks = object.chunks.len() as u64;
    let edged = Edged::start(&testbed, &settings(&testbed, sender));
    let edge = testbed.service_v4();
    object.fetch(&testbed, edge);
    let mut map = resident_map(testbed.edge.program().unwrap().unwrap());
    let truth: Vec<_> = map
        .iter()
        .map(Result::unwrap)
        .map(|(id, mark)| (id, Resident::from_metadata(mark)))
        .collect();
    assert_eq!(truth.len() as u64, chunks);
    let mut tell = |marks: &mut dyn Iterator<Item = Resident>| {
        for ((id, _), mark) in truth.iter().zip(marks) {
            map.insert(id, mark.to_metadata(), 0).unwrap();
        }
    };
    let marks = || truth.iter().map(|(_, mark)| *mark);

    // What lies in the slot is another stay than the one the packet was steered to, there is no
    // such slot, or it is a good stay of another chunk.
    let changed = |change: fn(u32) -> u32| {
        marks().map(move |mark| Resident {
            generation: change(mark.generation),
            ..mark
        })
    };
    let lies: [&mut dyn Iterator<Item = Resident>; 4] = [
        &mut changed(|generation| generation.wrapping_sub(1)),
        &mut changed(|generation| generation.wrapping_add(1)),
        &mut marks().map(|mark| Resident {
            slot: u32::MAX,
            ..mark
        }),
        &mut marks().cycle().skip(1),
    ];
    let start = edged.settled();
    for lie in lies {
        let before = edged.settled();
        tell(lie);
        object.fetch(&testbed, edge);
        assert_all_bounced(&before, &edged.settled(), chunks);
    }
    let middle = edged.settled();
    tell(&mut marks());
    for _ in 0..4 {
        object.fetch(&testbed, edge);
    }
    let end = edged.settled();
    assert_eq!(
        end.socket.bounced, middle.socket.bounced,
        "the truth is not bounced"
    );
    assert_eq!(
        end.origin.fetches_total, chunks,
        "nothing was fetched again"
    );
    // I2: frames came back on either way, or there would be none left.
    let received = |snapshot: &Snapshot| snapshot.interfaces[0].workers[0].received;
    let frames = u64::from(XSK.rx_frames);
    assert!(
        received(&middle) - received(&start) > frames,
        "{} bounced",
        middle.socket.bounced
    );
    assert!(received(&end) - received(&middle) > frames);
    edged.stop();
}

fn assert_all_bounced(before: &Snapshot, now: &Snapshot, least: u64) {
    let [was, is] = [before, now].map(|snapshot| snapshot.interfaces[0].workers[0].clone());
    let bounced = packets(&is.reasons, Reason::Bounced) - packets(&was.reasons, Reason::Bounced);
    assert!(bounced >= least, "{bounced} of {least} chunks bounced");
    assert_eq!(
        is.received - was.received,
        bounced,
        "nothing else was steered"
    );
    assert_eq!(sum(&is.reasons), is.received);
    assert_eq!(
        now.origin.fetches_total, before.origin.fetches_total,
        "all were resident"
    );
}

/// The map the program of this testbed looks chunks up in.
fn resident_map(program_number: u32) -> HashMap<MapData, [u8; 32], [u8; 8]> {
    let program = loaded_programs()
        .map(Result::unwrap)
        .find(|info| info.id() == program_number);
    let numbers = program.unwrap().map_ids().unwrap().unwrap();
    let is_resident =
        |number: &u32| MapInfo::from_id(*number).unwrap().name_as_str() == Some(RESIDENT);
    let number = numbers.into_iter().find(is_resident).unwrap();
    let map = Map::HashMap(MapData::from_id(number).unwrap());
    map.try_into().unwrap()
}
