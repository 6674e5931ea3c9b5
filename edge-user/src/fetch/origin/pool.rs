//! The threads that read from origins. Each origin has its own, so that only they block.

use std::io;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use edge_ebpf::wire::ChunkId;

use super::Origin;
use crate::cache::lease::CacheView;
use crate::event_fd::EventFd;
use crate::fetch::schedule::{Ended, Fetches};
use crate::limits::{ORIGIN_SLOTS, ORIGIN_THREADS};
use crate::spawn::refused;

/// Starts the threads of the origins, which are tried in this order. A thread ends after the
/// `Fetches` are dropped, or with the process if its read hangs.
pub fn start(
    origins: Vec<Box<dyn Origin>>,
    view: &Arc<CacheView>,
    wake: &EventFd,
) -> io::Result<Fetches> {
    start_with(origins, view, wake, ORIGIN_THREADS)
}

fn start_with(
    origins: Vec<Box<dyn Origin>>,
    view: &Arc<CacheView>,
    wake: &EventFd,
    threads: usize,
) -> io::Result<Fetches> {
    // Even if all reads hang, most of a small store stays in use.
    let share = view.slot_count() / 4 / origins.len().max(1);
    let slots = share.clamp(1, ORIGIN_SLOTS);
    let (fetches, (wanted, ended)) = Fetches::new(origins.len(), threads, slots, view);
    for (number, (origin, (wanted, slots))) in origins.into_iter().zip(wanted).enumerate() {
        let shared = Arc::new((origin, Mutex::new(wanted)));
        for _ in 0..threads {
            let (shared, ended, wake) = (Arc::clone(&shared), Arc::clone(&ended), wake.clone());
            let slots = slots.clone();
            let run = move || {
                let (origin, wanted) = &*shared;
                while let Some(id) = next(wanted) {
                    let result = origin.fetch(id, &slots);
                    let origin = number;
                    let pushed = ended.push(Ended { origin, id, result });
                    assert!(pushed.is_ok(), "the queue has room for every read");
                    wake.wake();
                }
            };
            thread::Builder::new()
                .name(format!("origin-{number}"))
                .spawn(run)
                .map_err(refused)?;
        }
    }
    Ok(fetches)
}

