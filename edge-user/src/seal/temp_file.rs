//! Files without a name until they are complete (O_TMPFILE), so that the kernel removes them however
//! the process ends. On file systems without O_TMPFILE they have a temporary name and are removed on
//! drop, and by `remove_all` before an immediate exit.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, linkat, open, openat, renameat, renameat_with, statat,
    unlinkat,
};
use rustix::io::Errno;

static NAMED: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Only the owner reads an incomplete file.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A temporary name and its file's identity: another file with that name is not ours.
#[derive(Clone)]
struct Entry {
    folder: Arc<OwnedFd>,
    name: String,
    identity: (u64, u64),
}

impl Entry {
    fn remove(&self) {
        let found = statat(&self.folder, &self.name, AtFlags::SYMLINK_NOFOLLOW);
        if found.is_ok_and(|found| (found.st_dev, found.st_ino) == self.identity) {
            // Nothing can be done about an error here.
            let (Ok(()) | Err(_)) = unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

/// A new file in a folder. Removed on drop unless persisted.
pub struct TempFile {
    file: File,
    folder: Arc<OwnedFd>,
    /// Without `O_TMPFILE`, and shortly before a rename.
    entry: Option<Entry>,
}

impl TempFile {
    pub fn create(folder: &Arc<OwnedFd>) -> io::Result<Self> {
        let temp_file = |file: OwnedFd| Self {
            file: file.into(),
            folder: Arc::clone(folder),
            entry: None,
        };
        match open_unnamed(folder) {
            Ok(file) if can_be_named(folder) => return Ok(temp_file(file)),
            Ok(_) | Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        Self::named(folder)
    }

    /// For file systems without `O_TMPFILE`.
    fn named(folder: &Arc<OwnedFd>) -> io::Result<Self> {
        let name = temporary_name();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(folder, &name, flags, MODE)?;
        let mut temp_file = Self {
            file: file.into(),
            folder: Arc::clone(folder),
            entry: None,
        };
        temp_file.register(name)?;
        Ok(temp_file)
    }

    /// A file that is never persisted.
    pub fn scratch(folder: &Path) -> io::Result<File> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = Arc::new(open(folder, flags, Mode::empty())?);
        match open_unnamed(&folder) {
            Ok(file) => Ok(file.into()),
            Err(_) => Self::named(&folder)?.file.try_clone(),
        }
    }

    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives it this name in its folder. An existing file is replaced, or is an error.
    pub fn persist(mut self, name: &OsStr, replace: bool) -> io::Result<()> {
        if self.entry.is_none() {
            match self.link(name) {
                Err(Errno::EXIST) if replace => {}
                linked => return Ok(linked?),
            }
            // A link does not replace a file, and a rename needs a name.
            let temporary = temporary_name();
            self.link(temporary.as_ref())?;
            self.register(temporary)?;
        }
        let from = &self.entry.as_ref().expect("has a temporary name").name;
        let folder = &self.folder;
        if replace {
            return Ok(renameat(folder, from, folder, name)?);
        }
        match renameat_with(folder, from, folder, name, RenameFlags::NOREPLACE) {
            // Without RENAME_NOREPLACE, a file created in between is replaced.
            Err(Errno::INVAL | Errno::NOSYS) => {
                match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
                    Ok(_) => Err(Errno::EXIST.into()),
                    Err(_) => Ok(renameat(folder, from, folder, name)?),
                }
            }
            renamed => Ok(renamed?),
        }
    }

    fn link(&self, name: &OsStr) -> rustix::io::Result<()> {
        link(&self.file, &self.folder, name)
    }

    fn register(&mut self, name: String) -> io::Result<()> {
        let found = self.file.metadata()?;
        let entry = Entry {
            folder: Arc::clone(&self.folder),
            name,
            identity: (found.dev(), found.ino()),
        };
        all().push(entry.clone());
        self.entry = Some(entry);
        Ok(())
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        if let Some(entry) = &self.entry {
            all().retain(|other| other.name != entry.name);
            entry.remove();
        }
    }
}

fn open_unnamed(folder: &OwnedFd) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    openat(folder, ".", flags, MODE)
}

/// Whether an `O_TMPFILE` file can be linked here: tried before it matters.
fn can_be_named(folder: &OwnedFd) -> bool {
    let Ok(file) = open_unnamed(folder) else {
        return false;
    };
    let name = temporary_name();
    let linked = link(&file.into(), folder, name.as_ref());
    linked.is_ok() && unlinkat(folder, &name, AtFlags::empty()).is_ok()
}

fn link(file: &File, folder: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, open, folder, name, AtFlags::SYMLINK_FOLLOW)
}

/// Short, so that it fits wherever the final name does, and random, as process ids repeat in
/// containers.
fn temporary_name() -> String {
    format!(".edge-{:016x}.part", rand::random::<u64>())
}

/// Removes all files with a temporary name, for a process that ends without running drops.
pub fn remove_all() {
    // Without the lock, as a file system may block.
    let entries = all().clone();
    entries.iter().for_each(Entry::remove);
}

fn all() -> MutexGuard<'static, Vec<Entry>> {
    NAMED.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write;

    use super::*;

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    fn opened(folder: &Path) -> Arc<OwnedFd> {
        Arc::new(File::open(folder).unwrap().into())
    }

    #[test]
    fn with_and_without_a_temporary_name_a_file_appears_only_when_persisted() {
        for create in [TempFile::create, TempFile::named] {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path().join("place");
            let begin = |text: &str| {
                let file = create(&opened(folder.path())).unwrap();
                file.file().write_all(text.as_bytes()).unwrap();
                file
            };
            drop(begin("given up"));
            assert_eq!(names(folder.path()), [""; 0]);
            begin("old").persist("place".as_ref(), false).unwrap();
            let refused = begin("new").persist("place".as_ref(), false).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&place).unwrap(), b"old");
            let new = begin("new");
            assert_eq!(fs::read(&place).unwrap(), b"old");
            new.persist("place".as_ref(), true).unwrap();
            assert_eq!(fs::read(&place).unwrap(), b"new");
            assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o600);
            assert_eq!(names(folder.path()), ["place"]);
        }
    }

    #[test]
    fn an_immediate_exit_removes_the_temporary_files_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let begun = TempFile::named(&opened(folder.path())).unwrap();
        let name = begun.entry.as_ref().unwrap().name.clone();
        let replaced = TempFile::named(&opened(folder.path())).unwrap();
        let other = replaced.entry.as_ref().unwrap().name.clone();
        fs::remove_file(folder.path().join(&other)).unwrap();
        fs::write(folder.path().join(&other), "of somebody else").unwrap();
        assert!(names(folder.path()).contains(&name));
        remove_all();
        assert_eq!(names(folder.path()), [other.as_str()]);
        drop((begun, replaced));
        assert_eq!(names(folder.path()), [other]);
    }
}
