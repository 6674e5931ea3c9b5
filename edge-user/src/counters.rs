//! Counters. Each thread counts in its own cells; readers add them up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use edge_ebpf::reason::Reason;
use serde::{Deserialize, Serialize};

/// A counter with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// For the owning thread only: a load and a store, no locked instruction.
    #[inline]
    pub fn add(&self, count: u64) {
        let value = self.0.load(Ordering::Relaxed).wrapping_add(count);
        self.0.store(value, Ordering::Relaxed);
    }

    /// For gauges; like `add`, for the owning thread only.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Packets and bytes by reason.
#[derive(Debug)]
pub struct Reasons {
    packets: [Cell; Reason::COUNT as usize],
    bytes: [Cell; Reason::COUNT as usize],
}

impl Default for Reasons {
    fn default() -> Self {
        Self {
            packets: std::array::from_fn(|_| Cell::default()),
            bytes: std::array::from_fn(|_| Cell::default()),
        }
    }
}

impl Reasons {
    /// Counts one packet; `len_bytes` is its UDP payload.
    #[inline]
    pub fn count(&self, reason: Reason, len_bytes: usize) {
        self.packets[reason as usize].add(1);
        self.bytes[reason as usize].add(len_bytes as u64);
    }

    pub fn packets(&self, reason: Reason) -> u64 {
        self.packets[reason as usize].get()
    }

    pub fn snapshot(&self) -> ReasonCounts {
        Reason::ALL
            .iter()
            .map(|reason| {
                let count = Count {
                    packets: self.packets[*reason as usize].get(),
                    bytes: self.bytes[*reason as usize].get(),
                };
                (reason.label().to_owned(), count)
            })
            .filter(|(_, count)| count.packets > 0)
            .collect()
    }
}

/// Outcomes of the datagrams of one sender.
#[derive(Debug, Default)]
pub struct Sends {
    /// Datagrams handed to the kernel, and their bytes (UDP payload).
    pub datagrams: Cell,
    pub bytes: Cell,
    /// Datagrams lost because the socket's send buffer was full.
    pub would_block: Cell,
    /// Datagrams not sent because an earlier one had not reached the client yet.
    pub unreached: Cell,
    /// Datagrams the kernel refused for another cause: no route, or checksum offload disabled on a
    /// kernel that needs it for GSO.
    pub failed: Cell,
    /// `errno` of the last failure.
    pub last_errno: Cell,
}

/// All counters at one moment: what `edge stat --json` prints and `/metrics` is rendered from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub version: String,
    pub commit: String,
    pub uptime_seconds: u64,
    pub mode: Mode,
    pub listen: Vec<String>,
    /// As of the last check, at most a second ago.
    pub faults: Vec<Fault>,
    /// Updates of the running program after changes of the host.
    pub host_changes_total: u64,
    /// Log lines dropped because the queue was full or the write failed.
    pub log_lines_dropped: u64,
    /// In the order of the configuration.
    pub interfaces: Vec<InterfaceCounts>,
    pub socket: SocketCounts,
    pub engine: EngineCounts,
    pub store: StoreCounts,
    pub origin: OriginCounts,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct InterfaceCounts {
    /// The name at startup.
    pub name: String,
    /// Whether it exists and carries packets.
    pub up: bool,
    /// RX queues with a worker.
    pub queues: u32,
    /// Counted by the XDP program, by queue; frame bytes. Empty when XDP is off.
    pub xdp: BTreeMap<u32, ReasonCounts>,
    /// By queue. Empty when XDP is off.
    pub workers: Vec<WorkerCounts>,
}

/// Kinds of faults; the label `cause` in metrics.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A serving thread makes no progress.
    ThreadStalled,
    /// The interface carries no packets.
    LinkDown,
    /// The interface was removed.
    InterfaceRemoved,
    /// The XDP program is no longer on the interface.
    ProgramDetached,
    /// The XDP program could not be updated after the host changed.
    ProgramNotUpdated,
    /// A service address was removed.
    AddressRemoved,
    /// Full datagrams no longer fit the interface.
    MtuTooSmall,
    /// The interface has more queues than workers.
    QueuesAdded,
}

impl Cause {
    pub const ALL: [Self; 8] = [
        Self::ThreadStalled,
        Self::LinkDown,
        Self::InterfaceRemoved,
        Self::ProgramDetached,
        Self::ProgramNotUpdated,
        Self::AddressRemoved,
        Self::MtuTooSmall,
        Self::QueuesAdded,
    ];

