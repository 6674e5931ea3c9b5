//! The reader's file. It stands under a temporary name beside its place until every byte is
//! checked, so that nobody ever finds half an object under the name of a whole one.

use std::collections::BTreeSet;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use edge_ebpf::wire::CHUNK_BYTES_MAX;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::unfinished::{Beside, PlaceError};

/// What a new file may be used for, less what the umask forbids.
const MODE: u32 = 0o666;

#[derive(Debug, Error)]
pub enum OutputError {
    #[error("{0} is not a regular file: name one with -o")]
    NotAFile(PathBuf),
    #[error("cannot create a file beside {path}: {source}")]
    Create { path: PathBuf, source: io::Error },
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// A file that is being put together. Dropped before `finish`, it leaves nothing behind.
pub struct Output {
    beside: Beside,
    digest: Option<RunningDigest>,
}

impl Output {
    /// Opens a temporary file beside `place`. With `digest` the plaintext is hashed on the way.
    pub fn create(place: &Path, digest: bool) -> Result<Self, OutputError> {
        // What a link leads to is meant, not the link.
        let real = place.canonicalize().unwrap_or_else(|_| place.to_owned());
        let place = real.as_path();
        // Renaming over a device or a folder would replace it, which nobody means.
        let found = place.metadata().ok();
        let is_folder = place.as_os_str().as_bytes().ends_with(b"/");
        let is_other = is_folder || found.as_ref().is_some_and(|found| !found.is_file());
        if is_other || place.file_name().is_none() {
            return Err(OutputError::NotAFile(place.to_owned()));
        }
        let beside = Beside::create(place, MODE).map_err(|source| OutputError::Create {
            path: place.to_owned(),
            source,
        })?;
        if let Some(found) = found {
            let (Ok(()) | Err(_)) = beside.file().set_permissions(found.permissions());
        }
        Ok(Self {
            beside,
            digest: digest.then(RunningDigest::default),
        })
    }

    /// Takes room for bytes that will come: a full disk is better met before them than at the end.
    /// Only for bytes whose ids are known: what a ticket alone says takes no room on a disk.
    pub fn reserve(&self, bytes: Range<u64>) -> io::Result<()> {
        let Some(len) = bytes.end.checked_sub(bytes.start).filter(|len| *len > 0) else {
            return Ok(());
        };
        let file = self.beside.file();
        match retry_on_intr(|| fallocate(file, FallocateFlags::empty(), bytes.start, len)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(errno) => {
                let cause = io::Error::from(errno);
                let message = format!("no room for {len} more bytes: {cause}");
                Err(io::Error::new(cause.kind(), message))
            }
        }
    }

    /// Writes the plaintext of one data chunk where it belongs.
    pub fn write(&mut self, index: u64, plaintext: &[u8]) -> io::Result<()> {
        let file = self.beside.file();
        file.write_all_at(plaintext, index * u64::from(CHUNK_BYTES_MAX))?;
        match &mut self.digest {
            None => Ok(()),
            Some(digest) => digest.add(index, plaintext, file),
        }
    }

    /// Puts the whole file in its place; gives its SHA-256 if that was asked for.
    pub fn finish(self) -> Result<Option<[u8; 32]>, OutputError> {
        self.beside.finish()?;
        Ok(self.digest.map(RunningDigest::finish))
    }
}

/// SHA-256 of a file whose chunks come in nearly their order: those that come early are read
/// again from the page cache when their turn comes, so no plaintext waits in memory.
#[derive(Default)]
struct RunningDigest {
    digest: Sha256,
    next: u64,
    early: BTreeSet<u64>,
}

impl RunningDigest {
    fn add(&mut self, index: u64, plaintext: &[u8], file: &File) -> io::Result<()> {
        if index != self.next {
            self.early.insert(index);
            return Ok(());
        }
        self.digest.update(plaintext);
        self.next += 1;
        if !self.early.contains(&self.next) {
            return Ok(());
        }
        let mut again = vec![0; CHUNK_BYTES_MAX as usize];
        while self.early.remove(&self.next) {
            let read = read_up_to(file, &mut again, self.next * u64::from(CHUNK_BYTES_MAX))?;
            self.digest.update(&again[..read]);
            self.next += 1;
        }
        Ok(())
    }

    fn finish(self) -> [u8; 32] {
        assert!(
            self.early.is_empty(),
            "a chunk before number {} is missing",
            self.next
        );
        self.digest.finalize().into()
    }
}

fn read_up_to(file: &File, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            read => filled += read,
        }
    }
    Ok(filled)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::MetadataExt;

    use super::*;

    const CHUNK: usize = CHUNK_BYTES_MAX as usize;

    #[test]
    fn chunks_in_any_order_make_the_file_and_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out");
        let plain: Vec<u8> = (0..3 * CHUNK + 77)
            .map(|at| u8::try_from(at / 1000 % 251).unwrap())
            .collect();
        let mut output = Output::create(&place, true).unwrap();
        for index in [1, 3, 0, 2] {
            output
                .write(index as u64, plain.chunks(CHUNK).nth(index).unwrap())
                .unwrap();
            assert!(!place.exists());
        }
        let digest = output.finish().unwrap().unwrap();
        assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(&plain)));
        assert_eq!(fs::read(&place).unwrap(), plain);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_that_is_not_finished_leaves_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out");
        let mut output = Output::create(&place, false).unwrap();
        output.write(0, b"hello").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_takes_room_when_its_bytes_are_known_to_come() {
        let folder = tempfile::tempdir().unwrap();
        let output = Output::create(&folder.path().join("out"), false).unwrap();
        let found = || output.beside.file().metadata().unwrap();
        assert_eq!((found().len(), found().blocks()), (0, 0));
        output.reserve(CHUNK as u64..3 * CHUNK as u64).unwrap();
        output.reserve(7..7).unwrap();
        assert!([0, 3 * CHUNK as u64].contains(&found().len()));
        let refused = output.reserve(0..1 << 62).unwrap_err().to_string();
        assert!(refused.contains("no room for 4611686018427387904 more"));
    }

    #[test]
    fn devices_and_folders_are_not_replaced() {
        for place in ["/dev/null", "/tmp", "/"] {
            let refused = Output::create(Path::new(place), false);
            assert!(
                matches!(refused.err(), Some(OutputError::NotAFile(_))),
                "{place}"
            );
        }
    }
}
