//! What a GET is refused with, datagram by datagram, in both ways in.

use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{ChunkId, Cookie, Get, HELLO_BYTES_MIN, Hello, Nack, NackCode, Welcome};

use edge_user::counters::packets;

use crate::daemon::{Edged, Setup};
use crate::ground::Ground;
use crate::objects::Object;
use crate::wait;

/// A reader that asks for one thing at a time.
struct Asker {
    socket: UdpSocket,
    cookie: Cookie,
}

impl Asker {
    fn greet(ground: &Ground, edge: SocketAddr) -> Self {
        let socket = ground.reader.enter(|| {
            let socket = UdpSocket::bind("0.0.0.0:0").unwrap();
            socket.connect(edge).unwrap();
            socket
        });
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
    let edged = Edged::start(&ground, &Setup::of(&ground, sender));
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
    assert_eq!(packets(&end.workers[0].reasons, Reason::NackRange), 2);
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
