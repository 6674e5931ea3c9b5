//! The reader's file. It stands under a temporary name beside its place until every byte is
//! checked, so that nobody ever finds half an object under the name of a whole one.

use std::collections::BTreeSet;
use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use edge_ebpf::wire::CHUNK_BYTES_MAX;
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum OutputError {
    #[error("{0} is not a regular file: name one with -o")]
    NotAFile(PathBuf),
    #[error("cannot create a file beside {path}: {source}")]
    Create { path: PathBuf, source: io::Error },
    #[error("not enough room for {size_bytes} bytes at {path}: {source}")]
    Room {
        path: PathBuf,
        size_bytes: u64,
        source: io::Error,
    },
    #[error("the file for {path} cannot be brought to the disk: {source}")]
    Sync { path: PathBuf, source: io::Error },
    #[error("cannot put the file in its place at {path}: {source}")]
    Rename { path: PathBuf, source: io::Error },
}

/// A file that is being put together. Dropped before `finish`, it leaves nothing behind.
pub struct Output {
    file: File,
    temporary: PathBuf,
    place: PathBuf,
    digest: Option<RunningDigest>,
}

impl Output {
    /// Opens a temporary file beside `place`. With `digest` the plaintext is hashed on the way.
    pub fn create(place: &Path, size_bytes: u64, digest: bool) -> Result<Self, OutputError> {
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
        // Short, so that it is not too long where the file's own name is not, and not only the
        // process id, which a container gives out again.
        let hidden = format!(".edge-{:016x}.part", rand::random::<u64>());
        let temporary = place.with_file_name(hidden);
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .open(&temporary);
        let file = opened.map_err(|source| OutputError::Create {
            path: place.to_owned(),
            source,
        })?;
        if let Some(found) = found {
            let (Ok(()) | Err(_)) = file.set_permissions(found.permissions());
        }
        let output = Self {
            file,
            temporary,
            place: place.to_owned(),
            digest: digest.then(RunningDigest::default),
        };
        output.reserve(size_bytes)?;
        Ok(output)
    }

    /// A full disk is better met before the transfer than at its end.
    fn reserve(&self, size_bytes: u64) -> Result<(), OutputError> {
        if size_bytes == 0 {
            return Ok(());
        }
        match fallocate(&self.file, FallocateFlags::empty(), 0, size_bytes) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(source) => Err(OutputError::Room {
                path: self.place.clone(),
                size_bytes,
                source: source.into(),
            }),
        }
    }

    /// Writes the plaintext of one data chunk where it belongs.
    pub fn write(&mut self, index: u64, plaintext: &[u8]) -> io::Result<()> {
        self.file
            .write_all_at(plaintext, index * u64::from(CHUNK_BYTES_MAX))?;
        match &mut self.digest {
            None => Ok(()),
            Some(digest) => digest.add(index, plaintext, &self.file),
        }
    }

    /// Puts the whole file in its place; gives its SHA-256 if that was asked for.
    pub fn finish(mut self) -> Result<Option<[u8; 32]>, OutputError> {
        // Some errors of writing come only now, and a name must not outlive its bytes.
        self.file.sync_all().map_err(|source| OutputError::Sync {
            path: self.place.clone(),
            source,
        })?;
        fs::rename(&self.temporary, &self.place).map_err(|source| OutputError::Rename {
            path: self.place.clone(),
            source,
        })?;
        self.temporary.clear();
        Ok(self.digest.take().map(RunningDigest::finish))
    }
}

impl Drop for Output {
    fn drop(&mut self) {
        if !self.temporary.as_os_str().is_empty() {
            // Nothing better can be done about a file that cannot be removed while failing.
            drop(fs::remove_file(&self.temporary));
        }
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
    use super::*;

    const CHUNK: usize = CHUNK_BYTES_MAX as usize;

    #[test]
    fn chunks_in_any_order_make_the_file_and_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out");
        let plain: Vec<u8> = (0..3 * CHUNK + 77)
            .map(|at| u8::try_from(at / 1000 % 251).unwrap())
            .collect();
        let mut output = Output::create(&place, plain.len() as u64, true).unwrap();
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
        let mut output = Output::create(&place, 5, false).unwrap();
        output.write(0, b"hello").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn devices_and_folders_are_not_replaced() {
        for place in ["/dev/null", "/tmp", "/"] {
            let refused = Output::create(Path::new(place), 0, false);
            assert!(
                matches!(refused.err(), Some(OutputError::NotAFile(_))),
                "{place}"
            );
        }
    }
}
