//! The reader's object. As a file it stays without a name until every byte is checked, so that
//! nobody ever finds half an object under the name of a whole one. As a stream it goes out chunk by
//! chunk, each checked, in their order.

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

use super::destination::{Begun, Content, Destination, DestinationError, scratch};

/// An object that is being put together. Dropped before `finish`, it leaves no file behind.
pub struct Output {
    begun: Begun,
    /// Where chunks lie that came before their turn: the file itself, or one beside a stream.
    file: File,
    in_order: Option<InOrder>,
}

/// What wants the chunks in their order. They come in nearly that order: those that come early are
/// read again when their turn comes, so no plaintext waits in memory.
struct InOrder {
    next: u64,
    early: BTreeSet<u64>,
    stream: Option<File>,
    digest: Option<Sha256>,
}

impl Output {
    /// Makes the file. With `digest` the plaintext is hashed on the way.
    pub fn begin(place: Destination, digest: bool) -> Result<Self, DestinationError> {
        let begun = place.begin(Content::Object)?;
        let again = || {
            let file = begun.file().try_clone();
            file.map_err(|source| DestinationError::Write {
                path: begun.path().to_owned(),
                source,
            })
        };
        let (file, stream) = if begun.is_stream() {
            (scratch()?, Some(again()?))
        } else {
            (again()?, None)
        };
        let in_order = (digest || stream.is_some()).then(|| InOrder {
            next: 0,
            early: BTreeSet::new(),
            stream,
            digest: digest.then(Sha256::new),
        });
        Ok(Self {
            begun,
            file,
            in_order,
        })
    }

    /// Takes room for bytes that will come: a full disk is better met before them than at the end.
    /// Only for bytes whose ids are known: what a ticket alone says takes no room on a disk.
    pub fn reserve(&self, bytes: Range<u64>) -> io::Result<()> {
        let Some(len) = bytes.end.checked_sub(bytes.start).filter(|len| *len > 0) else {
            return Ok(());
        };
        if self.begun.is_stream() {
            return Ok(());
        }
        match retry_on_intr(|| fallocate(&self.file, FallocateFlags::empty(), bytes.start, len)) {
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
        let Some(in_order) = &mut self.in_order else {
            return self.file.write_all_at(plaintext, offset(index));
        };
        if in_order.stream.is_none() || index != in_order.next {
            self.file.write_all_at(plaintext, offset(index))?;
        }
        in_order.add(index, plaintext, &self.file)
    }

    /// Puts the whole file in its place; gives its SHA-256 if that was asked for.
    pub fn finish(self) -> Result<Option<[u8; 32]>, DestinationError> {
        let digest = self.in_order.and_then(InOrder::finish);
        self.begun.finish()?;
        Ok(digest)
    }
}

fn offset(index: u64) -> u64 {
    index * u64::from(CHUNK_BYTES_MAX)
}

impl InOrder {
    fn add(&mut self, index: u64, plaintext: &[u8], file: &File) -> io::Result<()> {
        if index != self.next {
            self.early.insert(index);
            return Ok(());
        }
        self.take(plaintext)?;
        if !self.early.contains(&self.next) {
            return Ok(());
        }
        let mut again = vec![0; CHUNK_BYTES_MAX as usize];
        while self.early.remove(&self.next) {
            let at = offset(self.next);
            let read = read_up_to(file, &mut again, at)?;
            self.take(&again[..read])?;
            if self.stream.is_some() {
                // Not needed again; where it cannot be given back it stays until the end.
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                let (Ok(()) | Err(_)) = fallocate(file, flags, at, CHUNK_BYTES_MAX.into());
            }
        }
        Ok(())
    }

    /// The chunk whose turn it is.
    fn take(&mut self, plaintext: &[u8]) -> io::Result<()> {
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
        assert!(
            self.early.is_empty(),
            "a chunk before number {} is missing",
            self.next
        );
        self.digest.map(|digest| digest.finalize().into())
    }
}

/// Waits also for a stream that others set to not wait.
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

    fn begin(place: &Path, digest: bool) -> Output {
        Output::begin(Destination::find(place).unwrap(), digest).unwrap()
    }

    #[test]
    fn chunks_in_any_order_make_the_file_and_its_digest() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("out");
        let plain: Vec<u8> = (0..3 * CHUNK + 77)
            .map(|at| u8::try_from(at / 1000 % 251).unwrap())
            .collect();
        let mut output = begin(&place, true);
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
        let mut output = begin(&place, false);
        output.write(0, b"hello").unwrap();
        drop(output);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_takes_room_when_its_bytes_are_known_to_come() {
        let folder = tempfile::tempdir().unwrap();
        let output = begin(&folder.path().join("out"), false);
        let found = || output.file.metadata().unwrap();
        assert_eq!((found().len(), found().blocks()), (0, 0));
        output.reserve(CHUNK as u64..3 * CHUNK as u64).unwrap();
        output.reserve(7..7).unwrap();
        assert!([0, 3 * CHUNK as u64].contains(&found().len()));
        let refused = output.reserve(0..1 << 62).unwrap_err().to_string();
        assert!(refused.contains("no room for 4611686018427387904 more"));
    }

    #[test]
    fn a_stream_gets_chunks_in_order_whatever_order_they_come_in() {
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
        let mut output = begin(&place, true);
        for index in [1, 3, 0, 2, 4, 5] {
            output
                .write(index as u64, plain.chunks(CHUNK).nth(index).unwrap())
                .unwrap();
        }
        // What went out is not kept.
        assert_eq!(output.file.metadata().unwrap().blocks(), 0);
        let digest = output.finish().unwrap().unwrap();
        assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(&plain)));
        assert!(reader.join().unwrap() == plain);
        assert!(fs::metadata(&place).unwrap().file_type().is_fifo());
    }
}
