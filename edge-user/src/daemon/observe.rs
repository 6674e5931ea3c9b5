//! Reads all counters, from any thread.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use edge_ebpf::maps::QUEUES_MAX;

use crate::admin::health::Health;
use crate::clock;
use crate::counters::{
    Cell, EngineCounts, InterfaceCounts, Mode, OriginCounts, Snapshot, SocketCounts, WorkerCounts,
    XskCounts,
};
use crate::daemon::nic::program::ProgramCounters;
use crate::fetch::engine::EngineCells;
use crate::log;
use crate::network::Network;
use crate::serve::socket::handler::SocketCells;
use crate::serve::xdp::worker::WorkerCells;
use crate::sys::socket::ServiceSocket;
use crate::sys::xsk::statistics;

/// The sources of all counters.
pub(super) struct Observer {
    pub(super) started: Instant,
    pub(super) mode: Mode,
    pub(super) network: Network,
    pub(super) nics: Vec<Arc<NicObserver>>,
    pub(super) listen: Vec<String>,
    pub(super) program: Option<Mutex<ProgramCounters>>,
    pub(super) engine: Arc<EngineCells>,
    pub(super) socket: Arc<SocketCells>,
    pub(super) sockets: Arc<[ServiceSocket]>,
    pub(super) health: Health,
    pub(super) host_changes: Cell,
}

/// The sources of one interface's counters.
pub(super) struct NicObserver {
    pub(super) index: u32,
    /// The name at startup, which counters keep if the interface is renamed.
    pub(super) name: String,
    /// One for each queue, in order.
    pub(super) workers: Vec<WorkerObserver>,
}

pub(super) struct WorkerObserver {
    pub(super) thread: String,
    pub(super) cells: Arc<WorkerCells>,
    pub(super) xsk: Mutex<XskObserver>,
}

/// The kernel's counters of an AF_XDP socket, or their last values before it was closed.
pub(super) enum XskObserver {
    Open(Arc<OwnedFd>),
    Closed(XskCounts),
}

/// A serving thread: the interface and queue it serves, if it is a worker, and its turns.
pub(super) struct Heartbeat {
    pub(super) thread: String,
    pub(super) queue: Option<(String, u32)>,
    pub(super) turns: u64,
}

/// The threads of the engine and of the socket front.
pub(super) const ENGINE: &str = "engine";
pub(super) const SOCKET: &str = "socket";

impl XskObserver {
    fn counts(&self) -> XskCounts {
        match self {
            Self::Open(socket) => {
                let counted = statistics(socket.as_fd()).unwrap_or_default();
                XskCounts {
                    rx_dropped: counted.rx_dropped,
                    rx_ring_full: counted.rx_ring_full,
                    rx_invalid_descs: counted.rx_invalid_descs,
                    rx_fill_ring_empty: counted.rx_fill_ring_empty,
                }
            }
            Self::Closed(counts) => *counts,
        }
    }
}

impl NicObserver {
    pub(super) fn queues(&self) -> u32 {
        u32::try_from(self.workers.len()).unwrap_or(u32::MAX)
    }

    /// Closes the sockets, which frees the kernel's memory for them.
    pub(super) fn close_sockets(&self) {
        for worker in &self.workers {
            let mut xsk = worker.xsk.lock().unwrap_or_else(PoisonError::into_inner);
            *xsk = XskObserver::Closed(xsk.counts());
        }
    }

    fn counts(
        &self,
        network: &Network,
        program: Option<(&ProgramCounters, u32)>,
    ) -> InterfaceCounts {
        let xdp = program.map(|(program, place)| {
            // All rows, because queues may have been added since startup.
            (0..QUEUES_MAX)
                .map(|queue| (queue, program.of_queue(place, queue)))
                .filter(|(_, reasons)| !reasons.is_empty())
                .collect()
        });
        let found = network.interface_by_index(self.index);
        let workers = self.workers.iter().zip(0..).map(|(worker, queue)| {
            let cells = &worker.cells;
            let xsk = worker.xsk.lock().unwrap_or_else(PoisonError::into_inner);
            WorkerCounts {
                queue,
                thread: worker.thread.clone(),
                turns: cells.turns.get(),
                received: cells.received.get(),
                frames_missing: cells.frames_missing.get(),
                reasons: cells.reasons.snapshot(),
                sends: cells.sends.snapshot(),
                xsk: xsk.counts(),
            }
        });
        InterfaceCounts {
            name: self.name.clone(),
            up: found.is_ok_and(|found| found.is_some_and(|interface| interface.up)),
            queues: self.queues(),
            xdp: xdp.unwrap_or_default(),
            workers: workers.collect(),
        }
    }
}

impl Observer {
    /// The heartbeats of these interfaces' workers, the socket front and the engine.
    pub(super) fn heartbeats(&self, nics: &[&NicObserver]) -> Vec<Heartbeat> {
        let workers = nics.iter().flat_map(|nic| {
            let workers = nic.workers.iter().zip(0..);
            workers.map(|(worker, queue)| Heartbeat {
                thread: worker.thread.clone(),
                queue: Some((nic.name.clone(), queue)),
                turns: worker.cells.turns.get(),
            })
        });
        let others = [(SOCKET, &self.socket.turns), (ENGINE, &self.engine.turns)];
        let others = others.map(|(thread, turns)| Heartbeat {
            thread: thread.to_owned(),
            queue: None,
            turns: turns.get(),
        });
        workers.chain(others).collect()
    }

    pub(super) fn snapshot(&self) -> Snapshot {
        let program = self.program.as_ref();
        let program = program.map(|program| program.lock().unwrap_or_else(PoisonError::into_inner));
        let interfaces = self.nics.iter().zip(0..).map(|(nic, place)| {
            let program = program.as_deref().map(|program| (program, place));
            nic.counts(&self.network, program)
        });
        let interfaces = interfaces.collect();
        let (engine, socket) = (&self.engine, &self.socket);
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("SEALEDGE_COMMIT").to_owned(),
            uptime_seconds: clock::now()
                .saturating_duration_since(self.started)
                .as_secs(),
            mode: self.mode.clone(),
            listen: self.listen.clone(),
            host_changes_total: self.host_changes.get(),
            faults: self.health.faults(),
            log_lines_dropped: log::dropped_lines(),
            interfaces,
            socket: SocketCounts {
                thread: SOCKET.to_owned(),
                turns: socket.turns.get(),
                received: socket.received.get(),
                dropped: (self.sockets.iter())
                    .filter_map(|socket| socket.dropped().ok())
                    .sum(),
                reasons: socket.reasons.snapshot(),
                bounced: socket.bounced.get(),
                bounce_reasons: socket.bounce_reasons.snapshot(),
                sends: socket.sends.snapshot(),
            },
            engine: EngineCounts {
                thread: ENGINE.to_owned(),
                turns: engine.turns.get(),
            },
            store: *engine.store.lock().unwrap_or_else(PoisonError::into_inner),
            origin: OriginCounts {
                unanswered_waiters_total: socket.unanswered_waiters.get(),
                source_limited_total: socket.source_limited.get(),
                ..engine.origin()
            },
        }
    }
}
