//! Files that were begun and may never be finished. Each is removed when it is given up, and all of
//! them when the process has to end at once.

use std::fs::{self, File, Metadata, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use thiserror::Error;

static ALL: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// A path, and the file that was made there: whatever else stands there later is not ours.
#[derive(Clone, PartialEq, Eq)]
struct Entry {
    path: PathBuf,
    identity: (u64, u64),
}

/// A new file. Dropped, it is removed, unless it was renamed or replaced.
pub struct Unfinished {
    file: File,
    entry: Entry,
}

impl Unfinished {
    /// Makes the file; one that is there already is an error.
    pub fn create(path: &Path, mode: u32) -> io::Result<Self> {
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create_new(true)
            .mode(mode)
            .open(path)?;
        let entry = Entry {
            path: path.to_owned(),
            identity: identity(&file.metadata()?),
        };
        all().push(entry.clone());
        Ok(Self { file, entry })
    }

    pub fn file(&self) -> &File {
        &self.file
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        all().retain(|entry| *entry != self.entry);
        self.entry.remove();
    }
}

impl Entry {
    fn remove(&self) {
        if fs::symlink_metadata(&self.path).is_ok_and(|found| identity(&found) == self.identity) {
            // Nothing better can be done about a file that cannot be removed while failing.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Removes every file this process has not finished, for a process that ends without dropping
/// anything.
pub fn remove_all() {
    // Not under the lock: a file system may keep us waiting, and others may still finish.
    let entries = all().clone();
    entries.iter().for_each(Entry::remove);
}

fn all() -> MutexGuard<'static, Vec<Entry>> {
    ALL.lock().unwrap_or_else(PoisonError::into_inner)
}

fn identity(found: &Metadata) -> (u64, u64) {
    (found.dev(), found.ino())
}

/// Why a whole file did not take its place.
#[derive(Debug, Error)]
pub enum PlaceError {
    #[error("the file for {path} cannot be brought to the disk: {source}")]
    Sync { path: PathBuf, source: io::Error },
    #[error("cannot put the file in its place at {path}: {source}")]
    Rename { path: PathBuf, source: io::Error },
}

/// A file beside its place, which it takes when it is whole: nobody finds half a file under the
/// name of a whole one, and what was there stays until then.
pub struct Beside {
    temporary: Unfinished,
    place: PathBuf,
}

impl Beside {
    pub fn create(place: &Path, mode: u32) -> io::Result<Self> {
        // Short, so that it is not too long where the file's own name is not, and not only the
        // process id, which a container gives out again.
        let hidden = format!(".edge-{:016x}.part", rand::random::<u64>());
        Ok(Self {
            temporary: Unfinished::create(&place.with_file_name(hidden), mode)?,
            place: place.to_owned(),
        })
    }

    pub fn file(&self) -> &File {
        self.temporary.file()
    }

    pub fn place(&self) -> &Path {
        &self.place
    }

    /// Puts the file in its place, and both to the disk.
    pub fn finish(self) -> Result<(), PlaceError> {
        let Self { temporary, place } = self;
        let sync = |source| PlaceError::Sync {
            path: place.clone(),
            source,
        };
        // Some errors of writing come only now, and a name must not outlive its bytes.
        temporary.file().sync_all().map_err(sync)?;
        fs::rename(&temporary.entry.path, &place).map_err(|source| PlaceError::Rename {
            path: place.clone(),
            source,
        })?;
        let folder = match place.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder,
            Some(_) | None => Path::new("."),
        };
        match File::open(folder) {
            Ok(folder) => folder.sync_all().map_err(sync),
            // A folder may be written to and not read: then the kernel brings it to the disk when
            // it likes.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            Err(error) => Err(sync(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn what_was_there_stays_until_the_new_file_is_whole() {
        let folder = tempfile::tempdir().unwrap();
        let place = folder.path().join("place");
        fs::write(&place, "old").unwrap();
        let given_up = Beside::create(&place, 0o600).unwrap();
        io::Write::write_all(&mut given_up.file(), b"ne").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"old");
        drop(given_up);
        assert_eq!(names(folder.path()), ["place"]);

        let whole = Beside::create(&place, 0o600).unwrap();
        io::Write::write_all(&mut whole.file(), b"new").unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"old");
        whole.finish().unwrap();
        assert_eq!(fs::read(&place).unwrap(), b"new");
        assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o600);
        assert_eq!(names(folder.path()), ["place"]);
    }

    #[test]
    fn a_process_that_ends_at_once_removes_what_it_began_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = |name: &str| folder.path().join(name);
        let begun = Unfinished::create(&path("begun"), 0o600).unwrap();
        let replaced = Unfinished::create(&path("replaced"), 0o600).unwrap();
        let other = Beside::create(&path("replaced"), 0o600).unwrap();
        other.finish().unwrap();
        drop(Beside::create(&path("given-up"), 0o600).unwrap());
        remove_all();
        assert_eq!(names(folder.path()), ["replaced"]);
        drop((begun, replaced));
        assert_eq!(names(folder.path()), ["replaced"]);
    }
}
