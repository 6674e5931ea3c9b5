//! Transfers over sockets.

use std::net::{SocketAddr, UdpSocket};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use edge_user::client::drive::{Sink, fetch};
use edge_user::client::failure::{Failure, Unexpected};
use edge_user::client::ping::ping;
use edge_user::client::stop::Stop;
use edge_user::object::tree::Verified;

use crate::edge::{Edge, Faults};
use crate::object::{Memory, Object};

/// An edge on a socket of its own, until it is dropped.
pub(crate) struct Serving {
    pub(crate) address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<Edge>>,
}

impl Serving {
    pub(crate) fn start(local: &str, mut edge: Edge) -> Self {
        let socket = UdpSocket::bind(local).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_millis(20)))
            .unwrap();
        let address = socket.local_addr().unwrap();
        let stop = Arc::new(AtomicBool::new(false));
        let asked = Arc::clone(&stop);
        let thread = thread::spawn(move || {
            let mut buffer = [0; 2048];
            while !asked.load(Ordering::Relaxed) {
                let Ok((len, client)) = socket.recv_from(&mut buffer) else {
                    continue;
                };
                for answer in edge.answer(client.port(), &buffer[..len]) {
                    socket.send_to(&answer, client).unwrap();
                }
            }
            edge
        });
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// Ends it, and gives the edge back to be asked what it saw.
    pub(crate) fn stop(mut self) -> Edge {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.take().unwrap().join().unwrap()
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

fn succeeds(object: &Object, local: &str, faults: Faults) -> Edge {
    let serving = Serving::start(local, Edge::new(object.chunks.clone(), faults));
    let mut sink = Memory::new(object);
    let stop = Stop::new().unwrap();
    let (stats, answered) = fetch(
        &[serving.address],
        object.ticket.public(),
        &mut sink,
        &stop,
        None,
    )
    .unwrap();
    assert_eq!(answered, Some(serving.address));
    assert_eq!(stats.chunks, object.chunks.len() as u64);
    assert!(
        sink.plaintext() == object.plaintext,
        "other bytes came out than went in"
    );
    serving.stop()
}

fn fails(object: &Object, edge: SocketAddr) -> Failure {
    let mut sink = Memory::new(object);
    fetch(
        &[edge],
        object.ticket.public(),
        &mut sink,
        &Stop::new().unwrap(),
        None,
    )
    .unwrap_err()
}

#[test]
fn an_object_is_fetched_over_ipv4_and_ipv6() {
    let object = Object::sealed(3_000_001);
    for local in ["127.0.0.1:0", "[::1]:0"] {
        succeeds(&object, local, Faults::default());
    }
}

#[test]
fn an_altered_chunk_is_fetched_again_from_another_port() {
    let object = Object::sealed(600_000);
    let faults = Faults {
        altered: [(object.data_id(1), 1)].into(),
        ..Faults::default()
    };
    assert_eq!(succeeds(&object, "127.0.0.1:0", faults).ports.len(), 2);
}

#[test]
fn a_chunk_altered_twice_blames_the_edge() {
    let object = Object::sealed(600_000);
    let faults = Faults {
        altered: [(object.data_id(1), 2)].into(),
        ..Faults::default()
    };
    let serving = Serving::start("127.0.0.1:0", Edge::new(object.chunks.clone(), faults));
    assert!(matches!(
        fails(&object, serving.address),
        Failure::Corrupt(_)
    ));
}

#[test]
fn a_port_where_nothing_listens_is_reported() {
    let object = Object::sealed(1000);
    let nobody = UdpSocket::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap();
    assert!(matches!(fails(&object, nobody), Failure::ConnectionRefused));
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    assert!(matches!(
        fails(&object, silent.local_addr().unwrap()),
        Failure::Unanswered
    ));
}

#[test]
fn the_first_of_several_addresses_that_answers_is_used_and_dead_ones_cost_little() {
    let object = Object::sealed(600_000);
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (silent, other) = (bind(), bind());
    let dead = [&silent, &other].map(|socket| socket.local_addr().unwrap());
    let nobody = bind().local_addr().unwrap();
    let serving = Serving::start(
        "127.0.0.1:0",
        Edge::new(object.chunks.clone(), Faults::default()),
    );
    let edges = [dead[0], nobody, dead[1], serving.address];
    let (mut sink, stop) = (Memory::new(&object), Stop::new().unwrap());
    let began = edge_user::clock::now();
    let fetched = fetch(&edges, object.ticket.public(), &mut sink, &stop, None);
    assert_eq!(fetched.unwrap().1, Some(serving.address));
    assert!(sink.plaintext() == object.plaintext);
    assert!(began.elapsed() < Duration::from_secs(5));
    let pong = ping(&edges, &stop).unwrap();
    assert_eq!(pong.edge, serving.address);
}

#[test]
fn where_no_address_answers_each_is_named_with_what_it_did() {
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap();
    let nobody: SocketAddr = {
        let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
        socket.local_addr().unwrap()
    };
    let stop = Stop::new().unwrap();
    let failure = ping(&[address, nobody], &stop).err().unwrap().to_string();
    assert!(
        failure.contains(&format!("{address}: the edge does not answer")),
        "{failure}"
    );
    assert!(
        failure.contains(&format!("{nobody}: nothing listens")),
        "{failure}"
    );
}

/// Something that is no edge: what it answers to a HELLO, and whether from another port.
fn fails_at(answer: impl Fn(&[u8]) -> Vec<u8> + Sync, elsewhere: bool) -> (Failure, SocketAddr) {
    let object = Object::sealed(1000);
    let bind = || UdpSocket::bind("127.0.0.1:0").unwrap();
    let (asked, other) = (bind(), bind());
    let timeout = Duration::from_millis(20);
    asked.set_read_timeout(Some(timeout)).unwrap();
    let (edge, from) = (asked.local_addr().unwrap(), other.local_addr().unwrap());
    let stop = AtomicBool::new(false);
    let failure = thread::scope(|scope| {
        scope.spawn(|| {
            let mut buffer = [0; 2048];
            while !stop.load(Ordering::Relaxed) {
                if let Ok((len, client)) = asked.recv_from(&mut buffer) {
                    let socket = if elsewhere { &other } else { &asked };
                    socket.send_to(&answer(&buffer[..len]), client).unwrap();
                }
            }
        });
        let failure = fails(&object, edge);
        let pinged = ping(&[edge], &Stop::new().unwrap()).err().unwrap();
        assert_eq!(failure.to_string(), pinged.to_string());
        stop.store(true, Ordering::Relaxed);
        failure
    });
    (failure, from)
}

fn welcome(hello: &[u8]) -> Vec<u8> {
    let object = Object::sealed(0);
    let mut edge = Edge::new(object.chunks, Faults::default());
    edge.answer(1, hello).remove(0)
}

#[test]
fn replies_that_are_no_welcome_are_reported() {
    let (echo, _) = fails_at(<[u8]>::to_vec, false);
    let no_welcome = Unexpected::NotWelcome { bytes: 1232 };
    assert!(matches!(echo, Failure::Unexpected(what) if what == no_welcome));
    let (cut, _) = fails_at(|hello| welcome(hello)[..1000].to_vec(), false);
    let (sent, received) = (1232, 1000);
    let cut_off = Unexpected::LengthMismatch { sent, received };
    assert!(matches!(cut, Failure::Unexpected(what) if what == cut_off));
}

#[test]
fn replies_from_another_address_are_reported_and_ignored() {
    let (failure, other) = fails_at(welcome, true);
    assert!(matches!(failure, Failure::Misrouted(from) if from == other));
}

#[test]
fn a_running_transfer_can_be_stopped_from_another_thread() {
    let object = Object::sealed(1000);
    let silent = UdpSocket::bind("127.0.0.1:0").unwrap();
    let stop = Stop::new().unwrap();
    let outcome = thread::scope(|scope| {
        scope.spawn(|| stop.stop());
        let mut sink = Memory::new(&object);
        fetch(
            &[silent.local_addr().unwrap()],
            object.ticket.public(),
            &mut sink,
            &stop,
            None,
        )
    });
    assert!(matches!(outcome, Err(Failure::Interrupted)));
}

#[test]
fn a_sink_that_fails_ends_the_transfer() {
    struct Full;
    impl Sink for Full {
        fn take(&mut self, _: u64, _: Verified) -> std::io::Result<Vec<u8>> {
            Err(std::io::Error::other("no room"))
        }
    }
    let object = Object::sealed(600_000);
    let edge = Edge::new(object.chunks.clone(), Faults::default());
    let serving = Serving::start("127.0.0.1:0", edge);
    let stop = Stop::new().unwrap();
    let failure = fetch(
        &[serving.address],
        object.ticket.public(),
        &mut Full,
        &stop,
        None,
    )
    .unwrap_err();
    assert!(matches!(failure, Failure::Sink(_)), "{failure}");
}

#[test]
fn a_sink_expects_what_a_checked_index_chunk_lists_and_nothing_a_ticket_claims() {
    #[derive(Default)]
    struct Expecting(Vec<Range<u64>>);
    impl Sink for Expecting {
        fn expect(&mut self, bytes: Range<u64>) -> std::io::Result<()> {
            self.0.push(bytes);
            Ok(())
        }

        fn take(&mut self, _: u64, chunk: Verified) -> std::io::Result<Vec<u8>> {
            assert_eq!(self.0.as_slice(), std::slice::from_ref(&(0..600_000)));
            Ok(chunk.into_bytes())
        }
    }
    let object = Object::sealed(600_000);
    for altered in [0, 2] {
        let faults = Faults {
            altered: [(object.ticket.public().root(), altered)].into(),
            ..Faults::default()
        };
        let serving = Serving::start("127.0.0.1:0", Edge::new(object.chunks.clone(), faults));
        let mut sink = Expecting::default();
        let stop = Stop::new().unwrap();
        let outcome = fetch(
            &[serving.address],
            object.ticket.public(),
            &mut sink,
            &stop,
            None,
        );
        assert_eq!(outcome.is_ok(), altered == 0);
        assert_eq!(sink.0.len(), usize::from(altered == 0));
    }
}

#[test]
fn ping_measures_the_round_trip_time_and_returns_the_session() {
    let object = Object::sealed(1);
    let faults = Faults {
        segment_bytes: 1400,
        max_burst: 40,
        ..Faults::default()
    };
    let serving = Serving::start("127.0.0.1:0", Edge::new(object.chunks, faults));
    let pong = ping(&[serving.address], &Stop::new().unwrap()).unwrap();
    assert_eq!(
        (pong.session.segment_bytes, pong.session.max_burst),
        (1400, 40)
    );
    assert!(pong.rtt < Duration::from_secs(1));
}
