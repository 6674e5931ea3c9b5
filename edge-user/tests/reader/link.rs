//! A path with loss, duplication and reordering, in virtual time: no clock, no socket, no thread.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;
use std::time::Duration;

use edge_ebpf::wire::{ChunkId, Kind};
use edge_user::client::drive::Sink;
use edge_user::client::failure::Failure;
use edge_user::client::handshake::DATAGRAM_BYTES_MAX;
use edge_user::client::transfer::{Action, Complete, Stats, Transfer};
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::edge::Edge;
use crate::object::{Memory, Object};

/// What the path does, each way.
#[derive(Clone)]
pub(crate) struct Path {
    pub(crate) delay: Duration,
    /// Up to this much more, for each datagram anew: that reorders.
    pub(crate) jitter: Duration,
    pub(crate) loss: f64,
    pub(crate) repeats: f64,
    /// How fast the edge's end puts datagrams on it; the rest waits in a queue.
    pub(crate) bytes_per_second: u64,
    /// What waits in that queue beyond this is lost.
    pub(crate) queue_bytes: u64,
    /// What it sends at once after a pause (a token bucket).
    pub(crate) burst_bytes: u64,
    /// Whether a WELCOME is sent past the queue, as by an XDP program.
    pub(crate) past_queue: bool,
    /// While the client's interface is down, the network refuses its sockets and datagrams.
    pub(crate) down: Range<Duration>,
    /// While the network in between is out, nothing gets through either way.
    pub(crate) out: Range<Duration>,
    /// How long the client is told to wait.
    pub(crate) timeout: Option<Duration>,
}

impl Default for Path {
    fn default() -> Self {
        Self {
            delay: Duration::from_millis(10),
            jitter: Duration::ZERO,
            loss: 0.0,
            repeats: 0.0,
            bytes_per_second: 125_000_000,
            queue_bytes: u64::MAX,
            burst_bytes: 0,
            past_queue: false,
            down: Duration::ZERO..Duration::ZERO,
            out: Duration::ZERO..Duration::ZERO,
            timeout: None,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum End {
    Edge,
    Client,
    /// Not a datagram: the edge's origin has given a chunk.
    Origin(ChunkId),
}

/// When, in which order among equals, to whom, from or to which port, what.
type Event = Reverse<(Duration, u64, End, u16, Vec<u8>)>;

pub(crate) struct Outcome {
    pub(crate) result: Result<Stats, Failure>,
    pub(crate) plaintext: Vec<u8>,
    pub(crate) took: Duration,
}

struct Link {
    path: Path,
    random: StdRng,
    events: BinaryHeap<Event>,
    sequence: u64,
    busy_until: Duration,
}

impl Link {
    fn put(&mut self, at: Duration, end: End, port: u16, datagram: &[u8]) {
        let copies = if self.random.random_bool(self.path.repeats) {
            2
        } else {
            1
        };
        for _ in 0..copies {
            if self.random.random_bool(self.path.loss) || self.path.out.contains(&at) {
                continue;
            }
            let at = at + self.path.delay + self.path.jitter.mul_f64(self.random.random());
            self.sequence += 1;
            self.events
                .push(Reverse((at, self.sequence, end, port, datagram.to_vec())));
        }
    }
}

impl Link {
    /// From the edge, one datagram after the other.
    fn transmit(&mut self, now: Duration, port: u16, datagram: &[u8]) {
        if self.path.past_queue && datagram[1] & 0x0f == Kind::Welcome as u8 {
            return self.put(now, End::Client, port, datagram);
        }
        let rate = self.path.bytes_per_second;
        // With the headers of IPv4, UDP and Ethernet.
        let on_wire = datagram.len() as u64 + 42;
        let waits = self.busy_until.saturating_sub(now).as_nanos();
        let queued = waits * u128::from(rate) / 1_000_000_000;
        if queued + u128::from(on_wire) > self.path.queue_bytes.into() {
            return;
        }
        let nanoseconds = on_wire * 1_000_000_000 / rate;
        let burst = Duration::from_nanos(self.path.burst_bytes * 1_000_000_000 / rate);
        self.busy_until =
            self.busy_until.max(now.saturating_sub(burst)) + Duration::from_nanos(nanoseconds);
        self.put(self.busy_until.max(now), End::Client, port, datagram);
    }
}

/// What the driver's second thread does.
fn check(complete: Complete, transfer: &mut Transfer, sink: &mut Memory<'_>) {
    match complete.verify() {
        Err(complete) => transfer.reject(complete),
        Ok((wanted, chunk)) if wanted.place.level > 0 => transfer.accept_index(&wanted, chunk),
        Ok((wanted, chunk)) => {
            let buffer = sink.take(wanted.place.index, chunk).unwrap();
            transfer.accept_data(&wanted, buffer);
        }
    }
}

/// Fetches an object over a path, and opens what was accepted.
pub(crate) fn fetch(object: &Object, edge: &mut Edge, path: Path, seed: u8) -> Outcome {
    let timeout = path.timeout;
    let mut link = Link {
        path,
        random: StdRng::from_seed([seed; 32]),
        events: BinaryHeap::new(),
        sequence: 0,
        busy_until: Duration::ZERO,
    };
    let mut sink = Memory::new(object);
    let mut transfer = Transfer::new(object.ticket.public(), [seed ^ 0xff; 32], timeout);
    let mut out = [0; DATAGRAM_BYTES_MAX];
    let (mut now, mut port) = (Duration::ZERO, 40_000);
    let result = loop {
        assert!(
            now < Duration::from_mins(20),
            "the transfer does not come to an end"
        );
        match transfer.act(now, now, &mut out) {
            Action::Open | Action::Send(_) if link.path.down.contains(&now) => {
                transfer.send_failed(now);
            }
            Action::Open => {
                port += 1;
                transfer.opened(4000);
            }
            Action::Send(len) => link.put(now, End::Edge, port, &out[..len]),
            Action::Verify(complete) => check(complete, &mut transfer, &mut sink),
            Action::Wait(until) => {
                assert!(until > now, "a wait that is no wait");
                match link.events.peek() {
                    Some(Reverse((at, ..))) if *at <= until => {}
                    Some(_) | None => {
                        now = until;
                        continue;
                    }
                }
                let Reverse((at, _, end, from_port, datagram)) = link.events.pop().unwrap();
                now = now.max(at);
                match end {
                    // What comes for a port that was left is heard by nobody.
                    End::Client if from_port == port && !link.path.down.contains(&now) => {
                        transfer.on_datagram(now, &datagram);
                    }
                    End::Client => {}
                    End::Edge => {
                        for answer in edge.answer(from_port, &datagram) {
                            link.transmit(now, from_port, &answer);
                        }
                        for id in edge.began.drain(..) {
                            let at = now + edge.faults.fill;
                            link.events
                                .push(Reverse((at, 0, End::Origin(id), 0, Vec::new())));
                        }
                    }
                    End::Origin(id) => {
                        for (port, answer) in edge.fill(id) {
                            link.transmit(now, port, &answer);
                        }
                    }
                }
            }
            Action::Done => break Ok(transfer.stats()),
            Action::Failed(failure) => break Err(failure),
        }
    };
    Outcome {
        result,
        plaintext: sink.plaintext(),
        took: now,
    }
}
