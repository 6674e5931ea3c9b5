//! The loop of one worker. It never allocates, locks or logs while it serves (I12).

use std::mem;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::GET_BYTES;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CpuSet, sched_setaffinity};
use rustix::time::Timespec;

use super::classify::{Classifier, Steered};
use crate::cache::lease::CacheView;
use crate::clock;
use crate::counters::{Cell, Reasons, Sends};
use crate::limits::{BATCH, SEND_RETRY_NS, SPIN, TICK};
use crate::serve::bounce::BounceQueue;
use crate::serve::peer::Listeners;
use crate::serve::transmit::{Incoming, Transmitter};
use crate::serve::{Decision, Unsent};
use crate::sys::epochs::Reader;
use crate::sys::wake::Wake;
use crate::sys::xsk::{BadDescriptor, RxFrame, Xsk};

const RETRY_SEND: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: SEND_RETRY_NS,
};
const SIGN_OF_LIFE: Timespec = Timespec {
    tv_sec: TICK.as_secs().cast_signed(),
    tv_nsec: 0,
};

/// A packet that was read, or the reason why it is none of ours.
pub type Classified<'pin> = Result<Steered<'pin>, Reason>;

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
    pub view: Arc<CacheView>,
    pub listeners: Listeners,
    pub max_burst: u8,
    pub out: Box<dyn Transmitter>,
    pub reader: Reader,
    pub bounce_queue: Arc<BounceQueue>,
    pub cells: Arc<WorkerCells>,
    /// What has come, and what is to be answered; both empty between two turns.
    pub batch: Vec<Result<RxFrame, BadDescriptor>>,
    pub classified: Vec<(RxFrame, Classified<'static>)>,
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
        // Sends that are still queued end now, so that the reader can announce that it is gone.
        let WorkerState { out, reader, .. } = self.state;
        drop(out);
        drop(reader);
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
        self.reader.quiescent();
        self.xsk.receive(BATCH, &mut self.batch);
        let any = !self.batch.is_empty();
        if any {
            self.serve();
        }
        self.out.flush(&mut self.xsk);
        any
    }

    /// Reads every request before it answers the first, so that their segments are on the way from
    /// memory meanwhile.
    fn serve(&mut self) {
        let Self {
            xsk,
            view,
            listeners,
            max_burst,
            out,
            reader,
            bounce_queue,
            cells,
            batch,
            ..
        } = self;
        let classifier = Classifier {
            view,
            listeners,
            max_burst: *max_burst,
        };
        let mut batched = emptied(mem::take(&mut self.classified));
        for frame in batch.drain(..) {
            cells.received.add(1);
            let Ok(frame) = frame else {
                cells.reasons.count(Reason::BadDescriptor, 0);
                continue;
            };
            let steered = classifier.classify(reader, xsk.bytes(&frame), xsk.hint(&frame));
            if let Ok(Steered {
                decision: Decision::Data(lease, runs),
                ..
            }) = &steered
            {
                out.prefetch(lease, runs);
            }
            batched.push((frame, steered));
        }
        let mut bounced = false;
        for (packet, steered) in batched.drain(..) {
            let reason = match &steered {
                Ok(steered) => {
                    let mut to = Incoming {
                        xsk,
                        packet: &packet,
                        frame: &steered.frame,
                        request: &steered.request,
                    };
                    transmit(&mut **out, &mut to, &steered.decision).unwrap_or_else(|| {
                        bounced = true;
                        bounce_queue.put(steered.request)
                    })
                }
                Err(reason) => *reason,
            };
            cells.reasons.count(reason, GET_BYTES);
            // On every arm, and in one place.
            xsk.recycle(packet);
        }
        self.classified = emptied(batched);
        self.xsk.refill();
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
        // Asleep is quiescent; the next turn announces anew, and then reads anew.
        self.reader.offline();
        self.out.has_unsent(&self.xsk)
    }
}

/// Says how the request ended, if its chunk is resident.
fn transmit(
    out: &mut dyn Transmitter,
    to: &mut Incoming<'_>,
    decision: &Decision<'_>,
) -> Option<Reason> {
    let (sent, reason) = match decision {
        Decision::Data(lease, runs) => (out.data(to, lease, runs.clone()), Reason::Served),
        Decision::Nack(nack) => (out.nack(to, nack), Reason::NackRange),
        Decision::Miss => return None,
    };
    Some(sent.map_or_else(Unsent::reason, |()| reason))
}

/// Nothing of it but its memory: collecting into the same kind of vector keeps that.
fn emptied<'pin>(list: Vec<(RxFrame, Classified<'_>)>) -> Vec<(RxFrame, Classified<'pin>)> {
    list.into_iter().map_while(|_| None).collect()
}
