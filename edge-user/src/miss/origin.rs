//! Where chunks come from. Runs on the tokio runtime, apart from the data plane: ids go in by a
//! bounded channel, what was fetched comes out by a bounded queue and a wake-up.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use edge_ebpf::wire::ChunkId;
use object_store::ObjectStoreExt;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
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
}

#[derive(Debug)]
pub enum FetchResult {
    /// Bytes that call themselves this chunk; nobody has looked at them yet.
    Bytes(Vec<u8>),
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
pub struct Origins(Arc<[Arc<LocalFileSystem>]>);

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
        Ok(Self(directories.map(open).collect::<Result<_, _>>()?))
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
                    let result = match permit {
                        Ok(Ok(permit)) => origins.fetch(id, Arc::new(permit), deadline).await,
                        // The origin is not touched: it has enough to do as it is.
                        Ok(Err(_)) | Err(_) => late(),
                    };
                    // One flight each, so the queue has room for every result there can be.
                    let pushed = results.push(Fetched { id, result });
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
    async fn fetch(
        &self,
        id: ChunkId,
        permit: Arc<OwnedSemaphorePermit>,
        deadline: Deadline,
    ) -> FetchResult {
        let share = FETCH_DEADLINE / u32::try_from(self.0.len()).unwrap_or(u32::MAX).max(1);
        let mut outcome = FetchResult::Absent;
        for (store, left) in self.0.iter().zip((0..self.0.len()).rev()) {
            let (store, permit) = (Arc::clone(store), Arc::clone(&permit));
            // A task of its own: a read that hangs in the kernel goes on when nobody waits for it
            // any more, and keeps its place among the fetches until it ends.
            let attempt = tokio::spawn(async move {
                let found = fetch_from(store.as_ref(), &chunk_path(&id)).await;
                drop(permit);
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

async fn fetch_from(store: &LocalFileSystem, path: &ObjectPath) -> FetchResult {
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
    match found.bytes().await {
        Ok(bytes) => FetchResult::Bytes(bytes.into()),
        Err(error) => failed(error),
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
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let wake = Wake::new().unwrap();
        let desk = {
            let _inside = runtime.enter();
            origins.start(runtime.handle(), wake)
        };
        desk.ask(id, clock::now()).unwrap();
        runtime.block_on(async {
            loop {
                if let Some(fetched) = desk.next() {
                    assert_eq!(fetched.id, id);
                    break fetched.result;
                }
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
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
        assert!(matches!(lie, FetchResult::Bytes(bytes) if bytes == b"other"));
    }

    #[test]
    fn what_is_no_file_is_refused_without_waiting_for_it() {
        let folder = tempfile::tempdir().unwrap();
        let id = ChunkId([7; 32]);
        let path = folder.path().join(chunk_path(&id).to_string());
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        let origins = Origins::open([folder.path().to_owned()].into_iter()).unwrap();
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let refused = |what: &str| {
            let place = chunk_path(&id);
            let asked = fetch_from(&origins.0[0], &place);
            let got = runtime
                .block_on(async { tokio::time::timeout(Duration::from_secs(2), asked).await });
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
