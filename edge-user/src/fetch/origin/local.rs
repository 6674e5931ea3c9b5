//! An origin that is a local directory.
//!
//! Its path is resolved at each read, so a symbolic link that is switched to another directory
//! takes effect at once. Lookups below it cannot leave it, and only regular files are opened:
//! opening a pipe can block forever, and opening a device can have side effects.

use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::path::PathBuf;

use edge_ebpf::wire::ChunkId;
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, open, openat2};
use rustix::io::{Errno, preadv};

use super::Origin;
use super::error::{FetchError, ReadError};
use super::slots::Slots;
use crate::cache::fill::Verified;
use crate::object::key::chunk_path;

/// A directory cannot be used as an origin.
#[derive(Debug, thiserror::Error)]
#[error("origin {}: {reason}", .path.display())]
pub struct OriginError {
    path: PathBuf,
    reason: String,
}

#[derive(Debug)]
pub struct Directory {
    path: PathBuf,
}

/// How often to repeat a lookup that raced with a rename.
const LOOKUP_ATTEMPTS: usize = 4;

impl Directory {
    /// Checks that the directory can be read.
    pub fn new(path: PathBuf) -> Result<Self, OriginError> {
        let directory = Self { path };
        match directory.root().and_then(|root| below(&root, ".")) {
            Ok(_) => Ok(directory),
            Err(error) => Err(OriginError {
                reason: match error {
                    Errno::NOENT | Errno::NOTDIR => {
                        "is not a directory; create it, or name another in [[origin]] url".into()
                    }
                    other => reason(other),
                },
                path: directory.path,
            }),
        }
    }

    fn transient(&self, reason: &str) -> FetchError {
        FetchError::Transient(format!("{reason} (origin {})", self.path.display()))
    }

    fn root(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        open(&self.path, flags, Mode::empty())
    }

    /// The chunk's file, as an `O_PATH` descriptor, and its size.
    fn find(&self, id: &ChunkId) -> Result<Option<(OwnedFd, u64)>, String> {
        // A missing root is an error: it does not mean that the chunk is absent.
        let root =
            (self.root()).map_err(|error| format!("the directory itself: {}", reason(error)))?;
        let file = match below(&root, &chunk_path(id)) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(reason(error)),
        };
        let meta = fstat(&file).map_err(reason)?;
        if FileType::from_raw_mode(meta.st_mode) != FileType::RegularFile {
            return Err("is not a file".to_owned());
        }
        Ok(Some((file, meta.st_size.unsigned_abs())))
    }
}

impl Origin for Directory {
    fn fetch(&self, id: ChunkId, slots: &Slots) -> Result<Verified, ReadError> {
        let (file, size_bytes) = (self.find(&id))
            .map_err(|reason| self.transient(&reason))?
            .ok_or(FetchError::Absent)?;
        // Checks the size before anything is read.
        let mut filling = slots.take(id, size_bytes)?;
        // Opens the inode that was checked, even if its name has changed since. This can block on a
        // lease or a network file system.
        reopen(&file)
            .and_then(|file| read_into(&file, &mut filling.segments()))
            .map_err(|error| self.transient(&error.to_string()))?;
        Ok(filling.verify()?)
    }
}

