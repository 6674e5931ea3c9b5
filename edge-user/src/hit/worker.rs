//! The loop of one worker. It never allocates, locks or logs while it serves (I12).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{GET_BYTES, NackCode};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::thread::{CpuSet, sched_setaffinity};

use super::answer::{Answer, answer};
use crate::clock;
use crate::counters::{Cell, Reasons, Sends};
use crate::inbox::Inbox;
use crate::limits::{BATCH, SPIN};
use crate::reply::Request;
use crate::reply::gso::{NoData, Sender};
use crate::reply::peer::Services;
use crate::store::reclaim::Reader;
use crate::store::{Shared, Stay};
use crate::sys::receive::Wake;
use crate::sys::xsk::{BadDescriptor, RxFrame, Xsk};

/// What one worker counts. Every received frame ends in one reason (I10).
#[derive(Debug, Default)]
pub struct WorkerCells {
    pub received: Cell,
    pub reasons: Reasons,
    pub sends: Arc<Sends>,
}

/// Everything a worker works with.
#[derive(Debug)]
pub struct Worker {
    pub cpu: usize,
    pub busy_poll: bool,
    pub xsk: Xsk,
    pub shared: Arc<Shared>,
    pub services: Services,
    pub sender: Sender,
    /// Behind the sender, so that it is dropped after it.
    pub reader: Reader,
    pub inbox: Arc<Inbox>,
    pub cells: Arc<WorkerCells>,
    pub stop: Arc<AtomicBool>,
    /// Ends a sleep when it is time to stop.
    pub stop_wake: Wake,
}

impl Worker {
    /// Runs until told to stop; no frame is held afterwards (I2).
    pub fn run(mut self) {
        let mut cpus = CpuSet::new();
        cpus.set(self.cpu);
        if let Err(error) = sched_setaffinity(None, &cpus) {
            tracing::warn!(cpu = self.cpu, %error, "a worker could not be pinned");
        }
        let mut batch = Vec::with_capacity(BATCH as usize);
        let mut idle_since: Option<Instant> = None;
        while !self.stop.load(Ordering::Acquire) {
            if self.sender.in_flight() == 0 {
                // I6: no slot is held here, and no send names one.
                self.reader.quiescent();
            }
            self.xsk.receive(BATCH, &mut batch);
            if batch.is_empty() {
                self.sender.flush();
                idle_since = self.rest(idle_since);
                continue;
            }
            idle_since = None;
            self.serve(&mut batch);
        }
        // A send that is still queued names a slot: it ends before this worker counts as gone.
        let Self { sender, reader, .. } = self;
        drop(sender);
        reader.offline();
    }

    fn serve(&mut self, batch: &mut Vec<Result<RxFrame, BadDescriptor>>) {
        let mut bounced = false;
        for frame in batch.drain(..) {
            self.cells.received.add(1);
            let Ok(frame) = frame else {
                self.cells.reasons.count(Reason::BadDescriptor, 0);
                continue;
            };
            let packet = self.xsk.bytes(&frame);
            let mark = self.xsk.mark(&frame);
            let reason = match answer(packet, mark, &self.shared.table, &self.services) {
                Answer::Data(request, stay) => self.reply(&request, stay),
                Answer::Bounce(request) => {
                    bounced = true;
                    self.inbox.put(request)
                }
                Answer::Bad(reason) => reason,
            };
            self.cells.reasons.count(reason, GET_BYTES);
            // On every arm, and in one place.
            self.xsk.recycle(frame);
        }
        self.xsk.feed();
        if bounced {
            self.inbox.wake();
        }
        self.sender.flush();
    }

    fn reply(&mut self, request: &Request, stay: Stay) -> Reason {
        match self.sender.data(&request.peer, stay, request.get.want) {
            Ok(()) => Reason::Served,
            Err(NoData::Full) => Reason::SendQueueFull,
            Err(NoData::Range) => {
                let nack = request.nack(NackCode::Range, 0);
                match self.sender.nack(&request.peer, &nack) {
                    Ok(()) => Reason::NackRange,
                    Err(_) => Reason::SendQueueFull,
                }
            }
        }
    }

    /// Spins a little, then sleeps until a packet is there or it is time to stop.
    fn rest(&mut self, idle_since: Option<Instant>) -> Option<Instant> {
        let now = clock::now();
        let since = idle_since.unwrap_or(now);
        if self.busy_poll || now.saturating_duration_since(since) < SPIN {
            std::hint::spin_loop();
            return Some(since);
        }
        if self.sender.in_flight() > 0 {
            // A send the kernel could not finish at once: look again, and hold its slot meanwhile.
            return Some(since);
        }
        // Asleep is quiescent; the loop announces anew, and then reads anew.
        self.reader.offline();
        let mut fds = [
            PollFd::new(&self.xsk, PollFlags::IN),
            PollFd::new(self.stop_wake.fd(), PollFlags::IN),
        ];
        // An error, such as an interrupt, means the same as success: look again.
        let (Ok(_) | Err(_)) = poll(&mut fds, None);
        None
    }
}
