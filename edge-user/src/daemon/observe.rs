//! Reads all counters, from any thread.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use edge_ebpf::maps::QUEUES_MAX;

use super::link::Link;
use crate::admin::health::Health;
use crate::clock;
use crate::counters::{Cell, Mode, Snapshot, SocketCounts, WorkerCounts, XskCounts};
use crate::daemon::nic::program::ProgramCounters;
use crate::log;
use crate::serve::socket::handler::MissCells;
use crate::serve::xdp::worker::WorkerCells;
use crate::sys::socket::ServiceSocket;
use crate::sys::xsk::statistics;

/// What the counters are read from, from any thread.
pub(super) struct Observer {
    pub(super) started: Instant,
    pub(super) mode: Mode,
    pub(super) interface: String,
    pub(super) link: Link,
    pub(super) queues: u32,
    pub(super) listen: Vec<String>,
    pub(super) program: Option<Mutex<ProgramCounters>>,
    pub(super) workers: Vec<(Arc<WorkerCells>, Arc<OwnedFd>)>,
    pub(super) miss: Arc<MissCells>,
    pub(super) sockets: Arc<[ServiceSocket]>,
    pub(super) health: Health,
    pub(super) host_changes: Cell,
}

/// The thread of the miss path.
pub(super) const FILLER: &str = "filler";

pub(super) fn worker_name(queue: u32) -> String {
    format!("worker-{queue}")
}

impl Observer {
    /// Turns of each serving thread's loop, by the thread's name.
    pub(super) fn turns(&self) -> impl Iterator<Item = (String, u64)> {
        let workers = self.workers.iter().zip(0..);
        let workers = workers.map(|((cells, _), queue)| (worker_name(queue), cells.turns.get()));
        workers.chain([(FILLER.to_owned(), self.miss.turns.get())])
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let xdp = self.program.as_ref().map(|program| {
            let program = program.lock().unwrap_or_else(PoisonError::into_inner);
            // All rows: queues may have been added since the start.
            (0..QUEUES_MAX)
                .map(|queue| (queue, program.of_queue(0, queue)))
                .filter(|(_, reasons)| !reasons.is_empty())
                .collect()
        });
        let workers = self.workers.iter().zip(0..).map(|((cells, xsk), queue)| {
            let xsk = statistics(xsk.as_fd()).unwrap_or_default();
            WorkerCounts {
                queue,
                received: cells.received.get(),
                frames_missing: cells.frames_missing.get(),
                reasons: cells.reasons.snapshot(),
                sends: cells.sends.snapshot(),
                xsk: XskCounts {
                    rx_dropped: xsk.rx_dropped,
                    rx_ring_full: xsk.rx_ring_full,
                    rx_invalid_descs: xsk.rx_invalid_descs,
                    rx_fill_ring_empty: xsk.rx_fill_ring_empty,
                },
            }
        });
        let miss = &self.miss;
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("SEALEDGE_COMMIT").to_owned(),
            uptime_seconds: clock::now()
                .saturating_duration_since(self.started)
                .as_secs(),
            mode: self.mode.clone(),
            interface: self.interface.clone(),
            interface_up: self.link.is_up(),
            queues: self.queues,
            listen: self.listen.clone(),
            host_changes_total: self.host_changes.get(),
            faults: self.health.faults(),
            log_lines_dropped: log::dropped_lines(),
            turns: self.turns().collect(),
            xdp: xdp.unwrap_or_default(),
            workers: workers.collect(),
            socket: SocketCounts {
                received: miss.received.get(),
                dropped: (self.sockets.iter())
                    .filter_map(|socket| socket.dropped().ok())
                    .sum(),
                reasons: miss.reasons.snapshot(),
                bounced: miss.bounced.get(),
                bounce_reasons: miss.bounce_reasons.snapshot(),
                sends: miss.sends.snapshot(),
            },
            store: *miss.store.lock().unwrap_or_else(PoisonError::into_inner),
            origin: miss.origin(),
        }
    }
}
