//! The threads that read origins: each origin has its own, and they wait for its disk so that nobody
//! else does.

use std::io::{self, Read as _};
use std::mem;
use std::sync::mpsc::Receiver;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use edge_ebpf::wire::ChunkId;

use super::local::Directory;
use crate::fetch::schedule::Fetches;
use crate::limits::{CHUNK_BYTES, ORIGIN_BUFFERS, ORIGIN_THREADS};
use crate::spawn::refused;
use crate::sys::receive::Wake;

/// A chunk to read at one origin.
#[derive(Debug)]
pub struct Read {
    pub id: ChunkId,
    /// What to read it into. Without one only whether it is there can be found out.
    pub buffer: Option<Buffer>,
    /// Whether to compare it with its id: another origin may have the right bytes.
    pub compare: bool,
}

/// A read that ended.
#[derive(Debug)]
pub struct Ended {
    /// Index of the origin.
    pub origin: usize,
    pub id: ChunkId,
    pub found: Found,
}

/// What a read came to.
#[derive(Debug)]
pub enum Found {
    Bytes(Bytes),
    Absent,
    /// Is there, and had no buffer to be read into.
    NoBuffer,
    Failed(String),
    Altered,
    WrongSize(u64),
}

/// Memory that chunks are read into, and into again. What one thread allocates and another frees
/// would stay with the first one's heap.
pub type Spare = Arc<ArrayQueue<Vec<u8>>>;

/// Memory for one chunk, which comes back when nobody needs its bytes any more.
#[derive(Debug)]
pub struct Buffer {
    bytes: Vec<u8>,
    spare: Spare,
}

impl Buffer {
    /// For so many chunks; each takes memory when it is first read into.
    pub fn spare(count: usize) -> Spare {
        let spare = ArrayQueue::new(count);
        while spare.push(Vec::new()).is_ok() {}
        Arc::new(spare)
    }

    pub fn new(bytes: Vec<u8>, spare: &Spare) -> Self {
        Self {
            bytes,
            spare: Arc::clone(spare),
        }
    }

    pub fn read(mut self, file: impl io::Read) -> io::Result<Bytes> {
        self.bytes.reserve_exact(CHUNK_BYTES);
        file.take(CHUNK_BYTES as u64).read_to_end(&mut self.bytes)?;
        Ok(Bytes::from_owner(self))
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        self.bytes.clear();
        let pushed = self.spare.push(mem::take(&mut self.bytes));
        debug_assert!(pushed.is_ok(), "it came from there");
    }
}

/// Starts the threads of these origins, which are asked in this order. They end when what is returned
/// is gone, or, where a read hangs, with the process.
pub fn start(origins: Vec<Directory>, wake: &Wake) -> io::Result<Fetches> {
    start_with(origins, wake, ORIGIN_THREADS, Directory::read)
}

