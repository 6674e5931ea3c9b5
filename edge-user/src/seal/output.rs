//! The decrypted object. A file gets its name only when every byte is verified, so a partial object
//! never appears under it. A stream gets the verified chunks in order.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;

use edge_ebpf::wire::CHUNK_BYTES_MAX;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::{Errno, retry_on_intr};
use sha2::{Digest, Sha256};

use super::destination::{Content, Destination, DestinationError, OutputFile, scratch};

/// An object being written. Dropped before `commit`, it leaves no file.
pub struct Output {
    destination: OutputFile,
    /// Where chunks are written: the output itself, or a temporary file for those a stream gets later.
    file: File,
    sequencer: Option<Sequencer>,
}

/// Passes chunks on in order, to a stream, a digest or both. Chunks arrive in almost that order: early
/// ones are read back from the file, so no plaintext is held in memory.
struct Sequencer {
    next: u64,
    early: BTreeSet<u64>,
    stream: Option<File>,
    digest: Option<Sha256>,
}

impl Output {
    /// With `digest`, the plaintext is hashed as well.
    pub fn create(destination: Destination, digest: bool) -> Result<Self, DestinationError> {
        let destination = destination.create(Content::Object)?;
        let clone = || {
            let file = destination.file().try_clone();
            file.map_err(|source| DestinationError::Write {
                path: destination.path().to_owned(),
                source,
            })
        };
        let (file, stream) = if destination.is_stream() {
            (scratch()?, Some(clone()?))
        } else {
            (clone()?, None)
        };
        let sequencer = (digest || stream.is_some()).then(|| Sequencer {
            next: 0,
            early: BTreeSet::new(),
            stream,
            digest: digest.then(Sha256::new),
        });
        Ok(Self {
            destination,
            file,
            sequencer,
        })
    }

    /// Allocates space, so that a full disk is found before the transfer. Only for bytes whose ids are
    /// known, as a ticket alone may claim any size.
    pub fn reserve(&self, bytes: Range<u64>) -> io::Result<()> {
        let Some(len) = bytes.end.checked_sub(bytes.start).filter(|len| *len > 0) else {
            return Ok(());
        };
        if self.destination.is_stream() {
            return Ok(());
        }
        match retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), bytes.start, len)) {
            Ok(()) | Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            Err(errno) => {
                let cause = io::Error::from(errno);
                let message = format!("no space for {len} more bytes: {cause}");
                Err(io::Error::new(cause.kind(), message))
            }
        }
    }

    /// Writes the plaintext of one data chunk.
    pub fn write(&mut self, index: u64, plaintext: &[u8]) -> io::Result<()> {
        let Some(sequencer) = &mut self.sequencer else {
            return self.file.write_all_at(plaintext, offset(index));
        };
        if sequencer.stream.is_none() || index != sequencer.next {
            self.file.write_all_at(plaintext, offset(index))?;
        }
        sequencer.add(index, plaintext, &self.file)
    }

    /// Completes the file; returns its SHA-256 if requested.
    pub fn commit(self) -> Result<Option<[u8; 32]>, DestinationError> {
        let digest = self.sequencer.and_then(Sequencer::finish);
        self.destination.commit()?;
        Ok(digest)
    }
}

fn offset(index: u64) -> u64 {
    index * u64::from(CHUNK_BYTES_MAX)
}

impl Sequencer {
    fn add(&mut self, index: u64, plaintext: &[u8], file: &File) -> io::Result<()> {
        if index != self.next {
            self.early.insert(index);
            return Ok(());
        }
        self.emit(plaintext)?;
        if !self.early.contains(&self.next) {
            return Ok(());
        }
        let mut buffer = vec![0; CHUNK_BYTES_MAX as usize];
        while self.early.remove(&self.next) {
            let at = offset(self.next);
            let read = read_up_to(file, &mut buffer, at)?;
            self.emit(&buffer[..read])?;
            if self.stream.is_some() {
                // Frees the space where the file system can.
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let (Ok(()) | Err(_)) = fallocate(file, flags, at, CHUNK_BYTES_MAX.into());
            }
        }
        Ok(())
    }

    /// The next chunk in order.
    fn emit(&mut self, plaintext: &[u8]) -> io::Result<()> {
        if let Some(stream) = &mut self.stream {
            write_all(stream, plaintext)?;
        }
        if let Some(digest) = &mut self.digest {
            digest.update(plaintext);
        }
        self.next += 1;
        Ok(())
    }

    fn finish(self) -> Option<[u8; 32]> {
        assert!(self.early.is_empty(), "chunk {} is missing", self.next);
        self.digest.map(|digest| digest.finalize().into())
    }
}

/// Also blocks on a stream that another process set to non-blocking.
fn write_all(stream: &mut File, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        match stream.write(bytes) {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(written) => bytes = &bytes[written..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                retry_on_intr(|| poll(&mut [PollFd::new(&*stream, PollFlags::OUT)], None))?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
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
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    use std::path::Path;
    use std::thread;

    use rustix::fs::{CWD, Mode, mkfifoat};

    use super::*;

    const CHUNK: usize = CHUNK_BYTES_MAX as usize;

    fn create(place: &Path, digest: bool) -> Output {
        Output::create(Destination::resolve(place).unwrap(), digest).unwrap()
    }

    #[test]
    fn chunks_in_any_order_make_the_file_and_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out");
        let plain: Vec<u8> = (0..3 * CHUNK + 77)
            .map(|at| u8::try_from(at / 1000 % 251).unwrap())
            .collect();
        let mut output = create(&place, true);
        for index in [1, 3, 0, 2] {
            output
                .write(index as u64, plain.chunks(CHUNK).nth(index).unwrap())
                .unwrap();
            assert!(!place.exists());
        }
        let digest = output.commit().unwrap().unwrap();
        assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(&plain)));
        assert_eq!(fs::read(&place).unwrap(), plain);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn an_incomplete_file_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out");
        let mut output = create(&place, false);
        output.write(0, b"hello").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn space_is_allocated_once_the_ids_are_known() {
        let folder = tempfile::tempdir().unwrap();
        let output = create(&folder.path().join("out"), false);
        let found = || output.file.metadata().unwrap();
        assert_eq!((found().len(), found().blocks()), (0, 0));
        output.reserve(CHUNK as u64..3 * CHUNK as u64).unwrap();
        output.reserve(7..7).unwrap();
        assert!([0, 3 * CHUNK as u64].contains(&found().len()));
        let refused = output.reserve(0..1 << 62).unwrap_err().to_string();
        assert!(refused.contains("no space for 4611686018427387904 more"));
    }

    #[test]
    fn a_stream_gets_the_chunks_in_order() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("fifo");
        mkfifoat(CWD, &place, Mode::RUSR | Mode::WUSR).unwrap();
        let reader = thread::spawn({
            let place = place.clone();
            move || fs::read(place).unwrap()
        });
        let plain: Vec<u8> = (0..5 * CHUNK + 77)
            .map(|at| u8::try_from(at / 1000 % 251).unwrap())
            .collect();
        let mut output = create(&place, true);
        for index in [1, 3, 0, 2, 4, 5] {
            output
                .write(index as u64, plain.chunks(CHUNK).nth(index).unwrap())
                .unwrap();
        }
        // Emitted chunks are freed.
        assert_eq!(output.file.metadata().unwrap().blocks(), 0);
        let digest = output.commit().unwrap().unwrap();
        assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(&plain)));
        assert!(reader.join().unwrap() == plain);
        assert!(fs::metadata(&place).unwrap().file_type().is_fifo());
    }
}