    pub const fn label(self) -> &'static str {
        match self {
            Self::ThreadStalled => "thread_stalled",
            Self::LinkDown => "link_down",
            Self::InterfaceRemoved => "interface_removed",
            Self::ProgramDetached => "program_detached",
            Self::ProgramNotUpdated => "program_not_updated",
            Self::AddressRemoved => "address_removed",
            Self::MtuTooSmall => "mtu_too_small",
            Self::QueuesAdded => "queues_added",
        }
    }

    /// Whether a restart is the remedy: if so, the edge stops feeding the service manager's
    /// watchdog.
    pub const fn wants_restart(self) -> bool {
        match self {
            Self::ThreadStalled | Self::ProgramDetached | Self::ProgramNotUpdated => true,
            // The operator repairs these while the edge keeps serving what it can. A restart would
            // fail without the interface.
            Self::LinkDown
            | Self::InterfaceRemoved
            | Self::AddressRemoved
            | Self::MtuTooSmall
            | Self::QueuesAdded => false,
        }
    }
}

/// A lasting condition that keeps a running edge from serving properly, identified by cause and
/// subject.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Fault {
    pub cause: Cause,
    /// The affected interface; `None` if the whole edge is affected.
    pub interface: Option<String>,
    /// The thread, address or interface at fault.
    pub subject: String,
    /// One line for the log and `/ready`: the problem, its effect, the remedy.
    pub text: String,
}

impl Fault {
    pub fn is_among(&self, faults: &[Self]) -> bool {
        let name = |fault: &Self| (fault.cause, fault.subject.clone());
        faults.iter().any(|fault| name(fault) == name(self))
    }
}

impl Snapshot {
    /// The XDP program's count of one reason, summed over queues.
    pub fn xdp_packets(&self, reason: Reason) -> u64 {
        self.interfaces
            .iter()
            .map(|interface| interface.xdp_packets(reason))
            .sum()
    }

    pub fn workers(&self) -> impl Iterator<Item = &WorkerCounts> {
        self.interfaces
            .iter()
            .flat_map(|interface| &interface.workers)
    }

    /// Counters that do not add up (I2, I10). A datagram in transit is counted at one stage and not
    /// yet at the next, so this is empty only while the edge is idle.
    pub fn unbalanced(&self) -> Vec<String> {
        let mut found = Vec::new();
        let mut equal = |what: &str, left: u64, right: u64| {
            if left != right {
                found.push(format!("{what}: {left} / {right}"));
            }
        };
        let mut bounced = 0;
        for interface in &self.interfaces {
            let name = &interface.name;
            let mut from_rings = 0;
            for worker in &interface.workers {
                let queue = worker.queue;
                equal(
                    &format!(
                        "received by the worker of queue {queue} of {name} / sum of its reasons"
                    ),
                    worker.received,
                    sum(&worker.reasons),
                );
                equal(
                    &format!("umem frames missing on queue {queue} of {name} / expected"),
                    worker.frames_missing,
                    0,
                );
                let xsk = &worker.xsk;
                from_rings +=
                    worker.received + xsk.rx_dropped + xsk.rx_ring_full + xsk.rx_invalid_descs;
                bounced += packets(&worker.reasons, Reason::Bounced);
            }
            equal(
                &format!("steered on {name} / received by its workers or dropped at their rings"),
                interface.xdp_packets(Reason::Steered),
                from_rings,
            );
        }
        let socket = &self.socket;
        equal(
            "received by the socket / sum of its reasons",
            socket.received,
            sum(&socket.reasons),
        );
        equal(
            "bounced by workers / received by the socket front",
            bounced,
            socket.bounced,
        );
        equal(
            "received by the socket front from workers / sum of their reasons",
            socket.bounced,
            sum(&socket.bounce_reasons),
        );
        let store = &self.store;
        equal(
            "slots / sum of resident, free, withdrawn and filling",
            store.slots,
            store.resident + store.free + store.withdrawn + store.filling,
        );
        found
    }
}

impl InterfaceCounts {
    /// The XDP program's count of one reason, summed over queues.
    pub fn xdp_packets(&self, reason: Reason) -> u64 {
        let queues = self.xdp.values();
        queues.map(|reasons| packets(reasons, reason)).sum()
    }
}

/// The packets of one reason.
pub fn packets(reasons: &ReasonCounts, reason: Reason) -> u64 {
    reasons.get(reason.label()).map_or(0, |count| count.packets)
}

/// Packets of all reasons.
pub fn sum(reasons: &ReasonCounts) -> u64 {
    reasons.values().map(|count| count.packets).sum()
}

/// The mode in use, as opposed to the one configured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    /// `native`, `generic` or `off`.
    pub xdp: String,
    /// `copy`, `zerocopy`, or `none` when XDP is off.
    pub bind: String,
    pub hugepages: bool,
    pub sender: String,
}

