//! Socket, clock and threads of a transfer. The caller's thread exchanges datagrams with the edge; a
//! second one verifies chunks and passes them to the sink.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rand::TryRng;
use rand::rngs::SysRng;

use super::channel::Channel;
use super::connect::{Connected, connect};
use super::failure::Failure;
use super::fetch_order::Wanted;
use super::handshake::DATAGRAM_BYTES_MAX;
use super::socket::ReceiveBuffers;
use super::stop::Stop;
use super::transfer::{Action, Complete, Stats, Transfer};
use crate::event_fd::EventFd;
use crate::object::ticket::PublicTicket;
use crate::object::tree::Verified;
use crate::spawn;

/// Consecutive receive calls before the next send.
const RECEIVES_MAX: u32 = 8;

/// Consumes verified data chunks, in almost their order.
pub trait Sink: Send {
    /// Called with a range of bytes once the ids of its chunks are known.
    fn expect(&mut self, _bytes: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    /// Returns the memory of the chunk.
    fn take(&mut self, index: u64, chunk: Verified) -> io::Result<Vec<u8>>;
}

/// The only clock of a transfer.
struct Clock(Instant);

impl Clock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// For the thread with the sink.
enum Task {
    Expect(Range<u64>),
    Verify(Complete),
}

/// Outcome for a data chunk.
enum Outcome {
    Used(Wanted, Vec<u8>),
    Corrupt(Complete),
    Failed(io::Error),
}

/// Fetches an object into a sink, from the first of the edge's addresses that answers. Returns that
/// address, too.
pub fn fetch(
    edges: &[SocketAddr],
    ticket: &PublicTicket,
    sink: &mut impl Sink,
    stop: &Stop,
    timeout: Option<Duration>,
) -> Result<(Stats, Option<SocketAddr>), Failure> {
    if ticket.shape().root().is_none() {
        // The empty object needs no edge.
        return Ok((Stats::default(), None));
    }
    let mut seed = [0; 32];
    SysRng
        .try_fill_bytes(&mut seed)
        .map_err(|error| Failure::Socket {
            action: "cannot get random numbers",
            source: io::Error::other(error),
        })?;
    thread::scope(|scope| {
        // Bounded by the buffers of the transfer: each entry holds one, or belongs to one of the 64
        // index chunks that list data.
        let (tasks_in, tasks) = channel();
        let (to_transfer, outcomes) = channel();
        thread::Builder::new()
            .spawn_scoped(scope, move || {
                verify(&tasks, &to_transfer, sink, stop.wakeup());
            })
            .map_err(|error| Failure::Thread(spawn::refused(error)))?;
        let Connected {
            edge,
            rtt,
            start,
            channel,
            handshake,
        } = connect(edges, timeout, stop)?;
        let mut transfer = Transfer::new(ticket, seed, timeout);
        transfer.connected(handshake, rtt, channel.capacity_segments());
        let driver = Driver {
            channel,
            transfer,
            received_until: Duration::ZERO,
            clock: Clock(start),
            tasks: tasks_in,
            outcomes,
            stop,
        };
        Ok((driver.run()?, Some(edge)))
    })
}

fn verify(
    tasks: &Receiver<Task>,
    to_transfer: &Sender<Outcome>,
    sink: &mut impl Sink,
    wakeup: &EventFd,
) {
    for task in tasks {
        let complete = match task {
            Task::Verify(complete) => complete,
            Task::Expect(bytes) => match sink.expect(bytes) {
                Ok(()) => continue,
                Err(error) => {
                    let (Ok(()) | Err(_)) = to_transfer.send(Outcome::Failed(error));
                    wakeup.wake();
                    return;
                }
            },
        };
        let outcome = match complete.verify() {
            Err(complete) => Outcome::Corrupt(complete),
            Ok((wanted, verified)) => match sink.take(wanted.place.index, verified) {
                Ok(buffer) => Outcome::Used(wanted, buffer),
                Err(error) => Outcome::Failed(error),
            },
        };
        if to_transfer.send(outcome).is_err() {
            // The transfer has ended.
            return;
        }
        wakeup.wake();
    }
}

struct Driver<'a> {
    channel: Channel,
    transfer: Transfer,
    /// Datagrams that arrived before this were handled.
    received_until: Duration,
    clock: Clock,
    tasks: Sender<Task>,
    outcomes: Receiver<Outcome>,
    stop: &'a Stop,
}

impl Driver<'_> {
    fn run(mut self) -> Result<Stats, Failure> {
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let mut receive_buffers = ReceiveBuffers::default();
        loop {
            if self.stop.requested().load(Ordering::Relaxed) {
                return Err(Failure::Interrupted);
            }
            self.take_outcomes()?;
            let now = self.clock.now();
            match self.transfer.act(now, self.received_until, &mut out) {
                Action::Open => match self.channel.open()? {
                    Some(capacity_segments) => self.transfer.opened(capacity_segments),
                    None => self.transfer.send_failed(self.clock.now()),
                },
                Action::Send(len_bytes) => {
                    if !self.channel.send(&out[..len_bytes])? {
                        self.transfer.send_failed(self.clock.now());
                    }
                }
                Action::Verify(complete) => self.verify(complete),
                Action::Wait(until) => self.wait(until, &mut receive_buffers),
                Action::Done => return Ok(self.transfer.stats()),
                Action::Failed(failure) => return Err(self.channel.explain(failure, true)),
            }
        }
    }

    fn take_outcomes(&mut self) -> Result<(), Failure> {
        while let Ok(outcome) = self.outcomes.try_recv() {
            match outcome {
                Outcome::Used(wanted, buffer) => self.transfer.accept_data(&wanted, buffer),
                Outcome::Corrupt(complete) => self.transfer.reject(complete),
                Outcome::Failed(error) => return Err(Failure::Sink(error)),
            }
        }
        Ok(())
    }

    fn verify(&mut self, complete: Complete) {
        if complete.wanted().place.level == 0 {
            self.hand_over(Task::Verify(complete));
            return;
        }
        // Index chunks are few, and the next requests depend on them.
        match complete.verify() {
            Ok((wanted, verified)) => {
                let listed = self.transfer.shape().bytes_listed(wanted.place);
                if !listed.is_empty() {
                    self.hand_over(Task::Expect(listed));
                }
                self.transfer.accept_index(&wanted, verified);
            }
            Err(complete) => self.transfer.reject(complete),
        }
    }

    fn hand_over(&self, task: Task) {
        // Fails only after the other thread has ended, which then has sent an outcome.
        drop(self.tasks.send(task));
    }

    fn wait(&mut self, until: Duration, receive_buffers: &mut ReceiveBuffers) {
        let timeout = until.saturating_sub(self.clock.now());
        self.channel.wait(self.stop.wakeup(), timeout);
        for _ in 0..RECEIVES_MAX {
            let (now, transfer) = (self.clock.now(), &mut self.transfer);
            if !self.channel.receive(receive_buffers, |datagram| {
                transfer.on_datagram(now, datagram);
            }) {
                self.received_until = now;
                break;
            }
        }
    }
}
