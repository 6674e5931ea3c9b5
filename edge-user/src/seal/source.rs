//! The file to seal: a regular one whose bytes stay as they are while they are read.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, open};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum SourceError {
    #[error("{0} is not a regular file")]
    Kind(PathBuf),
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("{0} has content, and its size is 0, as in /proc: copy it, and seal the copy")]
    Sizeless(PathBuf),
}

/// What a source answers in the place of its end.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum Unfit {
    #[error("it was written to while it was read")]
    Changed,
    #[error("its size is not that of its content, as in /sys: copy it, and seal the copy")]
    Size,
}

/// An open file, and what it was when it was opened.
pub struct Source {
    file: File,
    found: Metadata,
    read_bytes: u64,
}

impl Source {
    /// Never waits, as for the writer of a FIFO.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Read {
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let file = File::from(file);
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() {
            return Err(SourceError::Kind(path.to_owned()));
        }
        if found.len() == 0 && file.read_at(&mut [0], 0).map_err(failed)? > 0 {
            return Err(SourceError::Sizeless(path.to_owned()));
        }
        Ok(Self {
            file,
            found,
            read_bytes: 0,
        })
    }

    pub fn found(&self) -> &Metadata {
        &self.found
    }

    /// Whether what was read is what the file was. Its times show every write but those through a
    /// shared mapping that was written through before.
    fn judge(&self) -> io::Result<()> {
        let times = |found: &Metadata| {
            let modified = (found.mtime(), found.mtime_nsec());
            (found.len(), modified, (found.ctime(), found.ctime_nsec()))
        };
        if times(&self.file.metadata()?) != times(&self.found) {
            return Err(io::Error::other(Unfit::Changed));
        }
        if self.read_bytes != self.found.len() {
            return Err(io::Error::other(Unfit::Size));
        }
        Ok(())
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read_bytes += read as u64;
        if read == 0 && !buffer.is_empty() {
            self.judge()?;
        }
        Ok(read)
    }
}