/// Counts by reason label; zero counts are omitted.
pub type ReasonCounts = BTreeMap<String, Count>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCounts {
    pub queue: u32,
    /// Name of its thread, and turns of its loop, which go on while it is idle.
    pub thread: String,
    pub turns: u64,
    /// Frames taken from the RX ring: the sum of `reasons`.
    pub received: u64,
    /// Frames of the umem that neither kernel nor worker owns; always 0.
    pub frames_missing: u64,
    pub reasons: ReasonCounts,
    pub sends: SendCounts,
    /// The kernel's drop counters of the `AF_XDP` socket.
    pub xsk: XskCounts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct XskCounts {
    pub rx_dropped: u64,
    pub rx_ring_full: u64,
    pub rx_invalid_descs: u64,
    pub rx_fill_ring_empty: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SocketCounts {
    /// Name of its thread, and turns of its loop, which go on while it is idle.
    pub thread: String,
    pub turns: u64,
    /// Datagrams received from the kernel: the sum of `reasons`.
    pub received: u64,
    /// Datagrams the kernel dropped before they could be received.
    pub dropped: u64,
    pub reasons: ReasonCounts,
    /// Requests bounced by workers: the sum of `bounce_reasons`.
    pub bounced: u64,
    pub bounce_reasons: ReasonCounts,
    pub sends: SendCounts,
}

/// The only writer of the store.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EngineCounts {
    /// Name of its thread, and turns of its loop, which go on while it is idle.
    pub thread: String,
    pub turns: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendCounts {
    pub datagrams: u64,
    pub bytes: u64,
    pub would_block: u64,
    pub unreached: u64,
    pub failed: u64,
    /// `errno` of the last failure; 0 if there was none.
    pub last_errno: u64,
}

impl Sends {
    pub fn snapshot(&self) -> SendCounts {
        SendCounts {
            datagrams: self.datagrams.get(),
            bytes: self.bytes.get(),
            would_block: self.would_block.get(),
            unreached: self.unreached.get(),
            failed: self.failed.get(),
            last_errno: self.last_errno.get(),
        }
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreCounts {
    pub segment_bytes: u16,
    /// Size of the arena, and of one slot in it.
    pub arena_bytes: u64,
    pub slot_bytes: u64,
    pub slots: u64,
    pub resident: u64,
    pub free: u64,
    pub filling: u64,
    /// Slots that readers may still hold.
    pub withdrawn: u64,
    pub published_total: u64,
    pub evicted_total: u64,
    /// Updates of the XDP program's map that failed.
    pub publish_failed_total: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginCounts {
    pub in_flight: u64,
    pub fetches_total: u64,
    pub bytes_total: u64,
    /// The origin does not have the chunk.
    pub absent_total: u64,
    /// The origin could not be reached or read.
    pub failed_total: u64,
    /// The origin's bytes do not match the id: altered, truncated or extended.
    pub corrupt_total: u64,
    /// Waiters whose deadline passed before the chunk arrived.
    pub unanswered_waiters_total: u64,
    /// Requests refused as BUSY because their source has used its share.
    pub source_limited_total: u64,
    /// For each origin, in the order of the configuration: abandoned reads that still occupy a
    /// thread.
    pub hung_reads: Vec<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    type Loss = fn(&mut Snapshot);

    fn one_of(reason: Reason) -> ReasonCounts {
        let count = Count {
            packets: 1,
            bytes: 92,
        };
        ReasonCounts::from([(reason.label().to_owned(), count)])
    }

    /// One GET that was steered, bounced, and answered by the socket front.
    fn balanced() -> Snapshot {
        Snapshot {
            interfaces: vec![InterfaceCounts {
                name: "eth0".to_owned(),
                xdp: BTreeMap::from([(0, one_of(Reason::Steered))]),
                workers: vec![WorkerCounts {
                    received: 1,
                    reasons: one_of(Reason::Bounced),
                    ..WorkerCounts::default()
                }],
                ..InterfaceCounts::default()
            }],
            socket: SocketCounts {
                bounced: 1,
                bounce_reasons: one_of(Reason::Served),
                ..SocketCounts::default()
            },
            ..Snapshot::default()
        }
    }

    #[test]
    fn a_datagram_that_is_lost_between_two_counts_is_found() {
        assert_eq!(balanced().unbalanced(), [""; 0]);
        let losses: [(&str, Loss); 8] = [
            ("steered on eth0", |seen| {
                seen.interfaces[0].workers[0].xsk.rx_dropped = 1;
            }),
            ("steered on eth1", |seen| {
                // The sum over both interfaces still adds up.
                let name = "eth1".to_owned();
                let moved = std::mem::take(&mut seen.interfaces[0].xdp);
                let other = InterfaceCounts {
                    name,
                    xdp: moved,
                    ..InterfaceCounts::default()
                };
                seen.interfaces.push(other);
            }),
            ("received by the worker of queue 0 of eth0", |seen| {
                seen.interfaces[0].workers[0].reasons.clear();
            }),
            ("umem frames missing", |seen| {
                seen.interfaces[0].workers[0].frames_missing = 1;
            }),
            ("received by the socket", |seen| seen.socket.received = 1),
            ("bounced by workers", |seen| seen.socket.bounced = 2),
            ("received by the socket front", |seen| {
                seen.socket.bounce_reasons.clear();
            }),
            ("slots", |seen| seen.store.slots = 1),
        ];
        for (what, lose) in losses {
            let mut seen = balanced();
            lose(&mut seen);
            let found = seen.unbalanced();
            assert!(
                found.iter().any(|line| line.starts_with(what)),
                "{what}: {found:?}"
            );
        }
    }
}
