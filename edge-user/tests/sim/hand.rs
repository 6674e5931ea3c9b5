//! A worker, with the kernel's ends of its rings.

use std::fs::File;
use std::iter::once;
use std::time::Duration;

use edge_ebpf::maps::Resident;
use edge_ebpf::reason::Reason;
use edge_user::counters::{InterfaceCounts, Reasons, Snapshot, WorkerCounts, XskCounts};
use edge_user::serve::xdp::worker::WorkerState;
use edge_user::sys::mapping::Mapping;
use edge_user::sys::ring::{Consuming, Producing, Ring};
use edge_user::sys::ring_memory::{Entry, RingMemory};
use edge_user::sys::xsk::{Xsk, XskRings, XskSizes};

use super::chance::Chance;
use super::conditions::Conditions;

/// Room in front of a packet, where the mark goes.
const HEADROOM: usize = 256;
const FRAME_BYTES: u32 = 2048;

pub(crate) struct Hand {
    pub(crate) state: WorkerState,
    pub(crate) kernel: KernelSide,
    /// When it looks again by itself.
    pub(crate) next: Option<Duration>,
    pub(crate) asleep: bool,
}

/// The kernel's ends, and what the kernel has.
pub(crate) struct KernelSide {
    fill: Ring<u64, Consuming>,
    rx: Ring<libc::xdp_desc, Producing>,
    tx: Option<(Ring<libc::xdp_desc, Consuming>, Ring<u64, Producing>)>,
    /// Frames taken from the fill ring.
    held: Vec<u64>,
    /// Frames taken from the TX ring, and when they are sent.
    sending: Vec<(Duration, u64)>,
    rx_frames: usize,
    /// Descriptors put into the RX ring, and those among them that name no frame.
    put: u64,
    bad: u64,
    pub(crate) lost: u64,
}

fn ring<T: Entry>(len: u32) -> (Ring<T, Producing>, Ring<T, Consuming>) {
    let (one, other) = RingMemory::pair(len).unwrap();
    (Ring::new(one), Ring::new(other))
}

/// A socket over rings of our own; where the kernel would be woken there is nobody.
pub(crate) fn socket(with: &Conditions) -> (Xsk, KernelSide) {
    let tx_frames = if with.by_frames { with.tx_frames } else { 0 };
    let sizes = XskSizes {
        frame_bytes: FRAME_BYTES,
        rx_frames: with.rx_frames,
        tx_frames,
        fill_ring: 2 * with.rx_frames,
        rx_ring: with.rx_ring,
        tx_ring: tx_frames,
        completion_ring: tx_frames,
    };
    let (fill, fill_kernel) = ring(sizes.fill_ring);
    let (rx_kernel, rx) = ring(sizes.rx_ring);
    let (transmit, tx_kernel) = if tx_frames > 0 {
        let (tx, tx_kernel) = ring(tx_frames);
        let (done_kernel, done) = ring(tx_frames);
        (Some((tx, done)), Some((tx_kernel, done_kernel)))
    } else {
        (None, None)
    };
    let rings = XskRings { fill, rx, transmit };
    let umem = Mapping::sparse(sizes.umem_bytes()).unwrap();
    let nobody = File::open("/dev/null").unwrap();
    let kernel = KernelSide {
        fill: fill_kernel,
        rx: rx_kernel,
        tx: tx_kernel,
        held: Vec::new(),
        sending: Vec::new(),
        rx_frames: sizes.rx_frames as usize,
        put: 0,
        bad: 0,
        lost: 0,
    };
    (Xsk::over(nobody.into(), rings, umem, sizes), kernel)
}

impl Hand {
    /// A steered packet, with the program's mark in front. Says whether it got in.
    pub(crate) fn receive(&mut self, packet: &[u8], mark: Resident, bad_descriptor: bool) -> bool {
        let Self { state, kernel, .. } = self;
        if bad_descriptor {
            let desc = libc::xdp_desc {
                addr: u64::MAX / 2,
                len: 64,
                options: 0,
            };
            let put = u64::from(kernel.rx.produce(once(desc)));
            kernel.put += put;
            kernel.bad += put;
        }
        kernel.take_fill();
        let Some(address) = kernel.held.pop() else {
            kernel.lost += 1;
            return false;
        };
        let frame = state.xsk.kernels_frame(address);
        let frame = frame.expect("I2: the fill ring names frames that were given to the kernel");
        frame[HEADROOM - 8..HEADROOM].copy_from_slice(&mark.to_metadata());
        frame[HEADROOM..HEADROOM + packet.len()].copy_from_slice(packet);
        let desc = libc::xdp_desc {
            addr: address + HEADROOM as u64,
            len: u32::try_from(packet.len()).expect("a packet"),
            options: 0,
        };
        if kernel.rx.produce(once(desc)) == 0 {
            kernel.held.push(address);
            kernel.lost += 1;
            return false;
        }
        kernel.put += 1;
        true
    }