/// One thread waits for a read; the others wait for the lock.
fn next(wanted: &Mutex<Receiver<ChunkId>>) -> Option<ChunkId> {
    let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
    wanted.recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::fill::Verified;
    use crate::cache::layout::Layout;
    use crate::cache::store::{Store, holding};
    use crate::clock;
    use crate::fetch::origin::error::{FetchError, ReadError};
    use crate::fetch::origin::local::Directory;
    use crate::fetch::origin::slots::Slots;
    use crate::fetch::schedule::Fetched;
    use crate::fetch::source::Source;
    use crate::limits::CHUNK_BYTES;
    use crate::object::key::chunk_path;
    use edge_ebpf::wire::{ChunkId, SEGMENT_BYTES_DEFAULT};
    use sha2::{Digest as _, Sha256};
    use std::fs;
    use std::path::Path;
    use std::sync::Condvar;
    use std::time::Duration;

    const SOURCE: Source = Source::V4([192, 0, 2, 7]);
    const SOON: Duration = Duration::from_secs(5);

    fn store() -> Store {
        holding(b"another", Layout::new(SEGMENT_BYTES_DEFAULT), 0).0
    }

    fn next(fetches: &mut Fetches, store: &mut Store, within: Duration) -> Option<Fetched> {
        let begin = clock::now();
        while begin.elapsed() < within {
            fetches.begin(store);
            fetches.collect(clock::now());
            if let Some(fetched) = fetches.take() {
                return Some(fetched);
            }
            thread::yield_now();
        }
        None
    }

    fn directory(root: &Path) -> Box<dyn Origin> {
        Box::new(Directory::new(root.to_owned()).unwrap())
    }

    fn put(root: &Path, id: &ChunkId, bytes: &[u8]) {
        let path = root.join(chunk_path(id));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Fetches a chunk from two origins, given what each has as its file.
    fn ask(contents: [Option<&[u8]>; 2], id: ChunkId) -> Result<Verified, FetchError> {
        let folders = contents.map(|bytes| {
            let folder = tempfile::tempdir().unwrap();
            if let Some(bytes) = bytes {
                put(folder.path(), &id, bytes);
            }
            folder
        });
        let origins = folders.each_ref().map(|folder| directory(folder.path()));
        let (mut store, wake) = (store(), EventFd::new().unwrap());
        let mut fetches = start(origins.into(), store.view(), &wake).unwrap();
        fetches.request(id, SOURCE, clock::now());
        let done = next(&mut fetches, &mut store, SOON).unwrap();
        assert_eq!(done.id, id);
        done.result
    }

    #[test]
    fn the_second_origin_is_tried_when_the_first_fails() {
        let good = b"the bytes that the name is of".as_slice();
        let id = ChunkId(Sha256::digest(good).into());
        let large = vec![0; CHUNK_BYTES + 1];
        for first in [None, Some(b"other".as_slice()), Some(b""), Some(&large)] {
            let verified = ask([first, Some(good)], id).unwrap();
            assert_eq!(verified.chunk_bytes() as usize, good.len());
        }
        assert!(matches!(ask([None, None], id), Err(FetchError::Absent)));
        for bytes in [&large, &b"other"[..]] {
            for contents in [[Some(bytes), None], [None, Some(bytes)]] {
                assert!(matches!(ask(contents, id), Err(FetchError::Corrupt(_))));
            }
        }
    }

    #[test]
    fn reads_use_a_bounded_number_of_slots_and_absent_chunks_need_none() {
        let folder = tempfile::tempdir().unwrap();
        let ids: Vec<ChunkId> = (0..17_u8)
            .map(|number| {
                let bytes = [number; 32];
                let id = ChunkId(Sha256::digest(bytes).into());
                put(folder.path(), &id, &bytes);
                id
            })
            .collect();
        let origin = directory(folder.path());
        let (mut store, wake) = (store(), EventFd::new().unwrap());
        let mut fetches = start(vec![origin], store.view(), &wake).unwrap();
        for id in &ids {
            fetches.request(*id, SOURCE, clock::now());
        }
        // A quarter of the store: results that have not been taken hold their slots.
        let begin = clock::now();
        while fetches.completed() < 16 {
            fetches.begin(&mut store);
            fetches.collect(clock::now());
            assert!(begin.elapsed() < SOON);
            thread::yield_now();
        }
        let absent = ChunkId([0xee; 32]);
        fetches.request(absent, SOURCE, clock::now());
        while fetches.completed() < 17 {
            fetches.begin(&mut store);
            fetches.collect(clock::now());
            assert!(begin.elapsed() < SOON);
            thread::yield_now();
        }
        assert_eq!(store.counts().filling, 16);
        let mut found = 0;
        for _ in 0..18 {
            let Fetched { id, result } = next(&mut fetches, &mut store, SOON).unwrap();
            match result {
                Ok(verified) => {
                    assert!(ids.contains(&id));
                    store.publish(verified);
                    found += 1;
                }
                Err(_) => assert_eq!(id, absent),
            }
        }
        assert_eq!((found, fetches.in_flight()), (17, 0));
    }

    /// An origin whose reads block until it is opened.
    #[derive(Default)]
    struct Gate {
        open: Mutex<bool>,
        opened: Condvar,
    }

    impl Origin for Arc<Gate> {
        fn fetch(&self, _id: ChunkId, _slots: &Slots) -> Result<Verified, ReadError> {
            let open = self.open.lock().unwrap();
            drop(self.opened.wait_while(open, |open| !*open).unwrap());
            Err(FetchError::Absent.into())
        }
    }

    #[test]
    fn origins_of_two_kinds_serve_one_engine() {
        let (folder, bytes) = (tempfile::tempdir().unwrap(), b"the second has it");
        let id = ChunkId(Sha256::digest(bytes).into());
        put(folder.path(), &id, bytes);
        let gate = Arc::new(Gate::default());
        *gate.open.lock().unwrap() = true;
        let origins = vec![Box::new(gate), directory(folder.path())];
        let (mut store, wake) = (store(), EventFd::new().unwrap());
        let mut fetches = start(origins, store.view(), &wake).unwrap();
        fetches.request(id, SOURCE, clock::now());
        let done = next(&mut fetches, &mut store, SOON).unwrap();
        assert!(done.result.is_ok());
    }

    #[test]
    fn reads_that_hang_do_not_delay_shutdown() {
        let gate = Arc::new(Gate::default());
        let origins: Vec<Box<dyn Origin>> = vec![Box::new(Arc::clone(&gate))];
        let (mut store, wake) = (store(), EventFd::new().unwrap());
        let mut fetches = start_with(origins, store.view(), &wake, 2).unwrap();
        for number in 0..3 {
            fetches.request(ChunkId([number; 32]), SOURCE, clock::now());
        }
        assert!(next(&mut fetches, &mut store, Duration::from_millis(50)).is_none());
        drop(fetches);
        *gate.open.lock().unwrap() = true;
        gate.opened.notify_all();
        let begin = clock::now();
        while Arc::strong_count(&gate) > 1 {
            assert!(begin.elapsed() < SOON, "the threads did not end");
            thread::yield_now();
        }
    }
}
