//! Objects to fetch, sealed as a publisher does it.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::{fs, io};

use edge_ebpf::wire::ChunkId;
use edge_user::client::drive::Sink;
use edge_user::object::tree::{Verified, id_of};
use edge_user::seal::open::Opener;
use edge_user::seal::publish::{open_origin, publish};
use edge_user::seal::ticket::Ticket;
use rand::rngs::SmallRng;
use rand::{Rng as _, SeedableRng as _};

pub(crate) struct Object {
    pub(crate) plaintext: Vec<u8>,
    pub(crate) ticket: Ticket,
    pub(crate) chunks: HashMap<ChunkId, Vec<u8>>,
}

/// Bytes in which no piece is like another.
pub(crate) fn plaintext(size_bytes: usize) -> Vec<u8> {
    let mut bytes = vec![0; size_bytes];
    SmallRng::seed_from_u64(1).fill_bytes(&mut bytes);
    bytes
}

impl Object {
    pub(crate) fn sealed(size_bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = open_origin(folder.path().to_str().unwrap()).unwrap();
        let plaintext = plaintext(size_bytes);
        let stop = AtomicBool::new(false);
        let size = plaintext.len() as u64;
        let ticket = publish(
            plaintext.as_slice(),
            size,
            store.as_ref(),
            &stop,
            &mut |_| {},
        );
        Self {
            plaintext,
            ticket: ticket.unwrap(),
            chunks: chunks_under(folder.path()),
        }
    }

    /// The id of the data chunk with this index.
    pub(crate) fn data_id(&self, index: usize) -> ChunkId {
        let root = self.ticket.public().root();
        let ids = &self.chunks[&root];
        if self.chunks.len() == 1 {
            return root;
        }
        ChunkId(ids[index * 32..][..32].try_into().unwrap())
    }
}

/// Every chunk at a local origin.
pub(crate) fn chunks_under(folder: &Path) -> HashMap<ChunkId, Vec<u8>> {
    let mut chunks = HashMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            let id = id_of(&bytes);
            assert_eq!(path.file_name().unwrap().to_str().unwrap(), id.to_string());
            chunks.insert(id, bytes);
        }
    }
    chunks
}

/// Opens chunks into memory, and insists that each comes once.
pub(crate) struct Memory<'a> {
    opener: Opener<'a>,
    pieces: Mutex<HashMap<u64, Vec<u8>>>,
}

impl<'a> Memory<'a> {
    pub(crate) fn new(object: &'a Object) -> Self {
        Self {
            opener: Opener::new(&object.ticket),
            pieces: Mutex::default(),
        }
    }

    pub(crate) fn plaintext(self) -> Vec<u8> {
        let mut pieces: Vec<_> = self.pieces.into_inner().unwrap().into_iter().collect();
        pieces.sort_unstable_by_key(|(index, _)| *index);
        pieces.into_iter().flat_map(|(_, bytes)| bytes).collect()
    }
}

impl Sink for Memory<'_> {
    fn take(&mut self, index: u64, chunk: Verified) -> io::Result<Vec<u8>> {
        let plaintext = self.opener.open(index, chunk);
        let before = self.pieces.lock().unwrap().insert(index, plaintext.clone());
        assert!(before.is_none(), "chunk {index} came twice");
        Ok(plaintext)
    }
}
