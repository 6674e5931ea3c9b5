//! The loop of one worker. It never allocates, locks or logs while it serves (I12).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::GET_BYTES;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::Timespec;

use super::classify::{Answer, answer};
use crate::cache::Shared;
use crate::clock;
use crate::counters::{Cell, Reasons, Sends};
use crate::limits::{BATCH, SEND_RETRY_NS, SPIN, TICK};
use crate::serve::bounce::BounceQueue;
use crate::serve::peer::Listeners;
use crate::serve::transmit::Transmitter;
use crate::sys::epochs::Reader;
use crate::sys::receive::Wake;
use crate::sys::xsk::{BadDescriptor, RxFrame, Xsk};

const RETRY_SEND: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: SEND_RETRY_NS,
};
const SIGN_OF_LIFE: Timespec = Timespec {
    tv_sec: TICK.as_secs().cast_signed(),
    tv_nsec: 0,
};

/// What one worker counts. Every received frame ends in one reason (I10).
#[derive(Debug, Default)]
pub struct WorkerCells {
    /// Turns of the loop, idle ones included: a sign of life.
    pub turns: Cell,
    pub received: Cell,
    /// Frames of the umem without an owner, as of the last time there was nothing to do (I2).
    pub frames_missing: Cell,
    pub reasons: Reasons,
    pub sends: Arc<Sends>,
}

/// Everything a worker works with.
pub struct Worker {
    pub cpu: usize,
    pub busy_poll: bool,
    pub state: WorkerState,
    pub stop: Arc<AtomicBool>,
    /// Ends a sleep when it is time to stop.
    pub stop_wake: Wake,
}

/// What it serves with. Knows no clock, and does not sleep.
pub struct WorkerState {
    pub xsk: Xsk,
    pub shared: Arc<Shared>,
    pub services: Listeners,
    pub out: Box<dyn Transmitter>,
    /// Behind the sender, so that it is dropped after it.
    pub reader: Reader,
    pub bounce_queue: Arc<BounceQueue>,
    pub cells: Arc<WorkerCells>,
    /// What has come, and what is to be answered; both empty between two turns.
    pub batch: Vec<Result<RxFrame, BadDescriptor>>,
    pub answers: Vec<(RxFrame, Answer)>,
}

impl Worker {
    /// Runs until told to stop; no frame is held afterwards (I2).
    pub fn run(mut self) {
        let mut cpus = CpuSet::new();
        cpus.set(self.cpu);
        if let Err(error) = sched_setaffinity(None, &cpus) {
            tracing::warn!(cpu = self.cpu, %error, "a worker could not be pinned");
        }
        let mut idle_since: Option<Instant> = None;
        while !self.stop.load(Ordering::Acquire) {
            self.state.cells.turns.add(1);
            idle_since = if self.state.turn() {
                None
            } else {
                self.rest(idle_since)
            };
        }
        // A send that is still queued names a slot: it ends before this worker counts as gone.
        let WorkerState {
            out, mut reader, ..
        } = self.state;
        drop(out);
        reader.offline();
    }

    /// Spins a little, then sleeps until a packet is there or it is time to stop.
    fn rest(&mut self, idle_since: Option<Instant>) -> Option<Instant> {
        let now = clock::now();
        let since = idle_since.unwrap_or(now);
        if self.busy_poll || now.saturating_duration_since(since) < SPIN {
            std::hint::spin_loop();
            return Some(since);
        }
        let most = if self.state.before_sleep() {
            RETRY_SEND
        } else {
            SIGN_OF_LIFE
        };
        let mut fds = [
            PollFd::new(&self.state.xsk, PollFlags::IN),
            PollFd::new(self.stop_wake.fd(), PollFlags::IN),
        ];
        // An error, such as an interrupt, means the same as success: look again.
        let (Ok(_) | Err(_)) = poll(&mut fds, Some(&most));
        None
    }
}

impl WorkerState {
    /// Serves what has come; says whether that was anything.
    pub fn turn(&mut self) -> bool {
        if !self.out.holds_slots() {
            // I6: no slot is held here, and no send names one.
            self.reader.quiescent();
        }
        self.xsk.receive(BATCH, &mut self.batch);
        let any = !self.batch.is_empty();
        if any {
            self.serve();
        }
        self.out.flush(&mut self.xsk);
        any
    }

    /// Reads every request before it answers the first.
    fn serve(&mut self) {
        for frame in self.batch.drain(..) {
            self.cells.received.add(1);
            let Ok(frame) = frame else {
                self.cells.reasons.count(Reason::BadDescriptor, 0);
                continue;
            };
            let packet = self.xsk.bytes(&frame);
            let mark = self.xsk.mark(&frame);
            let answer = answer(packet, mark, &self.shared.table, &self.services);
            if let Answer::Data(_, request, stay) = &answer {
                self.out.expect(request, *stay);
            }
            self.answers.push((frame, answer));
        }
        let mut bounced = false;
        let mut bounce = |request| {
            bounced = true;
            self.bounce_queue.put(request)
        };
        for (frame, answer) in self.answers.drain(..) {
            let reason = match answer {
                Answer::Data(parsed, request, stay) => match self.reader.bytes(stay.slot) {
                    Some(stored) => {
                        self.out
                            .answer(&mut self.xsk, &frame, &parsed, &request, stay, stored)
                    }
                    // Evicted since it was confirmed.
                    None => bounce(request),
                },
                Answer::Bounce(request) => bounce(request),
                Answer::Bad(reason) => reason,
            };
            self.cells.reasons.count(reason, GET_BYTES);
            // On every arm, and in one place.
            self.xsk.recycle(frame);
        }
        self.xsk.feed();
        if bounced {
            self.bounce_queue.wake();
        }
    }

    /// What is due before a sleep. Says whether it has to end soon by itself: what the kernel
    /// could not take just now is handed over again.
    pub fn before_sleep(&mut self) -> bool {
        self.cells
            .frames_missing
            .set(self.xsk.frames_missing().into());
        if !self.out.holds_slots() {
            // Asleep is quiescent; the next turn announces anew, and then reads anew.
            self.reader.offline();
        }
        self.out.has_unsent(&self.xsk)
    }
}