    /// Packets in the RX ring.
    pub(crate) fn waiting(&self) -> bool {
        self.kernel.put > self.state.cells.received.get()
    }

    pub(crate) fn bounced(&self) -> u64 {
        self.state.cells.reasons.packets(Reason::Bounced)
    }

    /// What is true between two turns.
    pub(crate) fn check(&mut self) {
        let cells = &self.state.cells;
        // I10
        assert_eq!(
            cells.received.get(),
            total(&cells.reasons),
            "I10: a worker's reasons are what it received"
        );
        // I2
        let Self { state, kernel, .. } = self;
        kernel.take_fill();
        let bad = state.cells.reasons.packets(Reason::BadDescriptor);
        let in_ring = kernel.put - state.cells.received.get() - (kernel.bad - bad);
        assert_eq!(
            kernel.held.len() as u64 + in_ring,
            kernel.rx_frames as u64,
            "I2: every frame to receive into is in one place"
        );
        assert_eq!(state.xsk.frames_missing(), 0, "I2: a frame has an owner");
    }

    /// What the kernel does when it is woken to send: takes what is queued, or a part of it.
    pub(crate) fn transmit(
        &mut self,
        now: Duration,
        chance: &mut Chance,
        with: &Conditions,
    ) -> Vec<Vec<u8>> {
        let Self { state, kernel, .. } = self;
        let Some((tx, _)) = &mut kernel.tx else {
            return Vec::new();
        };
        let most = if chance.permille(with.late) {
            u32::try_from(chance.below(3)).expect("below three")
        } else {
            u32::MAX
        };
        let mut packets = Vec::new();
        tx.consume(most, |desc| {
            let frame = state.xsk.kernels_frame(desc.addr);
            let frame = frame.expect("I2: the TX ring names frames that were given to the kernel");
            packets.push(frame[..desc.len as usize].to_vec());
            let taken = kernel.sending.iter().any(|(_, other)| *other == desc.addr);
            assert!(!taken, "I2: a frame is sent once at a time");
            let wait = if chance.permille(with.late) {
                chance.time(with.late_by)
            } else {
                Duration::ZERO
            };
            kernel.sending.push((now + wait, desc.addr));
        });
        packets
    }

    pub(crate) fn next_completion(&self) -> Option<Duration> {
        self.kernel.sending.iter().map(|(at, _)| *at).min()
    }

    /// Completes the frames that are sent by now.
    pub(crate) fn complete(&mut self, now: Duration) {
        let Some((_, done)) = &mut self.kernel.tx else {
            return;
        };
        self.kernel.sending.retain(|(at, address)| {
            let over = *at <= now;
            assert!(
                !over || done.produce(once(*address)) == 1,
                "I2: the completion ring holds every frame"
            );
            !over
        });
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.asleep
            && !self.waiting()
            && self.kernel.sending.is_empty()
            && self.kernel.tx.as_ref().is_none_or(|(tx, _)| tx.is_empty())
    }

    /// As the operator sees it.
    pub(crate) fn counts(&self, queue: usize) -> WorkerCounts {
        let cells = &self.state.cells;
        WorkerCounts {
            queue: u32::try_from(queue).expect("few"),
            // A descriptor that names no frame was no packet of the program's.
            received: cells.received.get(),
            frames_missing: cells.frames_missing.get(),
            reasons: cells.reasons.snapshot(),
            sends: cells.sends.snapshot(),
            xsk: XskCounts {
                rx_dropped: self.kernel.lost,
                ..XskCounts::default()
            },
            ..WorkerCounts::default()
        }
    }

    pub(crate) fn strays(&self) -> u64 {
        self.kernel.bad
    }
}

impl KernelSide {
    fn take_fill(&mut self) {
        let held = &mut self.held;
        self.fill.consume(u32::MAX, |address| {
            assert!(
                !held.contains(&address),
                "I2: a frame is in the fill ring twice"
            );
            held.push(address);
        });
    }
}

pub(crate) fn total(reasons: &Reasons) -> u64 {
    Reason::ALL
        .iter()
        .map(|reason| reasons.packets(*reason))
        .sum()
}

/// A snapshot with nothing but this in it.
pub(crate) fn snapshot(hands: &[Hand]) -> Snapshot {
    let workers = hands.iter().enumerate();
    Snapshot {
        interfaces: vec![InterfaceCounts {
            workers: workers.map(|(queue, hand)| hand.counts(queue)).collect(),
            ..InterfaceCounts::default()
        }],
        ..Snapshot::default()
    }
}
