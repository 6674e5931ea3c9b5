//! Where chunks come from. Runs on the tokio runtime, apart from the data plane: ids go in by a
//! bounded channel, what was fetched comes out by a bounded queue and a wake-up.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::mem;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use crossbeam::queue::ArrayQueue;
use edge_ebpf::wire::ChunkId;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{GetResultPayload, ObjectStoreExt};
use sha2::{Digest, Sha256};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::spawn_blocking;
use tokio::time::{Instant as Deadline, timeout_at};

use crate::layout::chunk_path;
use crate::limits::{CHUNK_BYTES, FETCH_DEADLINE, FETCHES, FLIGHTS};
use crate::sys::receive::Wake;

/// What came of a fetch.
#[derive(Debug)]
pub struct Fetched {
    pub id: ChunkId,
    pub result: FetchResult,
    /// Kept until the bytes are stored: those that were read and wait for it are as many as fetches,
    /// and not as many as flights.
    pub place: Option<Place>,
}

/// Among the fetches that there can be at once.
pub type Place = Arc<OwnedSemaphorePermit>;

/// Memory that chunks were read into, to read the next ones into. What one thread allocates and
/// another frees stays with the first one's heap, and each thread that reads would have its own.
type Spare = Arc<ArrayQueue<Vec<u8>>>;

/// Memory that comes back when nobody needs its bytes any more.
struct Buffer {
    bytes: Vec<u8>,
    spare: Spare,
}

impl Buffer {
    fn new(spare: &Spare) -> Self {
        let bytes = spare.pop();
        Self {
            bytes: bytes.unwrap_or_else(|| Vec::with_capacity(CHUNK_BYTES)),
            spare: Arc::clone(spare),
        }
    }

    fn read(mut self, file: File) -> io::Result<Bytes> {
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
        // More than there are fetches at once are not kept.
        let _full = self.spare.push(mem::take(&mut self.bytes));
    }
}

#[derive(Debug)]
pub enum FetchResult {
    /// Bytes that call themselves this chunk; nobody has looked at them yet.
    Bytes(Bytes),
    Absent,
    /// Could not be asked or read in time; says why.
    Failed(String),
    /// Is there, and cannot be a chunk: this many bytes.
    WrongSize(u64),
}

/// The miss path's end.
#[derive(Debug)]
pub struct OriginDesk {
    requests: mpsc::Sender<(ChunkId, Instant)>,
    fetched: Results,
}

/// An origin cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("origin {path}: {reason}")]
pub struct OriginError {
    path: PathBuf,
    reason: String,
}

/// The origins, in the order they are asked.
#[derive(Clone, Debug)]
pub struct Origins {
    stores: Arc<[Arc<LocalFileSystem>]>,
    spare: Spare,
}

impl Origins {
    /// Local directories.
    pub fn open(directories: impl Iterator<Item = PathBuf>) -> Result<Self, OriginError> {
        let open = |path: PathBuf| {
            if !path.is_dir() {
                let reason = "is not a directory; create it, or name another in [[origin]] url";
                return Err(OriginError {
                    path,
                    reason: reason.to_owned(),
                });
            }
            let store = LocalFileSystem::new_with_prefix(&path).map_err(|cause| OriginError {
                reason: cause.to_string(),
                path,
            })?;
            Ok(Arc::new(store))
        };
        Ok(Self {
            stores: directories.map(open).collect::<Result<_, _>>()?,
            spare: Arc::new(ArrayQueue::new(FETCHES)),
        })
    }

    /// Starts fetching whatever the returned desk asks for.
    pub fn start(self, runtime: &Handle, wake: Wake) -> OriginDesk {
        let (desk, mut asked, results) = OriginDesk::new(FLIGHTS);
        runtime.spawn(async move {
            let permits = Arc::new(Semaphore::new(FETCHES));
            while let Some((id, asked_at)) = asked.recv().await {
                let deadline = Deadline::from_std(asked_at + FETCH_DEADLINE);
                let permit = timeout_at(deadline, Arc::clone(&permits).acquire_owned()).await;
                let (origins, results, wake) = (self.clone(), Arc::clone(&results), wake.clone());
                tokio::spawn(async move {
                    let place: Option<Place> = permit.ok().and_then(Result::ok).map(Arc::new);
                    let result = match &place {
                        Some(place) => origins.fetch(id, place, deadline).await,
                        // The origin is not touched: it has enough to do as it is.
                        None => late(),
                    };
                    // One flight each, so the queue has room for every result there can be.
                    let pushed = results.push(Fetched { id, result, place });
                    assert!(
                        pushed.is_ok(),
                        "there are at most as many fetches as flights"
                    );
                    wake.wake();
                });
            }
        });
        desk
    }