/// The same with another way to read an origin.
fn start_with<Origin: Send + Sync + 'static>(
    origins: Vec<Origin>,
    wake: &Wake,
    threads: usize,
    read: fn(&Origin, Read) -> Found,
) -> io::Result<Fetches> {
    let (fetches, (wanted, ended)) = Fetches::new(origins.len(), threads, ORIGIN_BUFFERS);
    for (number, (origin, wanted)) in origins.into_iter().zip(wanted).enumerate() {
        let shared = Arc::new((origin, Mutex::new(wanted)));
        for _ in 0..threads {
            let (shared, ended, wake) = (Arc::clone(&shared), Arc::clone(&ended), wake.clone());
            let run = move || {
                let (origin, wanted) = &*shared;
                while let Some(wanted) = next(wanted) {
                    let id = wanted.id;
                    let found = read(origin, wanted);
                    let origin = number;
                    // A read counts as under way until it is taken from there.
                    let pushed = ended.push(Ended { origin, id, found });
                    assert!(pushed.is_ok(), "there is room for every read under way");
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

/// One thread waits for a read, the others for their turn to.
fn next(wanted: &Mutex<Receiver<Read>>) -> Option<Read> {
    let wanted = wanted.lock().unwrap_or_else(PoisonError::into_inner);
    wanted.recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use crate::fetch::schedule::{FetchResult, Fetched};
    use crate::fetch::source::Source;
    use crate::object::key::chunk_path;
    use edge_ebpf::wire::ChunkId;
    use sha2::{Digest as _, Sha256};
    use std::fs;
    use std::path::Path;
    use std::sync::Condvar;
    use std::time::Duration;

    const SOURCE: Source = Source::V4([192, 0, 2, 7]);
    const SOON: Duration = Duration::from_secs(5);

    fn next(fetches: &mut Fetches, within: Duration) -> Option<Fetched> {
        let begin = clock::now();
        while begin.elapsed() < within {
            fetches.hear(clock::now());
            if let Some(landed) = fetches.take() {
                return Some(landed);
            }
            thread::yield_now();
        }
        None
    }

    fn put(root: &Path, id: &ChunkId, bytes: &[u8]) {
        let path = root.join(chunk_path(id));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    /// Two origins; what stands in each as the chunk, if anything.
    fn ask(contents: [Option<&[u8]>; 2], id: ChunkId) -> FetchResult {
        let folders = contents.map(|bytes| {
            let folder = tempfile::tempdir().unwrap();
            if let Some(bytes) = bytes {
                put(folder.path(), &id, bytes);
            }
            folder
        });
        let origins = folders
            .each_ref()
            .map(|folder| Directory::new(folder.path().to_owned()).unwrap());
        let mut fetches = start(origins.into(), &Wake::new().unwrap()).unwrap();
        fetches.ask(id, SOURCE, clock::now());
        let landed = next(&mut fetches, SOON).unwrap();
        assert_eq!(landed.id, id);
        landed.result
    }

    #[test]
    fn the_second_origin_is_asked_when_the_first_cannot_help() {
        let good = b"the bytes that the name is of".as_slice();
        let id = ChunkId(Sha256::digest(good).into());
        let large = vec![0; CHUNK_BYTES + 1];
        for first in [None, Some(b"other".as_slice()), Some(b""), Some(&large)] {
            let result = ask([first, Some(good)], id);
            assert!(matches!(result, FetchResult::Bytes(bytes) if bytes == good));
        }
        assert!(matches!(ask([None, None], id), FetchResult::Absent));
        let size_bytes = large.len() as u64;
        assert!(matches!(
            ask([Some(&large), None], id),
            FetchResult::WrongSize(size) if size == size_bytes
        ));
        let lie = ask([Some(b"other"), None], id);
        assert!(matches!(lie, FetchResult::Altered));
        // The last one's lie is handed on: the fill compares.
        let lie = ask([None, Some(b"other")], id);
        assert!(matches!(lie, FetchResult::Bytes(bytes) if *bytes == b"other"[..]));
    }

    #[test]
    fn no_more_is_read_than_can_be_stored_and_what_is_absent_is_found_out_meanwhile() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = 0..=u8::try_from(ORIGIN_BUFFERS).unwrap();
        let ids: Vec<ChunkId> = numbers.map(|number| ChunkId([number; 32])).collect();
        for id in &ids {
            put(folder.path(), id, &id.0);
        }
        let origin = Directory::new(folder.path().to_owned()).unwrap();
        let mut fetches = start(vec![origin], &Wake::new().unwrap()).unwrap();
        for id in &ids {
            fetches.ask(*id, SOURCE, clock::now());
        }
        let mut read: Vec<Fetched> = (0..ORIGIN_BUFFERS)
            .map(|_| next(&mut fetches, SOON).unwrap())
            .collect();
        let early = next(&mut fetches, Duration::from_millis(100));
        assert!(early.is_none(), "{early:?}");
        let absent = ChunkId([0xee; 32]);
        fetches.ask(absent, SOURCE, clock::now());
        let found = next(&mut fetches, SOON).unwrap();
        assert!(found.id == absent && matches!(found.result, FetchResult::Absent));
        read.pop();
        read.push(next(&mut fetches, SOON).unwrap());
        for Fetched { id, result } in &read {
            assert!(matches!(result, FetchResult::Bytes(bytes) if bytes == &id.0[..]));
        }
        assert_eq!(fetches.under_way(), 0);
    }

    /// An origin whose reads end when they are let.
    #[derive(Default)]
    struct Gate {
        open: Mutex<bool>,
        opened: Condvar,
    }

    impl Gate {
        fn read(self: &Arc<Self>, _read: Read) -> Found {
            let open = self.open.lock().unwrap();
            drop(self.opened.wait_while(open, |open| !*open).unwrap());
            Found::Absent
        }
    }

    #[test]
    fn reads_that_hang_keep_nobody_from_ending() {
        let gate = Arc::new(Gate::default());
        let origins = vec![Arc::clone(&gate)];
        let mut fetches = start_with(origins, &Wake::new().unwrap(), 2, Gate::read).unwrap();
        for number in 0..3 {
            fetches.ask(ChunkId([number; 32]), SOURCE, clock::now());
        }
        assert!(next(&mut fetches, Duration::from_millis(50)).is_none());
        // Whoever ends, ends now; and the threads do when they can.
        drop(fetches);
        *gate.open.lock().unwrap() = true;
        gate.opened.notify_all();
        let begin = clock::now();
        while Arc::strong_count(&gate) > 1 {
            assert!(begin.elapsed() < SOON, "the threads end too");
            thread::yield_now();
        }
    }
}
