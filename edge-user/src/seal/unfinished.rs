//! Files that were begun and may never be finished. Where the file system can, they have no name,
//! so that the kernel removes them however the process ends. Elsewhere each is removed when it is
//! given up, and all of them when the process has to end at once.

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

static ALL: Mutex<Vec<Entry>> = Mutex::new(Vec::new());

/// Nobody else reads what is not finished.
const MODE: Mode = Mode::RUSR.union(Mode::WUSR);

/// A name, and the file that was made there: whatever else stands there later is not ours.
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
            // Nothing better can be done about a file that cannot be removed while failing.
            let (Ok(()) | Err(_)) = unlinkat(&self.folder, &self.name, AtFlags::empty());
        }
    }
}

/// A new file in a folder. Dropped before it is placed, it is gone.
pub struct Unfinished {
    file: File,
    folder: Arc<OwnedFd>,
    /// Where the file system has no files without a name, and shortly before one is renamed.
    entry: Option<Entry>,
}

impl Unfinished {
    pub fn create(folder: &Arc<OwnedFd>) -> io::Result<Self> {
        let unfinished = |file: OwnedFd| Self {
            file: file.into(),
            folder: Arc::clone(folder),
            entry: None,
        };
        match open_unnamed(folder) {
            Ok(file) if can_be_named(folder) => return Ok(unfinished(file)),
            Ok(_) | Err(Errno::OPNOTSUPP | Errno::ISDIR | Errno::NOENT | Errno::INVAL) => {}
            Err(error) => return Err(error.into()),
        }
        Self::named(folder)
    }

    /// The same under a name, for file systems that know no other files.
    fn named(folder: &Arc<OwnedFd>) -> io::Result<Self> {
        let name = hidden_name();
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
        let file = openat(folder, &name, flags, MODE)?;
        let mut unfinished = Self {
            file: file.into(),
            folder: Arc::clone(folder),
            entry: None,
        };
        unfinished.remember(name)?;
        Ok(unfinished)
    }

    /// A file in this folder that is never placed.
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

    /// Gives it this name in its folder; what stands there goes, or is an error.
    pub fn place(mut self, name: &OsStr, replace: bool) -> io::Result<()> {
        if self.entry.is_none() {
            match self.link(name) {
                Err(Errno::EXIST) if replace => {}
                linked => return Ok(linked?),
            }
            // A link takes nobody's place, and only what has a name can be renamed.
            let hidden = hidden_name();
            self.link(hidden.as_ref())?;
            self.remember(hidden)?;
        }
        let from = &self.entry.as_ref().expect("named above").name;
        let folder = &self.folder;
        if replace {
            return Ok(renameat(folder, from, folder, name)?);
        }
        match renameat_with(folder, from, folder, name, RenameFlags::NOREPLACE) {
            // A file system without that: what comes in between is replaced.
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

    fn remember(&mut self, name: String) -> io::Result<()> {
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

impl Drop for Unfinished {
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

/// Whether a file without a name can get one here: learnt with another one, before it matters.
fn can_be_named(folder: &OwnedFd) -> bool {
    let Ok(file) = open_unnamed(folder) else {
        return false;
    };
    let name = hidden_name();
    let linked = link(&file.into(), folder, name.as_ref());
    linked.is_ok() && unlinkat(folder, &name, AtFlags::empty()).is_ok()
}

fn link(file: &File, folder: &OwnedFd, name: &OsStr) -> rustix::io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    linkat(CWD, open, folder, name, AtFlags::SYMLINK_FOLLOW)
}

/// Short, so that it is not too long where the file's own name is not, and not only the process
/// id, which a container gives out again.
fn hidden_name() -> String {
    format!(".edge-{:016x}.part", rand::random::<u64>())
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
    fn with_and_without_a_name_a_file_takes_its_place_only_when_it_is_placed() {
        for create in [Unfinished::create, Unfinished::named] {
            let folder = tempfile::tempdir().unwrap();
            let place = folder.path().join("place");
            let begin = |text: &str| {
                let file = create(&opened(folder.path())).unwrap();
                file.file().write_all(text.as_bytes()).unwrap();
                file
            };
            drop(begin("given up"));
            assert_eq!(names(folder.path()), [""; 0]);
            begin("old").place("place".as_ref(), false).unwrap();
            let refused = begin("new").place("place".as_ref(), false).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists);
            assert_eq!(fs::read(&place).unwrap(), b"old");
            let new = begin("new");
            assert_eq!(fs::read(&place).unwrap(), b"old");
            new.place("place".as_ref(), true).unwrap();
            assert_eq!(fs::read(&place).unwrap(), b"new");
            assert_eq!(fs::metadata(&place).unwrap().mode() & 0o777, 0o600);
            assert_eq!(names(folder.path()), ["place"]);
        }
    }

    #[test]
    fn a_process_that_ends_at_once_removes_what_it_began_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let begun = Unfinished::named(&opened(folder.path())).unwrap();
        let name = begun.entry.as_ref().unwrap().name.clone();
        let replaced = Unfinished::named(&opened(folder.path())).unwrap();
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
