//! The worker's loop. It never allocates, locks or logs while serving (I12).

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
use crate::event_fd::EventFd;
use crate::limits::{BATCH, SEND_RETRY_NS, SPIN, TICK};
use crate::serve::bounce::BounceQueue;
use crate::serve::peer::Listeners;
use crate::serve::transmit::{Incoming, Transmitter};
use crate::serve::{Decision, Unsent};
use crate::sys::epochs::Reader;
use crate::sys::xsk::{BadDescriptor, RxFrame, Xsk};

const SEND_RETRY_TIMEOUT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: SEND_RETRY_NS,
};
const IDLE_TIMEOUT: Timespec = Timespec {
    tv_sec: TICK.as_secs().cast_signed(),
    tv_nsec: 0,
};

/// A parsed packet, or the reason to drop it.
pub type Classified<'pin> = Result<Steered<'pin>, Reason>;

/// Counters of one worker. Every received frame ends in one reason (I10).
#[derive(Debug, Default)]
pub struct WorkerCells {
    /// Turns of the loop, idle ones included, for the heartbeat.
    pub turns: Cell,
    pub received: Cell,
    /// Frames of the umem without an owner, as of the last sleep (I2).
    pub frames_missing: Cell,
    pub reasons: Reasons,
    pub sends: Arc<Sends>,
}

pub struct Worker {
    pub cpu: usize,
    pub busy_poll: bool,
    pub state: WorkerState,
    pub stop: Arc<AtomicBool>,
    /// Wakes the worker when `stop` is set.
    pub stop_wake: EventFd,
}

/// What a worker serves with. It reads no clock and does not sleep.
pub struct WorkerState {
    pub xsk: Xsk,
    pub view: Arc<CacheView>,
    pub listeners: Listeners,
    pub max_burst: u8,
    pub transmitter: Box<dyn Transmitter>,
    pub reader: Reader,
    pub bounce_queue: Arc<BounceQueue>,
    pub cells: Arc<WorkerCells>,
    /// Buffers of one turn, empty between turns.
    pub batch: Vec<Result<RxFrame, BadDescriptor>>,
    pub classified: Vec<(RxFrame, Classified<'static>)>,
}

impl Worker {
    /// Runs until `stop` is set; no frame is held afterwards (I2).
    pub fn run(mut self) {
        let mut cpus = CpuSet::new();
        cpus.set(self.cpu);
        if let Err(error) = sched_setaffinity(None, &cpus) {
            tracing::warn!(cpu = self.cpu, %error, "cannot pin a worker to its CPU");
        }
        let mut idle_since: Option<Instant> = None;
        while !self.stop.load(Ordering::Acquire) {
            self.state.cells.turns.add(1);
            idle_since = if self.state.poll_once() {
                None
            } else {
                self.idle(idle_since)
            };
        }
        // Queued sends hold loans, so they must end before the reader does.
        let WorkerState {
            transmitter,
            reader,
            ..
        } = self.state;
        drop(transmitter);
        drop(reader);
    }

    /// Spins for a while, then sleeps until a packet arrives or `stop` is set.
    fn idle(&mut self, idle_since: Option<Instant>) -> Option<Instant> {
        let now = clock::now();
        let since = idle_since.unwrap_or(now);
        if self.busy_poll || now.saturating_duration_since(since) < SPIN {
            std::hint::spin_loop();
            return Some(since);
        }
        let timeout = if self.state.before_sleep() {
            SEND_RETRY_TIMEOUT
        } else {
            IDLE_TIMEOUT
        };
        let mut fds = [
            PollFd::new(&self.state.xsk, PollFlags::IN),
            PollFd::new(self.stop_wake.fd(), PollFlags::IN),
        ];
        // After an error, such as EINTR, the loop polls again as after success.
        let (Ok(_) | Err(_)) = poll(&mut fds, Some(&timeout));
        None
    }
}

impl WorkerState {
    /// Serves one batch; returns whether there was any packet.
    pub fn poll_once(&mut self) -> bool {
        self.reader.quiescent();
        self.xsk.receive(BATCH, &mut self.batch);
        let any = !self.batch.is_empty();
        if any {
            self.serve();
        }
        self.transmitter.flush(&mut self.xsk);
        any
    }

    /// Parses every request before answering the first, so that their segments are prefetched.
    fn serve(&mut self) {
        let Self {
            xsk,
            view,
            listeners,
            max_burst,
            transmitter,
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
        let mut batched = reuse_allocation(mem::take(&mut self.classified));
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
                transmitter.prefetch(lease, runs);
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
                    transmit(&mut **transmitter, &mut to, &steered.decision).unwrap_or_else(|| {
                        bounced = true;
                        bounce_queue.put(steered.request)
                    })
                }
                Err(reason) => *reason,
            };
            cells.reasons.count(reason, GET_BYTES);
            // For every outcome, in one place.
            xsk.recycle(packet);
        }
        self.classified = reuse_allocation(batched);
        self.xsk.refill();
        if bounced {
            self.bounce_queue.wake();
        }
    }

    /// Returns whether the sleep must be short, because sends are left to submit again.
    pub fn before_sleep(&mut self) -> bool {
        self.cells
            .frames_missing
            .set(self.xsk.frames_missing().into());
        // A sleeping worker is quiescent; the next turn announces its epoch again before it reads.
        self.reader.offline();
        self.transmitter.has_unsent(&self.xsk)
    }
}

/// Returns the request's reason, or `None` if its chunk is not resident.
fn transmit(
    transmitter: &mut dyn Transmitter,
    to: &mut Incoming<'_>,
    decision: &Decision<'_>,
) -> Option<Reason> {
    let (sent, reason) = match decision {
        Decision::Data(lease, runs) => (transmitter.data(to, lease, runs.clone()), Reason::Served),
        Decision::Nack(nack) => (transmitter.nack(to, nack), Reason::NackRange),
        Decision::Miss => return None,
    };
    Some(sent.map_or_else(Unsent::reason, |()| reason))
}

/// An empty vector in the same memory: collecting in place reuses the allocation.
fn reuse_allocation<'pin>(
    list: Vec<(RxFrame, Classified<'_>)>,
) -> Vec<(RxFrame, Classified<'pin>)> {
    list.into_iter().map_while(|_| None).collect()
}
