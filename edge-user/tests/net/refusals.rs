//! What a GET is refused with, datagram by datagram, in both ways in.

use std::fs;
use std::net::Ipv4Addr;
use std::time::Duration;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{ChunkId, Nack, NackCode};
use edge_testbed::client::{Client, absent};
use edge_user::clock;
use edge_user::counters::packets;
use edge_user::limits::{SOURCE_FETCH_EVERY, SOURCE_FETCHES};

use crate::daemon::{Edged, settings};
use crate::objects::Object;
use crate::testbed::Testbed;
use crate::wait;

/// The next NACK, which must be an answer to a GET for this chunk.
fn refusal(client: &Client, id: &ChunkId) -> (NackCode, u32) {
    let answer = client.receive().unwrap();
    let nack = Nack::decode(answer.as_slice().try_into().expect("a NACK")).unwrap();
    assert_eq!((nack.tag, nack.echo), (id.tag(), client.cookie.value));
    (nack.code, nack.retry_ms)
}

with_each_sender!(what_cannot_be_had_is_refused_by_code_and_not_asked_of_the_origin_again);

fn what_cannot_be_had_is_refused_by_code_and_not_asked_of_the_origin_again(sender: &'static str) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let here = Object::seal(&testbed, "here", 200_000);
    let damaged = Object::seal(&testbed, "damaged", 100_000);
    fs::write(&damaged.chunks[0], b"something else").unwrap();
    let edged = Edged::start(&testbed, &settings(&testbed, sender));
    here.fetch(&testbed, testbed.service_v4());
    let start = edged.settled();
    let edge = testbed.service_v4();
    let client = Client::greet(&testbed.reader, Ipv4Addr::UNSPECIFIED, edge).unwrap();
    let ask = |id, want| client.ask(want, [id]).unwrap();
    let refusal = |id| refusal(&client, id);

    // By the program's way: the chunk is resident, the segments do not exist.
    let id = here.chunk_id();
    for want in [0, 1 << 127] {
        ask(id, want);
        assert_eq!(refusal(&id), (NackCode::Range, 0));
    }
    // By the kernel's way: at first it may come, then it is known that it does not.
    let nobodys = ChunkId([0xee; 32]);
    ask(nobodys, 1);
    assert_eq!(refusal(&nobodys), (NackCode::Pending, 250));
    assert_eq!(refusal(&nobodys), (NackCode::Absent, 0));
    ask(nobodys, 1);
    assert_eq!(refusal(&nobodys), (NackCode::Absent, 0));
    let id = damaged.chunk_id();
    ask(id, 1);
    assert_eq!(refusal(&id), (NackCode::Pending, 250));
    assert_eq!(refusal(&id), (NackCode::Origin, 1000));
    ask(id, 1);
    assert_eq!(refusal(&id), (NackCode::Origin, 1000));

    let end = edged.settled();
    let risen =
        |reason| packets(&end.socket.reasons, reason) - packets(&start.socket.reasons, reason);
    assert_eq!(
        packets(&end.interfaces[0].workers[0].reasons, Reason::NackRange),
        2
    );
    assert_eq!(risen(Reason::FetchStarted), 2);
    assert_eq!(risen(Reason::Negative), 1);
    assert_eq!(risen(Reason::OriginFailed), 1);
    assert_eq!(end.origin.fetches_total - start.origin.fetches_total, 2);

    // A failure is not believed for long: a second later the origin is asked again.
    fs::remove_file(&damaged.chunks[0]).unwrap();
    wait::pause(Duration::from_millis(1100));
    ask(id, 1);
    assert_eq!(refusal(&id), (NackCode::Pending, 250));
    assert_eq!(refusal(&id), (NackCode::Absent, 0));
    edged.stop();
}

#[test]
fn one_source_that_asks_for_chunks_nobody_has_keeps_no_other_from_what_is_cold() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let objects = ["first", "second"].map(|name| Object::seal(&testbed, name, 3_000_000));
    let edged = Edged::start(&testbed, &settings(&testbed, "gso"));
    let edge = testbed.service_v4();
    let reader = &testbed.reader;
    let own = Ipv4Addr::new(10, 71, 0, 9);
    let add = format!("address add {own}/24 dev {}", reader.link);
    reader.ip(&add).unwrap();
    let greedy = Client::greet(reader, own, edge).unwrap();
    let begin = clock::now();
    let mut absent = absent(0..10_000);
    for object in &objects {
        greedy.ask(1, absent.by_ref().take(5000)).unwrap();
        object.fetch(&testbed, edge);
    }
    let origin = edged.settled().origin;
    let limit = f64::from(SOURCE_FETCHES)
        + begin.elapsed().as_secs_f64() / SOURCE_FETCH_EVERY.as_secs_f64();
    let chunks: usize = objects.iter().map(|object| object.chunks.len()).sum();
    #[expect(clippy::cast_precision_loss, reason = "some thousands")]
    let absent = (origin.fetches_total - chunks as u64) as f64;
    assert!(absent <= limit, "{absent} fetches, and not {limit}");
    assert!(origin.source_limited_total > 1000, "{origin:?}");
    // That source too is served again, within its share.
    wait::pause(Duration::from_millis(100));
    while greedy.socket.set_nonblocking(true).is_ok() && greedy.socket.recv(&mut [0; 2048]).is_ok()
    {
    }
    greedy.socket.set_nonblocking(false).unwrap();
    let id = ChunkId([0xdd; 32]);
    greedy.ask(1, [id]).unwrap();
    assert_eq!(refusal(&greedy, &id), (NackCode::Pending, 250));
    edged.stop();
}
