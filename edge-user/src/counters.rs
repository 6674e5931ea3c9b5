//! What happened so far. Each thread counts in plain cells of its own; readers add them up.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

use edge_ebpf::reason::Reason;
use serde::{Deserialize, Serialize};

/// A counter with one writer and any number of readers.
#[derive(Debug, Default)]
pub struct Cell(AtomicU64);

impl Cell {
    /// Only the owning thread calls this: a load and a store, no locked instruction.
    #[inline]
    pub fn add(&self, count: u64) {
        let value = self.0.load(Ordering::Relaxed).wrapping_add(count);
        self.0.store(value, Ordering::Relaxed);
    }

    /// For a value that also falls; as `add`, the owning thread alone.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Packets and bytes, by how they ended.
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
    /// One packet of this many bytes (UDP payload) ended so.
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

/// How the datagrams of one sender ended.
#[derive(Debug, Default)]
pub struct Sends {
    /// Datagrams handed to the kernel, and their bytes (UDP payload).
    pub datagrams: Cell,
    pub bytes: Cell,
    /// Datagrams lost because the socket's send buffer was full.
    pub would_block: Cell,
    /// Datagrams the kernel refused for another cause: no route, no neighbour, or a device whose
    /// checksum offload is off on kernels that cut sends only with it.
    pub failed: Cell,
    /// The kernel's error number for the last of these.
    pub last_errno: Cell,
}

/// Everything the daemon counts, at one moment. This is what `edge stat --json` prints and what
/// `/metrics` is made from.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Snapshot {
    pub version: String,
    pub commit: String,
    pub uptime_seconds: u64,
    pub mode: Mode,
    /// Interface name, and how many RX queues it has.
    pub interface: String,
    pub queues: u32,
    pub listen: Vec<String>,
    /// Counted by the XDP program, by queue; frame bytes. Empty when XDP is off.
    pub xdp: BTreeMap<u32, ReasonCounts>,
    pub workers: Vec<WorkerCounts>,
    pub socket: SocketCounts,
    pub store: StoreCounts,
    pub origin: OriginCounts,
}

impl Snapshot {
    /// The XDP program's count of one reason, summed over queues.
    pub fn xdp_packets(&self, reason: Reason) -> u64 {
        self.xdp
            .values()
            .filter_map(|reasons| reasons.get(reason.label()))
            .map(|count| count.packets)
            .sum()
    }
}

/// The mode that really is in use.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mode {
    /// `native`, `generic` or `off`.
    pub xdp: String,
    /// `copy`, `zerocopy`, or `none` when XDP is off.
    pub bind: String,
    pub hugepages: bool,
    pub sender: String,
}

/// Reason label to count; reasons that never happened are left out.
pub type ReasonCounts = BTreeMap<String, Count>;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    pub packets: u64,
    pub bytes: u64,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorkerCounts {
    pub queue: u32,
    /// Frames taken from the RX ring; the reasons sum to it.
    pub received: u64,
    pub reasons: ReasonCounts,
    pub sends: SendCounts,
    /// The `AF_XDP` socket's own drop counters.
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
    /// Datagrams received from the kernel; the reasons sum to it.
    pub received: u64,
    pub reasons: ReasonCounts,
    /// Requests that came over from workers; their reasons are counted apart.
    pub bounced: u64,
    pub bounce_reasons: ReasonCounts,
    pub sends: SendCounts,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SendCounts {
    pub datagrams: u64,
    pub bytes: u64,
    pub would_block: u64,
    pub failed: u64,
    /// The kernel's error number for the last that failed; 0 if none did.
    pub last_errno: u64,
}

impl Sends {
    pub fn snapshot(&self) -> SendCounts {
        SendCounts {
            datagrams: self.datagrams.get(),
            bytes: self.bytes.get(),
            would_block: self.would_block.get(),
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
    /// Withdrawn, and waiting until nobody reads them any more.
    pub withdrawn: u64,
    pub published_total: u64,
    pub evicted_total: u64,
    /// Changes of the XDP program's map that the kernel refused.
    pub publish_failed_total: u64,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct OriginCounts {
    /// Fetches under way.
    pub in_flight: u64,
    pub fetches_total: u64,
    pub bytes_total: u64,
    /// The origin does not have the chunk.
    pub absent_total: u64,
    /// The origin could not be reached or read.
    pub failed_total: u64,
    /// What the origin gave is not what the id names: altered, cut or grown.
    pub corrupt_total: u64,
    /// Waiters whose deadline passed before the chunk came.
    pub unanswered_waiters_total: u64,
}
