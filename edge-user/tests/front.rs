//! A front beside the datagrams: it looks chunks up, waits for those that are missing, and reads
//! them at its own pace. What an HTTP front will do, with the engine, the origin and threads as the
//! daemon has them.
#![cfg(feature = "server")]

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use edge_ebpf::wire::{ChunkId, SEGMENT_BYTES_DEFAULT};
use edge_user::cache::layout::Layout;
use edge_user::cache::lease::{CacheView, OwnedLease};
use edge_user::cache::publish::Publisher;
use edge_user::cache::store::{Store, divide};
use edge_user::clock;
use edge_user::event_fd::EventFd;
use edge_user::fetch::engine::{Engine, EngineCells};
use edge_user::fetch::flights::{Failure, Outcome, Waiter};
use edge_user::fetch::front::Front;
use edge_user::fetch::origin::local::Directory;
use edge_user::fetch::origin::pool;
use edge_user::limits::SLOTS_MIN;
use edge_user::object::key::chunk_path;
use edge_user::sys::epochs::Reader;
use edge_user::sys::mapping::Mapping;
use sha2::{Digest, Sha256};

/// More chunks than slots, so that they push each other out.
const CHUNKS: u32 = 3 * SLOTS_MIN;
const FRONTS: usize = 2;
const SECOND: Duration = Duration::from_secs(1);

/// A caller that waits for a chunk.
struct Caller(ChunkId);

impl Waiter for Caller {
    fn chunk(&self) -> ChunkId {
        self.0
    }

    fn client(&self) -> SocketAddr {
        ([127, 0, 0, 1], 1).into()
    }

    fn replaces(&self, _other: &Self) -> bool {
        false
    }
}

struct InProcess {
    view: Arc<CacheView>,
    reader: Reader,
    front: Front<Caller>,
    wake: EventFd,
}

impl InProcess {
    fn lookup(&mut self, id: &ChunkId) -> Option<OwnedLease> {
        self.reader.resume();
        let lease = self.view.lookup(&self.reader, id);
        let owned = lease.map(|lease| lease.to_owned().expect("few are in use"));
        self.reader.offline();
        owned
    }

    fn get(&mut self, id: ChunkId) -> Result<OwnedLease, Failure> {
        let begun = clock::now();
        while begun.elapsed() < 10 * SECOND {
            if let Some(lease) = self.lookup(&id) {
                return Ok(lease);
            }
            match self.front.request(Caller(id), clock::now()) {
                Outcome::Start => {}
                Outcome::Negative(failure) => return Err(failure),
                other @ (Outcome::Joined | Outcome::Full | Outcome::Share) => panic!("{other:?}"),
            }
            self.front.submit();
            let completed = loop {
                if let Some(completed) = self.front.next_completed(clock::now()) {
                    break completed;
                }
                self.wake.wait([], SECOND).unwrap();
                assert!(begun.elapsed() < 10 * SECOND, "the engine answers");
            };
            assert!(completed.waiters.iter().all(|caller| caller.0 == id));
            completed.result?;
        }
        panic!("the chunk is evicted again and again");
    }
}

fn chunk(number: u32) -> Vec<u8> {
    number.to_be_bytes().repeat(1000)
}

fn id(number: u32) -> ChunkId {
    ChunkId(Sha256::digest(chunk(number)).into())
}

fn payload(lease: &OwnedLease) -> Vec<u8> {
    lease.segments().collect::<Vec<_>>().concat()
}

/// A daemon's engine with an origin of these chunks, while the fronts run.
fn with_fronts(chunks: u32, run: fn(usize, InProcess)) -> Arc<EngineCells> {
    let folder = tempfile::tempdir().unwrap();
    (0..chunks).for_each(|number| put(folder.path(), number));
    let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
    let arena_bytes = layout.slot_bytes() * SLOTS_MIN as usize;
    let arena = Mapping::sparse(arena_bytes).unwrap();
    let (view, blocks) = divide(arena, arena_bytes as u64, layout, FRONTS).unwrap();
    let wake = EventFd::new().unwrap();
    let origin = Directory::new(folder.path().to_owned()).unwrap();
    let fetches = pool::start(vec![Box::new(origin)], &view, &wake).unwrap();
    let store = Store::new(Arc::clone(&view), blocks, Publisher::none());
    let mut engine = Engine::new(store, fetches, wake.clone());
    let cells = Arc::clone(engine.cells());
    let fronts: Vec<_> = (0..FRONTS)
        .map(|number| {
            let wake = EventFd::new().unwrap();
            InProcess {
                view: Arc::clone(&view),
                reader: view.reader(number),
                front: engine.front(wake.clone()),
                wake,
            }
        })
        .collect();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let engine = scope.spawn(|| engine.run(&stop));
        let fronts = fronts.into_iter().enumerate();
        let threads: Vec<_> = fronts
            .map(|(number, front)| scope.spawn(move || run(number, front)))
            .collect();
        let ended = threads.into_iter().map(thread::ScopedJoinHandle::join);
        let ended: Vec<_> = ended.collect();
        stop.store(true, Ordering::Release);
        wake.wake();
        engine.join().unwrap().unwrap();
        assert!(ended.iter().all(Result::is_ok), "a front failed");
    });
    cells
}

fn put(root: &Path, number: u32) {
    let path = root.join(chunk_path(&id(number)));
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, chunk(number)).unwrap();
}

#[test]
fn two_fronts_read_what_either_had_fetched_while_chunks_push_each_other_out() {
    let cells = with_fronts(CHUNKS, |number, mut front| {
        // From both ends, so that they meet.
        for step in 0..CHUNKS {
            let which = if number == 0 { step } else { CHUNKS - 1 - step };
            let lease = front.get(id(which)).unwrap();
            assert_eq!(payload(&lease), chunk(which));
        }
    });
    let counts = cells.origin();
    assert_eq!(
        [
            counts.absent_total,
            counts.failed_total,
            counts.corrupt_total
        ],
        [0; 3]
    );
    assert!(counts.fetches_total >= u64::from(CHUNKS));
    let store = *cells.store.lock().unwrap();
    assert_eq!(store.published_total, counts.fetches_total);
    assert!(store.evicted_total > 0);
}

#[test]
fn what_a_front_reads_slowly_is_not_overwritten() {
    // I6
    with_fronts(CHUNKS, |_, mut front| {
        let kept: Vec<_> = (0..4)
            .map(|number| front.get(id(number)).unwrap())
            .collect();
        for number in 4..CHUNKS {
            front.get(id(number)).unwrap();
        }
        for (lease, number) in kept.iter().zip(0..) {
            assert_eq!(payload(lease), chunk(number));
        }
    });
}

#[test]
fn a_front_is_told_that_a_chunk_is_absent() {
    let cells = with_fronts(1, |_, mut front| {
        for _ in 0..3 {
            assert_eq!(front.get(id(7)).unwrap_err(), Failure::Absent);
        }
    });
    // Once for each front, which remembers it.
    assert!(cells.origin().absent_total <= FRONTS as u64);
}
