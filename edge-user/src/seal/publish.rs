//! Encrypts a file and uploads its chunks: one thread reads, several encrypt and upload, and the
//! caller's builds the tree. Memory use does not depend on the size of the file.
//!
//! An interrupted run leaves chunks without a ticket: ciphertext whose key is lost. It cannot be
//! resumed, by design: that would need a stored key, or one derived from the content, which would
//! let anyone who can guess the file find out that it was sealed.

use std::collections::BTreeMap;
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

use edge_ebpf::wire::{CHUNK_BYTES_MAX, ChunkId};
use object_store::local::LocalFileSystem;
use object_store::path::Path as ObjectPath;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use rand::rngs::SysError;
use thiserror::Error;

use crate::object::key::chunk_path;
use crate::spawn;

use super::cipher::{Cipher, Key, Nonce};
use super::source::Unstable;
use super::ticket::Ticket;
use crate::object::ticket::{PublicTicket, TicketError};
use crate::object::tree::{Builder, OBJECT_BYTES_MAX, Shape, id_of};

#[derive(Debug, Error)]
pub enum PublishError {
    #[error("origin directory {0} does not exist: create it (`mkdir -p {0}`) or choose another")]
    OriginMissing(String),
    #[error("origin {0} is not a directory")]
    OriginNotDirectory(String),
    #[error("origin {0:?}: this version supports local directories only (a path or file://…)")]
    OriginKind(String),
    #[error("origin {origin}: {source}")]
    OriginRefused {
        origin: String,
        source: object_store::Error,
    },
    #[error("the file has {0} bytes; the maximum is 32 GiB: split the file")]
    TooLarge(u64),
    #[error("cannot read the file: {0}")]
    Read(#[source] io::Error),
    #[error("the file changed while it was being sealed (it had {0} bytes): seal it again")]
    Changed(u64),
    #[error("cannot write chunk {id} to the origin: {source}")]
    Upload {
        id: ChunkId,
        source: object_store::Error,
    },
    #[error("chunk {0} at the origin differs from what was written: check its disk")]
    ReadBack(ChunkId),
    #[error("cannot get random numbers: {0}")]
    Random(#[from] SysError),
    #[error("{0}")]
    Thread(#[source] io::Error),
    #[error(transparent)]
    Ticket(#[from] TicketError),
    #[error("interrupted")]
    Interrupted,
}

/// Why nothing was published, and how many chunks were uploaded.
#[derive(Debug, Error)]
pub struct PublishFailure {
    #[source]
    pub cause: PublishError,
    pub chunks: u64,
}

impl fmt::Display for PublishFailure {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { cause, chunks } = self;
        match chunks {
            0 => write!(out, "{cause}"),
            _ => write!(
                out,
                "{cause}; nothing was published, and {chunks} chunks without a ticket remain at the \
                 origin; run the command again: sealing cannot be resumed, as each run has a new key"
            ),
        }
    }
}

/// A directory, or `file://` and an absolute path.
pub fn open_origin(text: &str) -> Result<Arc<dyn ObjectStore>, PublishError> {
    let directory = match text.split_once("://") {
        None => Path::new(text),
        Some(("file", path)) if path.starts_with('/') => Path::new(path),
        Some(_) => return Err(PublishError::OriginKind(text.to_owned())),
    };
    let name = || directory.display().to_string();
    match directory.metadata() {
        Ok(found) if found.is_dir() => {}
        Ok(_) => return Err(PublishError::OriginNotDirectory(name())),
        Err(_) => return Err(PublishError::OriginMissing(name())),
    }
    match LocalFileSystem::new_with_prefix(directory) {
        Ok(store) => Ok(Arc::new(store)),
        Err(source) => Err(PublishError::OriginRefused {
            origin: name(),
            source,
        }),
    }
}

/// Syncs the origin to disk: a ticket must not outlive its chunks.
pub fn make_durable(origin: &str) -> io::Result<()> {
    let directory = origin.strip_prefix("file://").unwrap_or(origin);
    rustix::fs::syncfs(File::open(directory)?)?;
    Ok(())
}

/// Seals an object under a new key, uploads it, and returns its ticket.
///
/// Calls `progress` with the size of each uploaded data chunk. Stops uploading once `stop` is set.
pub fn publish(
    source: impl Read + Send,
    size_bytes: u64,
    store: &dyn ObjectStore,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> Result<Ticket, PublishFailure> {
    let uploaded = AtomicU64::new(0);
    let generate = || Ok((Key::generate()?, Nonce::generate()?));
    generate()
        .and_then(|(key, nonce)| {
            let origin = Origin {
                store,
                uploaded: &uploaded,
            };
            publish_with_key(key, nonce, source, size_bytes, origin, stop, progress)
        })
        .map_err(|cause| PublishFailure {
            cause,
            chunks: uploaded.into_inner(),
        })
}

/// Where chunks are stored, and how many were.
#[derive(Clone, Copy)]
struct Origin<'a> {
    store: &'a dyn ObjectStore,
    uploaded: &'a AtomicU64,
}

/// Private, because only test vectors may choose a key.
fn publish_with_key(
    key: Key,
    nonce: Nonce,
    source: impl Read + Send,
    size_bytes: u64,
    origin: Origin<'_>,
    stop: &AtomicBool,
    progress: &mut dyn FnMut(u64),
) -> Result<Ticket, PublishError> {
    let shape = Shape::of(size_bytes).ok_or(PublishError::TooLarge(size_bytes))?;
    let cipher = Cipher::new(&key, nonce);
    // Uploads block, so use more threads than cores.
    let workers = thread::available_parallelism().map_or(4, |cores| (cores.get() * 2).min(16));
    let root = thread::scope(|scope| {
        let (parts_tx, parts_rx) = sync_channel(workers);
        let parts_rx = Arc::new(Mutex::new(parts_rx));
        let (stored_tx, stored_rx) = sync_channel(workers);
        let refused = |error| PublishError::Thread(spawn::refused(error));
        for _ in 0..workers {
            let (parts, stored) = (Arc::clone(&parts_rx), stored_tx.clone());
            let cipher = &cipher;
            thread::Builder::new()
                .spawn_scoped(scope, move || seal_parts(cipher, origin, &parts, &stored))
                .map_err(refused)?;
        }
        // Only the workers hold the receiver now: when they stop, the reader stops.
        drop(parts_rx);
        thread::Builder::new()
            .spawn_scoped(scope, move || {
                read_parts(source, size_bytes, stop, &parts_tx, &stored_tx);
            })
            .map_err(refused)?;
        build_tree(&shape, origin, &stored_rx, progress)
    })?;
    if stop.load(Ordering::Relaxed) {
        return Err(PublishError::Interrupted);
    }
    Ok(Ticket::new(PublicTicket::new(shape, root)?, key, nonce))
}

/// The plaintext of one data chunk.
struct Part {
    index: u64,
    bytes: Vec<u8>,
}

/// A data chunk at the origin.
struct Stored {
    index: u64,
    id: ChunkId,
    bytes: u64,
}

type Outcome = Result<Stored, PublishError>;

fn read_parts(
    mut source: impl Read,
    size_bytes: u64,
    stop: &AtomicBool,
    parts: &SyncSender<Part>,
    stored: &SyncSender<Outcome>,
) {
    let mut index = 0;
    let mut total = 0;
    let failure = loop {
        if stop.load(Ordering::Relaxed) {
            break Some(PublishError::Interrupted);
        }
        let mut bytes = Vec::with_capacity(CHUNK_BYTES_MAX as usize);
        let part = source.by_ref().take(u64::from(CHUNK_BYTES_MAX));
        match { part }.read_to_end(&mut bytes) {
            Err(error) if is_change(&error) => break Some(PublishError::Changed(size_bytes)),
            Err(error) => break Some(PublishError::Read(error)),
            Ok(0) => break (total != size_bytes).then_some(PublishError::Changed(size_bytes)),
            Ok(read) => total += read as u64,
        }
        if total > size_bytes || total > OBJECT_BYTES_MAX {
            break Some(PublishError::Changed(size_bytes));
        }
        if parts.send(Part { index, bytes }).is_err() {
            // All workers have stopped after an error.
            break None;
        }
        index += 1;
    };
    if let Some(failure) = failure {
        // Fails only if another failure came first.
        drop(stored.send(Err(failure)));
    }
}

fn is_change(error: &io::Error) -> bool {
    let cause = error.get_ref().and_then(|cause| cause.downcast_ref());
    cause == Some(&Unstable::Changed)
}

fn seal_parts(
    cipher: &Cipher<'_>,
    origin: Origin<'_>,
    parts: &Mutex<Receiver<Part>>,
    stored: &SyncSender<Outcome>,
) {
    loop {
        let part = parts.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Part { index, mut bytes }) = part else {
            return;
        };
        cipher.apply(index * u64::from(CHUNK_BYTES_MAX), &mut bytes);
        let id = id_of(&bytes);
        let len = bytes.len() as u64;
        let outcome = origin.put(id, bytes).map(|()| Stored {
            index,
            id,
            bytes: len,
        });
        if stored.send(outcome).is_err() {
            return;
        }
    }
}

/// Builds the tree from the ids in order and returns the root.
fn build_tree(
    shape: &Shape,
    origin: Origin<'_>,
    stored: &Receiver<Outcome>,
    progress: &mut dyn FnMut(u64),
) -> Result<ChunkId, PublishError> {
    let mut builder = Builder::default();
    let mut store = |id, bytes| origin.put(id, bytes);
    let mut early = BTreeMap::new();
    let mut next = 0;
    for outcome in stored {
        let Stored { index, id, bytes } = outcome?;
        progress(bytes);
        early.insert(index, id);
        while let Some(id) = early.remove(&next) {
            builder.push(id, &mut store)?;
            next += 1;
        }
    }
    assert!(
        early.is_empty() && next == shape.data_chunks(),
        "{next} of {} chunks were sealed, without an error",
        shape.data_chunks()
    );
    builder.finish(&mut store)
}

impl Origin<'_> {
    /// Writes a chunk and reads it back: a ticket must not be issued for damaged chunks.
    fn put(&self, id: ChunkId, bytes: Vec<u8>) -> Result<(), PublishError> {
        let payload = PutPayload::from(bytes);
        let path = ObjectPath::from(chunk_path(&id));
        // Without a runtime, a local store runs on the calling thread.
        let read_back = pollster::block_on(async {
            self.store.put(&path, payload.clone()).await?;
            self.uploaded.fetch_add(1, Ordering::Relaxed);
            self.store.get(&path).await?.bytes().await
        });
        let read_back = read_back.map_err(|source| PublishError::Upload { id, source })?;
        // The payload has a single part.
        if payload.as_ref() == [read_back] {
            Ok(())
        } else {
            Err(PublishError::ReadBack(id))
        }
    }
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;
    use crate::seal::test_vector as vector;

    fn read_back(store: &dyn ObjectStore, id: &ChunkId) -> Vec<u8> {
        pollster::block_on(async {
            store
                .get(&ObjectPath::from(chunk_path(id)))
                .await
                .unwrap()
                .bytes()
                .await
        })
        .unwrap()
        .to_vec()
    }

    fn id(hex: &str) -> ChunkId {
        ChunkId(std::array::from_fn(|at| {
            u8::from_str_radix(&hex[2 * at..][..2], 16).unwrap()
        }))
    }

    #[test]
    fn publishing_the_vector_gives_its_ids_its_root_and_its_tickets() {
        let store = InMemory::new();
        let plain = vector::plaintext();
        let mut reported = 0;
        let ticket = publish_with_key(
            vector::key(),
            vector::NONCE,
            plain.as_slice(),
            vector::SIZE_BYTES,
            Origin {
                store: &store,
                uploaded: &AtomicU64::new(0),
            },
            &AtomicBool::new(false),
            &mut |bytes| reported += bytes,
        )
        .unwrap();
        assert_eq!(reported, vector::SIZE_BYTES);
        assert_eq!(*ticket.encode(), vector::TICKET);
        assert_eq!(ticket.public().encode(), vector::PUBLIC_TICKET);
        assert_eq!(ticket.public().root().to_string(), vector::ROOT);

        let index = read_back(&store, &id(vector::ROOT));
        let (ids, rest) = index.as_chunks::<32>();
        assert!(rest.is_empty());
        let names: Vec<_> = ids.iter().map(|id| vector::hex(&id[..8])).collect();
        assert_eq!(names, vector::IDS);
        let last = read_back(&store, &ChunkId(ids[3]));
        assert_eq!(last.len(), 12_345);
    }

    #[test]
    fn the_empty_object_has_no_chunk() {
        let store = InMemory::new();
        let stop = AtomicBool::new(false);
        let ticket = publish(io::empty(), 0, &store, &stop, &mut |_| {}).unwrap();
        assert_eq!(ticket.public().root(), crate::object::tree::EMPTY_ROOT);
        assert_eq!(store.to_string(), "InMemory");
        let again = Ticket::decode(&ticket.encode()).unwrap();
        assert_eq!(again.public().shape().data_chunks(), 0);
    }

    #[test]
    fn a_file_that_shrinks_grows_or_is_too_large_is_refused() {
        let store = InMemory::new();
        let stop = AtomicBool::new(false);
        let publish = |size| {
            let source = io::repeat(3).take(300_000);
            publish(source, size, &store, &stop, &mut |_| {})
                .err()
                .unwrap()
                .cause
        };
        assert!(matches!(publish(300_001), PublishError::Changed(300_001)));
        assert!(matches!(publish(299_999), PublishError::Changed(299_999)));
        assert!(matches!(
            publish(OBJECT_BYTES_MAX + 1),
            PublishError::TooLarge(_)
        ));
    }

    #[test]
    fn a_stopped_run_gives_no_ticket() {
        let store = InMemory::new();
        let stop = AtomicBool::new(true);
        let outcome = publish([1_u8; 9].as_slice(), 9, &store, &stop, &mut |_| {});
        let PublishFailure { cause, chunks } = outcome.err().unwrap();
        assert!(matches!(cause, PublishError::Interrupted) && chunks == 0);
    }

    fn files_under(folder: &Path) -> u64 {
        let entries = std::fs::read_dir(folder).unwrap();
        let paths = entries.map(|entry| entry.unwrap().path());
        paths
            .map(|path| if path.is_dir() { files_under(&path) } else { 1 })
            .sum()
    }

    #[test]
    fn a_failed_run_reports_the_chunks_it_leaves_and_that_it_cannot_be_resumed() {
        let folder = tempfile::tempdir().unwrap();
        let store = open_origin(folder.path().to_str().unwrap()).unwrap();
        let stop = AtomicBool::new(false);
        let mut reported = 0;
        let outcome = publish(
            io::repeat(3),
            32 << 20,
            store.as_ref(),
            &stop,
            &mut |bytes| {
                reported += bytes;
                stop.store(true, Ordering::Relaxed);
            },
        );
        let failure = outcome.err().unwrap();
        assert!(reported > 0 && failure.chunks < 256);
        assert_eq!(failure.chunks, files_under(folder.path()));
        let message = failure.to_string();
        let left = format!(
            "interrupted; nothing was published, and {} chunks",
            failure.chunks
        );
        assert!(message.starts_with(&left), "{message}");
        assert!(message.contains("run the command again"), "{message}");
    }

    #[test]
    fn a_missing_origin_is_reported_with_the_command_that_creates_it() {
        let folder = tempfile::tempdir().unwrap();
        let missing = folder.path().join("no/such");
        let message = open_origin(missing.to_str().unwrap())
            .unwrap_err()
            .to_string();
        assert!(message.contains("mkdir -p"), "{message}");
        assert!(open_origin(folder.path().to_str().unwrap()).is_ok());
        assert!(open_origin(&format!("file://{}", folder.path().display())).is_ok());
        assert!(matches!(
            open_origin("s3://bucket"),
            Err(PublishError::OriginKind(_))
        ));
        assert!(matches!(
            open_origin("/dev/null"),
            Err(PublishError::OriginNotDirectory(_))
        ));
    }

    #[test]
    fn chunks_are_stored_where_sealing_says() {
        let path = chunk_path(&id(vector::ROOT));
        assert_eq!(path, format!("chunks/6d/a1/{}", vector::ROOT));
    }
}
