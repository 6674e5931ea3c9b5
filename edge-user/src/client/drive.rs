//! Socket, clock and threads around a transfer. The caller's thread talks to the edge; a second
//! one checks chunks and hands them to the sink, so that neither waits for the other.

use std::io;
use std::net::SocketAddr;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use rand::TryRng;
use rand::rngs::SysRng;

use super::failure::Failure;
use super::greeting::DATAGRAM_BYTES_MAX;
use super::line::Line;
use super::reach::{Reached, reach};
use super::socket::{Bell, Inbox};
use super::stop::Stop;
use super::transfer::{Action, Complete, Cost, Transfer};
use super::walk::Wanted;
use crate::object::tree::Verified;
use crate::seal::ticket::PublicTicket;
use crate::spawn;

/// Receive calls in a row before requests get their turn.
const RECEIVES_MAX: u32 = 8;

/// Where checked data chunks go, in nearly their order.
pub trait Sink: Send {
    /// Is told which bytes of the object will come, once their ids are known and before they do.
    fn expect(&mut self, _bytes: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    /// Uses the data chunk with this index; gives its memory back.
    fn take(&mut self, index: u64, chunk: Verified) -> io::Result<Vec<u8>>;
}

/// The only clock of a transfer.
struct Clock(Instant);

impl Clock {
    fn now(&self) -> Duration {
        self.0.elapsed()
    }
}

/// For the thread that has the sink.
enum Task {
    Expect(Range<u64>),
    Check(Complete),
}

/// What became of a data chunk.
enum Checked {
    Used(Wanted, Vec<u8>),
    Altered(Complete),
    Failed(io::Error),
}

/// Fetches an object into a sink, from the first of an edge's addresses that answers; gives the
/// address, too.
pub fn fetch(
    edges: &[SocketAddr],
    ticket: &PublicTicket,
    sink: &mut impl Sink,
    stop: &Stop,
    patience: Option<Duration>,
) -> Result<(Cost, Option<SocketAddr>), Failure> {
    if ticket.shape().root().is_none() {
        // The empty object is read without asking anybody.
        return Ok((Cost::default(), None));
    }
    let mut seed = [0; 32];
    SysRng
        .try_fill_bytes(&mut seed)
        .map_err(|error| Failure::Socket {
            action: "cannot get random numbers",
            source: io::Error::other(error),
        })?;
    thread::scope(|scope| {
        // Neither queue can grow beyond the transfer's buffers: each entry holds one of them, or
        // came with one of the 64 index chunks that list data.
        let (tasks_in, tasks) = channel();
        let (to_transfer, checked) = channel();
        thread::Builder::new()
            .spawn_scoped(scope, move || {
                check(&tasks, &to_transfer, sink, stop.bell());
            })
            .map_err(|error| Failure::Thread(spawn::refused(error)))?;
        let Reached {
            edge,
            rtt,
            start,
            line,
            greeting,
        } = reach(edges, patience, stop)?;
        let mut transfer = Transfer::new(ticket, seed, patience);
        transfer.greeted(greeting, rtt, line.segments_held());
        let driver = Driver {
            line,
            transfer,
            heard_until: Duration::ZERO,
            clock: Clock(start),
            tasks: tasks_in,
            checked,
            stop,
        };
        Ok((driver.run()?, Some(edge)))
    })
}

fn check(tasks: &Receiver<Task>, to_transfer: &Sender<Checked>, sink: &mut impl Sink, bell: &Bell) {
    for task in tasks {
        let complete = match task {
            Task::Check(complete) => complete,
            Task::Expect(bytes) => match sink.expect(bytes) {
                Ok(()) => continue,
                Err(error) => {
                    let (Ok(()) | Err(_)) = to_transfer.send(Checked::Failed(error));
                    bell.ring();
                    return;
                }
            },
        };
        let outcome = match complete.check() {
            Err(complete) => Checked::Altered(complete),
            Ok((wanted, verified)) => match sink.take(wanted.place.index, verified) {
                Ok(buffer) => Checked::Used(wanted, buffer),
                Err(error) => Checked::Failed(error),
            },
        };
        if to_transfer.send(outcome).is_err() {
            // The transfer has ended, for whatever reason; it tells the user.
            return;
        }
        bell.ring();
    }
}

struct Driver<'a> {
    line: Line,
    transfer: Transfer,
    /// What came before this moment was heard.
    heard_until: Duration,
    clock: Clock,
    tasks: Sender<Task>,
    checked: Receiver<Checked>,
    stop: &'a Stop,
}

impl Driver<'_> {
    fn run(mut self) -> Result<Cost, Failure> {
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let mut inbox = Inbox::default();
        loop {
            if self.stop.asked().load(Ordering::Relaxed) {
                return Err(Failure::Interrupted);
            }
            self.take_back()?;
            let now = self.clock.now();
            match self.transfer.act(now, self.heard_until, &mut out) {
                Action::Open => match self.line.open()? {
                    Some(segments_held) => self.transfer.opened(segments_held),
                    None => self.transfer.unsent(self.clock.now()),
                },
                Action::Send(len_bytes) => {
                    if !self.line.send(&out[..len_bytes])? {
                        self.transfer.unsent(self.clock.now());
                    }
                }
                Action::Check(complete) => self.check(complete),
                Action::Wait(until) => self.wait(until, &mut inbox),
                Action::Done => return Ok(self.transfer.cost()),
                Action::Failed(failure) => return Err(self.line.explain(failure, true)),
            }
        }
    }

    fn take_back(&mut self) -> Result<(), Failure> {
        while let Ok(checked) = self.checked.try_recv() {
            match checked {
                Checked::Used(wanted, buffer) => self.transfer.accept(&wanted, buffer),
                Checked::Altered(complete) => self.transfer.reject(complete),
                Checked::Failed(error) => return Err(Failure::Sink(error)),
            }
        }
        Ok(())
    }

    fn check(&mut self, complete: Complete) {
        if complete.wanted().place.level == 0 {
            self.hand_over(Task::Check(complete));
            return;
        }
        // Index chunks are few, and the next requests depend on them.
        match complete.check() {
            Ok((wanted, verified)) => {
                let listed = self.transfer.shape().bytes_listed(wanted.place);
                if !listed.is_empty() {
                    self.hand_over(Task::Expect(listed));
                }
                self.transfer.learn(&wanted, verified);
            }
            Err(complete) => self.transfer.reject(complete),
        }
    }

    fn hand_over(&self, task: Task) {
        // Fails only once the other thread has ended, and it says why before it does.
        drop(self.tasks.send(task));
    }

    fn wait(&mut self, until: Duration, inbox: &mut Inbox) {
        let most = until.saturating_sub(self.clock.now());
        self.line.wait(self.stop.bell(), most);
        for _ in 0..RECEIVES_MAX {
            let (now, transfer) = (self.clock.now(), &mut self.transfer);
            if !self
                .line
                .receive(inbox, |datagram| transfer.hear(now, datagram))
            {
                self.heard_until = now;
                break;
            }
        }
    }
}