    /// Asks one origin after the other, each for its share of the time.
    async fn fetch(&self, id: ChunkId, place: &Place, deadline: Deadline) -> FetchResult {
        let count = self.stores.len();
        let share = FETCH_DEADLINE / u32::try_from(count).unwrap_or(u32::MAX).max(1);
        let mut outcome = FetchResult::Absent;
        for (store, left) in self.stores.iter().zip((0..count).rev()) {
            let (store, place) = (Arc::clone(store), Arc::clone(place));
            let buffers = Arc::clone(&self.spare);
            // A task of its own: a read that hangs in the kernel goes on when nobody waits for it
            // any more, and keeps its place among the fetches until it ends.
            let attempt = tokio::spawn(async move {
                let found = fetch_from(store.as_ref(), &chunk_path(&id), &buffers).await;
                drop(place);
                found
            });
            let until = deadline.min(Deadline::now() + share);
            match timeout_at(until, attempt).await {
                Ok(Ok(FetchResult::Absent)) => {}
                Ok(Ok(FetchResult::Bytes(bytes))) => {
                    // The fill compares them again, where they come to lie; here it decides
                    // whether the next origin is worth asking.
                    if left == 0 || Sha256::digest(&bytes).as_slice() == id.0 {
                        return FetchResult::Bytes(bytes);
                    }
                    outcome = FetchResult::Bytes(bytes);
                }
                Ok(Ok(trouble)) => outcome = trouble,
                Ok(Err(died)) => outcome = FetchResult::Failed(died.to_string()),
                Err(_) => outcome = late(),
            }
        }
        outcome
    }
}

fn late() -> FetchResult {
    let seconds = FETCH_DEADLINE.as_secs();
    FetchResult::Failed(format!("no answer within {seconds} s"))
}

async fn fetch_from(store: &LocalFileSystem, path: &ObjectPath, spare: &Spare) -> FetchResult {
    // To open a pipe is to wait until somebody writes into it, and a place among the fetches would
    // be lost to that. What cannot be looked at cannot be opened either, which says why.
    if let Ok(file) = store.path_to_filesystem(path)
        && let Ok(Ok(meta)) = spawn_blocking(|| fs::metadata(file)).await
        && !meta.is_file()
    {
        return FetchResult::Failed("is not a file".to_owned());
    }
    let failed = |error: object_store::Error| {
        if matches!(error, object_store::Error::NotFound { .. }) {
            FetchResult::Absent
        } else {
            FetchResult::Failed(error.to_string())
        }
    };
    let found = match store.get(path).await {
        Ok(found) => found,
        Err(error) => return failed(error),
    };
    // Before a byte is read: what grew is not to fill our memory.
    let size_bytes = found.meta.size;
    if size_bytes == 0 || size_bytes > CHUNK_BYTES as u64 {
        return FetchResult::WrongSize(size_bytes);
    }
    let GetResultPayload::File(file, _) = found.payload else {
        return FetchResult::Failed("is not a file".to_owned());
    };
    let buffer = Buffer::new(spare);
    match spawn_blocking(|| buffer.read(file)).await {
        Ok(Ok(bytes)) => FetchResult::Bytes(bytes),
        Ok(Err(error)) => FetchResult::Failed(error.to_string()),
        Err(died) => FetchResult::Failed(died.to_string()),
    }
}

/// What is asked for, and when it was, in order.
pub type Asked = mpsc::Receiver<(ChunkId, Instant)>;
/// Where what came of it goes.
pub type Results = Arc<ArrayQueue<Fetched>>;

impl OriginDesk {
    /// A desk, and the far ends of its queues, for at most this many chunks.
    pub fn new(most: usize) -> (Self, Asked, Results) {
        let (requests, asked) = mpsc::channel(most);
        let results = Arc::new(ArrayQueue::new(most));
        let fetched = Arc::clone(&results);
        (Self { requests, fetched }, asked, results)
    }

    /// Asks for a chunk. Refused when more are waiting than there can be flights.
    pub fn ask(&self, id: ChunkId, now: Instant) -> Result<(), ChunkId> {
        self.requests.try_send((id, now)).or(Err(id))
    }

