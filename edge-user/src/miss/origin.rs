//! Where chunks come from. Runs on the tokio runtime, apart from the data plane: ids go in by a
//! bounded channel, what was fetched comes out by a bounded queue and a wake-up.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use edge_ebpf::wire::ChunkId;
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt};
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, mpsc};

use crate::clock;
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
    fetched: Arc<ArrayQueue<Fetched>>,
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
pub struct Origins(Arc<[Arc<dyn ObjectStore>]>);

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
            let store: Arc<dyn ObjectStore> = Arc::new(store);
            Ok(store)
        };
        Ok(Self(directories.map(open).collect::<Result<_, _>>()?))
    }

    /// Starts fetching whatever the returned desk asks for.
    pub fn start(self, runtime: &Handle, wake: Wake) -> OriginDesk {
        let (requests, mut asked) = mpsc::channel(FLIGHTS);
        let fetched = Arc::new(ArrayQueue::new(FLIGHTS));
        let results = Arc::clone(&fetched);
        runtime.spawn(async move {
            let permits = Arc::new(Semaphore::new(FETCHES));
            while let Some((id, asked_at)) = asked.recv().await {
                let Ok(permit) = Arc::clone(&permits).acquire_owned().await else {
                    break;
                };
                let (origins, results, wake) = (self.clone(), Arc::clone(&results), wake.clone());
                tokio::spawn(async move {
                    let deadline = tokio::time::Instant::from_std(asked_at + FETCH_DEADLINE);
                    let fetch = tokio::time::timeout_at(deadline, origins.fetch(&id));
                    let result = fetch.await.unwrap_or_else(|_| {
                        let seconds = FETCH_DEADLINE.as_secs();
                        FetchResult::Failed(format!("no answer within {seconds} s"))
                    });
                    drop(permit);
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
        OriginDesk { requests, fetched }
    }

    async fn fetch(&self, id: &ChunkId) -> FetchResult {
        let path = chunk_path(id);
        let mut outcome = FetchResult::Absent;
        for store in self.0.iter() {
            match fetch_from(store.as_ref(), &path).await {
                FetchResult::Absent => {}
                found @ FetchResult::Bytes(_) => return found,
                trouble @ (FetchResult::Failed(_) | FetchResult::WrongSize(_)) => outcome = trouble,
            }
        }
        outcome
    }
}

async fn fetch_from(store: &dyn ObjectStore, path: &ObjectPath) -> FetchResult {
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

impl OriginDesk {
    /// Asks for a chunk. Refused when more are waiting than there can be flights.
    pub fn ask(&self, id: ChunkId) -> Result<(), ChunkId> {
        self.requests.try_send((id, clock::now())).or(Err(id))
    }

    pub fn next(&self) -> Option<Fetched> {
        self.fetched.pop()
    }
}
