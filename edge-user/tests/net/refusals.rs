//! What a GET is refused with, datagram by datagram, in both ways in.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, UdpSocket};
use std::time::Duration;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{ChunkId, Cookie, Get, HELLO_BYTES_MIN, Hello, Nack, NackCode, Welcome};

use edge_user::clock;
use edge_user::counters::packets;
use edge_user::limits::{SOURCE_FETCH_EVERY, SOURCE_FETCHES};

use crate::daemon::{Edged, settings};
use crate::ground::{Ground, ip};
use crate::objects::Object;
use crate::wait;

/// A reader that asks for one thing at a time.
struct Asker {
    socket: UdpSocket,
    cookie: Cookie,
}

impl Asker {
    fn greet(ground: &Ground, edge: SocketAddr) -> Self {
        Self::greet_from(ground, Ipv4Addr::UNSPECIFIED, edge)
    }

    fn greet_from(ground: &Ground, source: Ipv4Addr, edge: SocketAddr) -> Self {
        let socket = ground
            .reader
            .enter(|| {
                let socket = UdpSocket::bind((source, 0)).unwrap();
                socket.connect(edge).unwrap();
                socket
            })
            .unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(2)))
            .unwrap();
        let mut hello = Hello {
            nonce: *b"refusals",
        }
        .encode()
        .to_vec();
        hello.resize(HELLO_BYTES_MIN, 0);
        socket.send(&hello).unwrap();
        let mut answer = [0; 2048];
        let len = socket.recv(&mut answer).unwrap();
        assert_eq!(len, hello.len());
        let welcome = Welcome::decode(answer.first_chunk().unwrap()).unwrap();
        assert_eq!(welcome.nonce, *b"refusals");
        Self {
            socket,
            cookie: welcome.cookie,
        }
    }

    fn ask(&self, id: ChunkId, want: u128) {
        let get = Get {
            cookie: self.cookie,
            id,
            want,
        };
        self.socket.send(&get.encode()).unwrap();
    }

    /// The next NACK, which must be an answer to this GET.
    fn refusal(&self, id: &ChunkId) -> (NackCode, u32) {
        let mut datagram = [0; 2048];
        let len = self.socket.recv(&mut datagram).unwrap();
        assert_eq!(len, 24, "a NACK");
        let nack = Nack::decode(datagram.first_chunk().unwrap()).unwrap();
        assert_eq!((nack.tag, nack.echo), (id.tag(), self.cookie.value));
        (nack.code, nack.retry_ms)
    }
}

with_each_sender!(what_cannot_be_had_is_refused_by_code_and_not_asked_of_the_origin_again);

fn what_cannot_be_had_is_refused_by_code_and_not_asked_of_the_origin_again(sender: &'static str) {
    let Some(ground) = Ground::new() else { return };
    let here = Object::seal(&ground, "here", 200_000);
    let damaged = Object::seal(&ground, "damaged", 100_000);
    fs::write(&damaged.chunks[0], b"something else").unwrap();
    let edged = Edged::start(&ground, &settings(&ground, sender));
    here.fetch(&ground, ground.service_v4());
    let start = edged.settled();
    let asker = Asker::greet(&ground, ground.service_v4());

    // By the program's way: the chunk is resident, the segments do not exist.
    let id = here.chunk_id();
    for want in [0, 1 << 127] {
        asker.ask(id, want);
        assert_eq!(asker.refusal(&id), (NackCode::Range, 0));
    }
    // By the kernel's way: at first it may come, then it is known that it does not.
    let absent = ChunkId([0xee; 32]);
    asker.ask(absent, 1);
    assert_eq!(asker.refusal(&absent), (NackCode::Pending, 250));
    assert_eq!(asker.refusal(&absent), (NackCode::Absent, 0));
    asker.ask(absent, 1);
    assert_eq!(asker.refusal(&absent), (NackCode::Absent, 0));
    let id = damaged.chunk_id();
    asker.ask(id, 1);
    assert_eq!(asker.refusal(&id), (NackCode::Pending, 250));
    assert_eq!(asker.refusal(&id), (NackCode::Origin, 1000));
    asker.ask(id, 1);
    assert_eq!(asker.refusal(&id), (NackCode::Origin, 1000));

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
    asker.ask(id, 1);
    assert_eq!(asker.refusal(&id), (NackCode::Pending, 250));
    assert_eq!(asker.refusal(&id), (NackCode::Absent, 0));
    edged.stop();
}

#[test]
fn one_source_that_asks_for_chunks_nobody_has_keeps_no_other_from_what_is_cold() {
    let Some(ground) = Ground::new() else { return };
    let objects = ["first", "second"].map(|name| Object::seal(&ground, name, 3_000_000));
    let edged = Edged::start(&ground, &settings(&ground, "gso"));
    let edge = ground.service_v4();
    let reader = &ground.reader;
    let own = Ipv4Addr::new(10, 71, 0, 9);
    let add = [
        "-n",
        &reader.namespace,
        "address",
        "add",
        "10.71.0.9/24",
        "dev",
    ];
    ip(&[&add[..], &[reader.link]].concat());
    let greedy = Asker::greet_from(&ground, own, edge);
    let begin = clock::now();
    let mut absent = (0_u64..).map(|number| {
        let mut id = [0xee; 32];
        id[..8].copy_from_slice(&number.to_be_bytes());
        ChunkId(id)
    });
    let mut flood = |count: usize| {
        for id in absent.by_ref().take(count) {
            greedy.ask(id, 1);
            // No faster than they are read.
            if id.0[7] % 32 == 0 {
                wait::pause(Duration::from_millis(1));
            }
        }
    };
    for object in &objects {
        flood(5000);
        object.fetch(&ground, edge);
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
    greedy.ask(id, 1);
    assert_eq!(greedy.refusal(&id), (NackCode::Pending, 250));
    edged.stop();
}