    pub fn next(&self) -> Option<Fetched> {
        self.fetched.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock;
    use rustix::fs::{CWD, Mode, mkfifoat};
    use std::time::Duration;
    use tokio::runtime::Runtime;
    use tokio::time::timeout;

    /// Two origins; what stands in each as the chunk, if anything.
    fn ask(first: Option<&[u8]>, second: Option<&[u8]>, id: ChunkId) -> FetchResult {
        let folders = [first, second].map(|bytes| {
            let folder = tempfile::tempdir().unwrap();
            if let Some(bytes) = bytes {
                let path = folder.path().join(chunk_path(&id).to_string());
                fs::create_dir_all(path.parent().unwrap()).unwrap();
                fs::write(path, bytes).unwrap();
            }
            folder
        });
        let paths = folders.each_ref().map(|folder| folder.path().to_owned());
        let origins = Origins::open(paths.into_iter()).unwrap();
        let runtime = Runtime::new().unwrap();
        let wake = Wake::new().unwrap();
        let desk = {
            let _inside = runtime.enter();
            origins.start(runtime.handle(), wake)
        };
        desk.ask(id, clock::now()).unwrap();
        let fetched = next(&runtime, &desk, SOON).unwrap();
        assert_eq!(fetched.id, id);
        fetched.result
    }

    const SOON: Duration = Duration::from_secs(5);

    fn next(runtime: &Runtime, desk: &OriginDesk, within: Duration) -> Option<Fetched> {
        let fetched = async {
            loop {
                if let Some(fetched) = desk.next() {
                    break fetched;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        runtime.block_on(async { timeout(within, fetched).await.ok() })
    }

    #[test]
    fn the_second_origin_is_asked_when_the_first_cannot_help() {
        let good = b"the bytes that the name is of".as_slice();
        let id = ChunkId(Sha256::digest(good).into());
        let large = vec![0; CHUNK_BYTES + 1];
        for first in [None, Some(b"other".as_slice()), Some(b""), Some(&large)] {
            let result = ask(first, Some(good), id);
            assert!(matches!(result, FetchResult::Bytes(bytes) if bytes == good));
        }
        assert!(matches!(ask(None, None, id), FetchResult::Absent));
        let size_bytes = large.len() as u64;
        assert!(matches!(
            ask(Some(&large), None, id),
            FetchResult::WrongSize(size) if size == size_bytes
        ));
        // A lie is handed on, for the fill to count, when there is nothing better.
        let lie = ask(Some(b"other"), None, id);
        assert!(matches!(lie, FetchResult::Bytes(bytes) if *bytes == b"other"[..]));
    }

    #[test]
    fn no_more_is_read_than_can_be_stored() {
        let folder = tempfile::tempdir().unwrap();
        let numbers = 0..=u8::try_from(FETCHES).unwrap();
        let ids: Vec<ChunkId> = numbers.map(|number| ChunkId([number; 32])).collect();
        for id in &ids {
            let path = folder.path().join(chunk_path(id).to_string());
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, id.0).unwrap();
        }
        let runtime = Runtime::new().unwrap();
        let origins = Origins::open([folder.path().to_owned()].into_iter()).unwrap();
        let spare = Arc::clone(&origins.spare);
        let desk = origins.start(runtime.handle(), Wake::new().unwrap());
        for id in &ids {
            desk.ask(*id, clock::now()).unwrap();
        }
        let mut read: Vec<Fetched> = (0..FETCHES)
            .map(|_| next(&runtime, &desk, SOON).unwrap())
            .collect();
        let early = next(&runtime, &desk, Duration::from_millis(100));
        assert!(early.is_none(), "{early:?}");
        read.pop();
        read.push(next(&runtime, &desk, SOON).unwrap());
        for Fetched { id, result, .. } in &read {
            assert!(matches!(result, FetchResult::Bytes(bytes) if bytes == &id.0[..]));
        }
        drop(read);
        assert_eq!(spare.len(), FETCHES, "to be read into again");
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let id = ChunkId([7; 32]);
        let path = folder.path().join(chunk_path(&id).to_string());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let origins = Origins::open([folder.path().to_owned()].into_iter()).unwrap();
        let runtime = Runtime::new().unwrap();
        let refused = |what: &str| {
            let place = chunk_path(&id);
            let asked = fetch_from(&origins.stores[0], &place, &origins.spare);
            let got = runtime.block_on(async { timeout(Duration::from_secs(2), asked).await });
            assert!(
                matches!(&got, Ok(FetchResult::Failed(why)) if why == "is not a file"),
                "{what}: {got:?}"
            );
        };
        mkfifoat(CWD, &path, Mode::RUSR | Mode::WUSR).unwrap();
        refused("a pipe nobody writes into");
        fs::remove_file(&path).unwrap();
        fs::create_dir(&path).unwrap();
        refused("a directory");
    }

    #[test]
    fn a_missing_origin_is_named_with_the_remedy() {
        let error = Origins::open([PathBuf::from("/nowhere/at/all")].into_iter()).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/nowhere/at/all") && text.contains("create it"),
            "{text}"
        );
    }
}