/// Reads until the parts are full or the file ends.
fn read_into(file: &File, mut parts: &mut [IoSliceMut<'_>]) -> io::Result<()> {
    let mut offset = 0;
    while !parts.is_empty() {
        match preadv(file, parts, offset) {
            Ok(0) => break,
            Ok(read) => {
                IoSliceMut::advance_slices(&mut parts, read);
                offset += read as u64;
            }
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Looks up a name below a directory without opening it. Links must stay below the directory.
fn below(root: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut found = Err(Errno::AGAIN);
    for _ in 0..LOOKUP_ATTEMPTS {
        found = openat2(root, name, flags, Mode::empty(), resolve);
        // EAGAIN: the kernel cannot resolve `..` safely because of a concurrent rename.
        if found.as_ref().err() != Some(&Errno::AGAIN) {
            break;
        }
    }
    found
}

fn reopen(file: &OwnedFd) -> io::Result<File> {
    let name = format!("/proc/self/fd/{}", file.as_raw_fd());
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOCTTY;
    match rustix::fs::openat(CWD, name, flags, Mode::empty()) {
        Ok(file) => Ok(file.into()),
        Err(Errno::NOENT) => Err(io::Error::other("/proc is not mounted: mount it for edged")),
        Err(error) => Err(error.into()),
    }
}

fn reason(error: Errno) -> String {
    match error {
        Errno::XDEV => "leads outside the origin".to_owned(),
        Errno::NOSYS | Errno::PERM => {
            format!("openat2 is refused by a seccomp filter or an old kernel: allow it ({error})")
        }
        other => io::Error::from(other).to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::layout::Layout;
    use crate::cache::store::holding;
    use crate::limits::CHUNK_BYTES;
    use edge_ebpf::wire::SEGMENT_BYTES_DEFAULT;
    use rustix::fs::{makedev, mkfifoat, mknodat};
    use sha2::{Digest as _, Sha256};
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::Path;
    use std::sync::Arc;
    use tempfile::TempDir;

    const GOOD: &[u8] = b"the bytes that the name is of";

    fn id() -> ChunkId {
        ChunkId(Sha256::digest(GOOD).into())
    }

    /// The chunk's path below a root; creates its directory.
    fn place(root: &Path) -> PathBuf {
        let path = root.join(chunk_path(&id()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn fetch(directory: &Directory) -> Result<Verified, FetchError> {
        let (mut store, _) = holding(b"another", Layout::new(SEGMENT_BYTES_DEFAULT), 0);
        let slots = Slots::new(Arc::clone(store.view()), 1);
        slots.put(store.take_free().unwrap());
        let result = directory.fetch(id(), &slots);
        assert_eq!(slots.len(), usize::from(result.is_err()), "no slot is lost");
        result.map_err(|error| match error {
            ReadError::Failed(error) => error,
            ReadError::NoSlot => unreachable!("there was one"),
        })
    }

    fn assert_good(result: &Result<Verified, FetchError>) {
        let verified = result.as_ref().unwrap();
        assert_eq!(verified.chunk_bytes() as usize, GOOD.len());
    }

    fn assert_failed(result: &Result<Verified, FetchError>, why: &str) {
        assert!(
            matches!(result, Err(FetchError::Transient(reason)) if reason.contains(why)),
            "{result:?}"
        );
    }

    /// An origin and a directory beside it.
    fn fixture() -> (TempDir, PathBuf, Directory, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (root, beside) = (folder.path().join("origin"), folder.path().join("beside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&beside).unwrap();
        let directory = Directory::new(root.clone()).unwrap();
        (folder, root, directory, beside)
    }

    #[test]
    fn a_link_that_is_switched_takes_effect_at_the_next_read() {
        let (folder, root, _, beside) = fixture();
        let current = folder.path().join("current");
        symlink(&beside, &current).unwrap();
        let directory = Directory::new(current.clone()).unwrap();
        assert!(matches!(fetch(&directory), Err(FetchError::Absent)));
        fs::write(place(&root), GOOD).unwrap();
        let switched = folder.path().join("switched");
        symlink(&root, &switched).unwrap();
        fs::rename(switched, &current).unwrap();
        assert_good(&fetch(&directory));
    }

    #[test]
    fn a_missing_origin_is_a_failure_and_not_an_absent_chunk() {
        let (folder, root, directory, _) = fixture();
        assert!(matches!(fetch(&directory), Err(FetchError::Absent)));
        fs::rename(&root, folder.path().join("moved")).unwrap();
        assert_failed(&fetch(&directory), "No such file or directory");
        assert_failed(&fetch(&directory), root.to_str().unwrap());
        fs::write(&root, "a file").unwrap();
        assert_failed(&fetch(&directory), "Not a directory");
        fs::remove_file(&root).unwrap();
        fs::rename(folder.path().join("moved"), &root).unwrap();
        assert!(matches!(fetch(&directory), Err(FetchError::Absent)));
    }

    #[test]
    fn links_within_an_origin_are_followed_and_links_out_of_it_are_refused() {
        let (_folder, root, directory, beside) = fixture();
        let file = place(&root);
        let outside = beside.join("secret");
        fs::write(&outside, GOOD).unwrap();
        // The chunk's file is a link, then one of its directories.
        for target in [outside.clone(), PathBuf::from("../../../../beside/secret")] {
            symlink(target, &file).unwrap();
            assert_failed(&fetch(&directory), "leads outside the origin");
            fs::remove_file(&file).unwrap();
        }
        let chunks = root.join("chunks");
        fs::remove_dir_all(&chunks).unwrap();
        fs::write(place(&beside), GOOD).unwrap();
        symlink(beside.join("chunks"), &chunks).unwrap();
        assert_failed(&fetch(&directory), "leads outside the origin");
        fs::remove_file(&chunks).unwrap();
        fs::rename(beside.join("chunks"), root.join("elsewhere")).unwrap();
        symlink("elsewhere", &chunks).unwrap();
        assert_good(&fetch(&directory));
    }

    #[test]
    fn only_regular_files_are_opened() {
        let (_folder, root, directory, _) = fixture();
        let file = place(&root);
        // Opening it would block until there is a writer.
        mkfifoat(CWD, &file, Mode::RUSR | Mode::WUSR).unwrap();
        assert_failed(&fetch(&directory), "is not a file");
        fs::remove_file(&file).unwrap();
        fs::create_dir(&file).unwrap();
        assert_failed(&fetch(&directory), "is not a file");
        fs::remove_dir(&file).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(root.join("socket")).unwrap();
        fs::rename(root.join("socket"), &file).unwrap();
        assert_failed(&fetch(&directory), "is not a file");
        fs::remove_file(&file).unwrap();
        // Creating a device needs a privilege that this process may lack.
        let null = makedev(1, 3);
        if mknodat(CWD, &file, FileType::CharacterDevice, Mode::RUSR, null).is_ok() {
            assert_failed(&fetch(&directory), "is not a file");
        }
    }

    #[test]
    fn a_file_of_a_size_that_no_chunk_has_is_refused_without_reading_it() {
        let (_folder, root, directory, _) = fixture();
        let file = place(&root);
        for size in [0, CHUNK_BYTES as u64 + 1, 1 << 40] {
            File::create(&file).unwrap().set_len(size).unwrap();
            let result = fetch(&directory);
            let why = format!("has {size} bytes");
            assert!(
                matches!(&result, Err(FetchError::Corrupt(reason)) if reason.contains(&why)),
                "{result:?}"
            );
        }
        for bytes in [&b"other"[..], &GOOD[1..], &[GOOD, b"more"].concat()] {
            fs::write(&file, bytes).unwrap();
            assert!(matches!(fetch(&directory), Err(FetchError::Corrupt(_))));
        }
        fs::write(&file, GOOD).unwrap();
        assert_good(&fetch(&directory));
    }

    #[test]
    fn no_slot_is_needed_to_find_whether_a_chunk_exists() {
        let (_folder, root, directory, _) = fixture();
        let (store, _) = holding(b"another", Layout::new(SEGMENT_BYTES_DEFAULT), 0);
        let slots = Slots::new(Arc::clone(store.view()), 1);
        let absent = directory.fetch(id(), &slots);
        assert!(matches!(absent, Err(ReadError::Failed(FetchError::Absent))));
        fs::write(place(&root), GOOD).unwrap();
        let present = directory.fetch(id(), &slots);
        assert!(matches!(present, Err(ReadError::NoSlot)));
    }

    #[test]
    fn a_missing_origin_is_reported_with_a_remedy() {
        let error = Directory::new(PathBuf::from("/nowhere/at/all")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/nowhere/at/all") && text.contains("create it"),
            "{text}"
        );
    }
}
