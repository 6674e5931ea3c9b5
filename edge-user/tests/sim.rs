//! The whole system in one thread: workers, socket front, engine, store, origin, program, kernel, network,
//! readers and strangers, in virtual time. One seed is one run, the same each time; each run has
//! conditions of its own (delays, losses, small rings, a bad origin), and each step checks the
//! invariants.
//!
//! The parts are the product's own; only what it borrows from the kernel is stood in for: the
//! program's maps, the rings' other ends, sockets, `io_uring`, the origin's disk, and the clocks.
//!
//! - `SEALEDGE_SIM_SEEDS=100000` tries that many seeds instead of 10,000.
//! - `SEALEDGE_SIM_SEED=7` runs this one alone and prints each step.
//!
//! What threads do to each other inside of one step is not tried here, but in `edge-user/orders/`.
#![cfg(all(feature = "server", feature = "reader"))]

use std::any::Any;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use edge_ebpf::golden::build::{get, v4};
use edge_ebpf::maps::Resident;
use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{ChunkId, Cookie, Nack, SEGMENT_BYTES_DEFAULT};
use edge_user::cache::layout::Layout;
use edge_user::cache::lease::Lease;
use edge_user::cache::publish::Publisher;
use edge_user::cache::store::{Store, divide};
use edge_user::event_fd::EventFd;
use edge_user::limits::SLOTS_MIN;
use edge_user::serve::Unsent;
use edge_user::serve::bounce::BounceQueue;
use edge_user::serve::peer::Listeners;
use edge_user::serve::plan::Runs;
use edge_user::serve::transmit::{Incoming, Transmitter};
use edge_user::serve::xdp::worker::{WorkerCells, WorkerState};
use edge_user::sys::mapping::Mapping;
use edge_user::sys::xsk::Xsk;
use sha2::{Digest, Sha256};

use crate::sim::chance::Chance;
use crate::sim::conditions::Conditions;
use crate::sim::hand::{self, Hand};
use crate::sim::world::World;

/// In a folder of this name.
mod sim {
    /// The seed's randomness.
    pub(crate) mod chance;
    /// What a seed is tried under.
    pub(crate) mod conditions;
    /// Every chunk there is.
    pub(crate) mod catalog;
    /// What both paths borrow from the kernel: sends that end late, and not always well.
    pub(crate) mod kernel;
    /// What stands in for the XDP program and its maps.
    pub(crate) mod program;
    /// A worker, with the kernel's ends of its rings.
    pub(crate) mod hand;
    /// An origin that is slow, out of order, and not always right.
    pub(crate) mod origin;
    /// Who got how much from the edge (I14).
    pub(crate) mod traffic;
    /// A reader.
    pub(crate) mod reader;
    /// Who sends what no reader would.
    pub(crate) mod stranger;
    /// All of them, and what happens next.
    pub(crate) mod world;
}

const SEEDS: u64 = 10_000;

#[test]
fn every_invariant_holds_at_every_step_of_every_seed() {
    if let Some(seed) = number("SEALEDGE_SIM_SEED") {
        World::new(seed, true).run();
        return;
    }
    let seeds = number("SEALEDGE_SIM_SEEDS").unwrap_or(SEEDS);
    let next = AtomicU64::new(0);
    let failed: Mutex<Option<(u64, String)>> = Mutex::new(None);
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= seeds || failed.lock().unwrap().is_some() {
                        return;
                    }
                    let run = AssertUnwindSafe(|| World::new(seed, false).run());
                    if let Err(panic) = catch_unwind(run) {
                        failed.lock().unwrap().get_or_insert((seed, words(&*panic)));
                    }
                }
            });
        }
    });
    if let Some((seed, words)) = failed.into_inner().unwrap() {
        panic!(
            "seed {seed}: {words}\n\
             again, step by step: SEALEDGE_SIM_SEED={seed} cargo test -p edge-user --test sim \
             every_invariant"
        );
    }
}

#[test]
fn a_seed_makes_the_same_run_each_time() {
    for seed in 0..20 {
        let runs = [(); 2].map(|()| World::new(seed, false).run());
        assert_eq!(runs[0], runs[1], "seed {seed}");
    }
}

/// Once a worker has found its chunk, the engine takes every slot there is.
struct Evicts {
    store: Mutex<Store>,
    chunk: Vec<u8>,
}

impl Transmitter for Evicts {
    fn prefetch(&self, _lease: &Lease<'_>, _runs: &Runs) {
        let mut store = self.store.lock().unwrap();
        while let Some(slot) = store.take_free() {
            // Taken for good.
            drop(slot);
        }
        assert_eq!(store.counts().withdrawn, 1);
    }

    fn data(
        &mut self,
        _to: &mut Incoming<'_>,
        lease: &Lease<'_>,
        runs: Runs,
    ) -> Result<(), Unsent> {
        let datagram = lease.datagram(runs.first()).unwrap();
        assert_eq!(datagram[16..], self.chunk[..datagram.len() - 16]);
        Ok(())
    }

    fn nack(&mut self, _to: &mut Incoming<'_>, _nack: &Nack) -> Result<(), Unsent> {
        unreachable!("the chunk was found")
    }

    fn flush(&mut self, _xsk: &mut Xsk) {}

    fn has_unsent(&self, _xsk: &Xsk) -> bool {
        false
    }
}

#[test]
fn a_chunk_that_is_evicted_once_it_was_found_is_answered_from_all_the_same() {
    let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
    let arena_bytes = layout.slot_bytes() * SLOTS_MIN as usize;
    let arena = Mapping::sparse(arena_bytes).unwrap();
    let (view, blocks) = divide(arena, arena_bytes as u64, layout, 1).unwrap();
    let mut store = Store::new(Arc::clone(&view), blocks, Publisher::none());
    let chunk = vec![7; 5000];
    let id = ChunkId(Sha256::digest(&chunk).into());
    let written = store.take_free().unwrap().write(&view, id, &chunk);
    store.publish(written.unwrap().verify(&view).unwrap());

    let (xsk, kernel) = hand::socket(&Conditions::draw(&mut Chance::new(0)));
    let bounce_queue = Arc::new(BounceQueue::new(1, EventFd::new().unwrap()));
    let state = WorkerState {
        xsk,
        listeners: Listeners::new(&["192.0.2.10:7347".parse().unwrap()], 1),
        max_burst: 53,
        transmitter: Box::new(Evicts {
            store: Mutex::new(store),
            chunk,
        }),
        reader: view.reader(0),
        view,
        bounce_queue: Arc::clone(&bounce_queue),
        cells: Arc::new(WorkerCells::default()),
        batch: Vec::new(),
        classified: Vec::new(),
    };
    let mut hand = Hand {
        state,
        kernel,
        next: None,
        asleep: false,
    };
    let packet = v4(get(Cookie::default(), id, 1)).frame();
    let served = |hand: &mut Hand, slot| {
        let generation = 1;
        assert!(hand.receive(&packet, Resident { slot, generation }, false));
        assert!(hand.state.poll_once());
        hand.state.cells.reasons.packets(Reason::Served)
    };
    // Slots are taken from the end.
    assert_eq!(served(&mut hand, SLOTS_MIN - 1), 1);
    // The next request does not find it.
    assert_eq!(served(&mut hand, SLOTS_MIN - 1), 1);
    assert_eq!(hand.bounced(), 1);
    assert_eq!(bounce_queue.take().unwrap().get.id, id);
    hand.check();
}

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

fn words(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<&str>().map(ToString::to_string);
    (text.or_else(|| panic.downcast_ref::<String>().cloned())).unwrap_or_default()
}
