//! The file to seal: a regular file that must not change while it is read.

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
    #[error("{0} has content but reports size 0, like files in /proc: seal a copy of it")]
    NoSize(PathBuf),
}

/// An error in place of the end of file.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub(super) enum Unstable {
    #[error("the file changed while it was read")]
    Changed,
    #[error("the file has another size than it reports, like files in /sys: seal a copy of it")]
    Size,
}

/// An open file and its metadata at that time.
pub struct Source {
    file: File,
    metadata: Metadata,
    read_bytes: u64,
}

impl Source {
    /// Never blocks, not even on a FIFO.
    pub fn open(path: &Path) -> Result<Self, SourceError> {
        let failed = |source| SourceError::Read {
            path: path.to_owned(),
            source,
        };
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = open(path, flags, Mode::empty()).map_err(|errno| failed(errno.into()))?;
        let file = File::from(file);
        let metadata = file.metadata().map_err(failed)?;
        if !metadata.is_file() {
            return Err(SourceError::Kind(path.to_owned()));
        }
        if metadata.len() == 0 && file.read_at(&mut [0], 0).map_err(failed)? > 0 {
            return Err(SourceError::NoSize(path.to_owned()));
        }
        Ok(Self {
            file,
            metadata,
            read_bytes: 0,
        })
    }

    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Compares size and times. The times show every write except those through a shared mapping
    /// that was written to before.
    fn check_unchanged(&self) -> io::Result<()> {
        let times = |found: &Metadata| {
            let modified = (found.mtime(), found.mtime_nsec());
            (found.len(), modified, (found.ctime(), found.ctime_nsec()))
        };
        if times(&self.file.metadata()?) != times(&self.metadata) {
            return Err(io::Error::other(Unstable::Changed));
        }
        if self.read_bytes != self.metadata.len() {
            return Err(io::Error::other(Unstable::Size));
        }
        Ok(())
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.file.read(buffer)?;
        self.read_bytes += read as u64;
        if read == 0 && !buffer.is_empty() {
            self.check_unchanged()?;
        }
        Ok(read)
    }
}
