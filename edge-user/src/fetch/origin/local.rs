//! An origin that is a local directory.
//!
//! Its path is resolved anew at each read, so a link that is switched to another directory counts
//! at once. Nothing below it leads outside, and nothing but a regular file is ever opened: to open a
//! pipe can be to wait for ever, and to open a device can have effects.

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

/// How often a name is looked up again that was moved meanwhile.
const LOOK_UPS: usize = 4;

impl Directory {
    /// Tries that it can be read from.
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

    /// The file of a chunk and its size, if there is one. The file is not open yet.
    fn find(&self, id: &ChunkId) -> Result<Option<(OwnedFd, u64)>, String> {
        // A root that is gone knows nothing of the chunk: that is not to say that it is absent.
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
        // By the size before a byte is read: what grew is not to fill our memory.
        let mut filling = slots.take(id, size_bytes)?;
        // The very file that was looked at, whatever its name leads to by now. It may take its time:
        // a lease on it, or a network file system.
        reopen(&file)
            .and_then(|file| read_into(&file, &mut filling.segments()))
            .map_err(|error| self.transient(&error.to_string()))?;
        Ok(filling.verify()?)
    }
}

/// Until the parts are full, or the file ends.
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

/// A name below a directory, looked up and not opened. Links count as long as they stay below.
fn below(root: &OwnedFd, name: &str) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC;
    let resolve = ResolveFlags::BENEATH | ResolveFlags::NO_MAGICLINKS;
    let mut found = Err(Errno::AGAIN);
    for _ in 0..LOOK_UPS {
        found = openat2(root, name, flags, Mode::empty(), resolve);
        // Somebody renamed something on the way, so the kernel cannot tell where it led.
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
        Err(Errno::NOENT) => Err(io::Error::other("/proc is not there: mount it for edged")),
        Err(error) => Err(error.into()),
    }
}

fn reason(error: Errno) -> String {
    match error {
        Errno::XDEV => "leads outside the origin".to_owned(),
        Errno::NOSYS | Errno::PERM => {
            format!("openat2 is refused, by a seccomp filter or an old kernel: allow it ({error})")
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

    /// The chunk's place under a root; its folder is made.
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

    /// Two directories: an origin, and one beside it.
    fn ground() -> (TempDir, PathBuf, Directory, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let (root, beside) = (folder.path().join("origin"), folder.path().join("beside"));
        fs::create_dir(&root).unwrap();
        fs::create_dir(&beside).unwrap();
        let directory = Directory::new(root.clone()).unwrap();
        (folder, root, directory, beside)
    }

    #[test]
    fn a_link_that_is_switched_counts_from_the_next_read() {
        let (folder, root, _, beside) = ground();
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
    fn an_origin_that_is_gone_has_failed_and_does_not_say_that_a_chunk_is_absent() {
        let (folder, root, directory, _) = ground();
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
    fn nothing_below_an_origin_leads_outside_and_links_within_it_count() {
        let (_folder, root, directory, beside) = ground();
        let file = place(&root);
        let outside = beside.join("secret");
        fs::write(&outside, GOOD).unwrap();
        // What the chunk's name leads to, at its end or on the way there.
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
    fn what_is_no_regular_file_is_refused_and_never_opened() {
        let (_folder, root, directory, _) = ground();
        let file = place(&root);
        // To open it would wait for a writer.
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
        // Making a device takes a right that this process may not have.
        let null = makedev(1, 3);
        if mknodat(CWD, &file, FileType::CharacterDevice, Mode::RUSR, null).is_ok() {
            assert_failed(&fetch(&directory), "is not a file");
        }
    }

    #[test]
    fn what_cannot_be_a_chunk_is_told_by_its_size_before_a_byte_of_it_is_read() {
        let (_folder, root, directory, _) = ground();
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
    fn a_chunk_is_found_out_to_be_there_without_a_slot() {
        let (_folder, root, directory, _) = ground();
        let (store, _) = holding(b"another", Layout::new(SEGMENT_BYTES_DEFAULT), 0);
        let slots = Slots::new(Arc::clone(store.view()), 1);
        let absent = directory.fetch(id(), &slots);
        assert!(matches!(absent, Err(ReadError::Failed(FetchError::Absent))));
        fs::write(place(&root), GOOD).unwrap();
        let present = directory.fetch(id(), &slots);
        assert!(matches!(present, Err(ReadError::NoSlot)));
    }

    #[test]
    fn a_missing_origin_is_named_with_the_remedy() {
        let error = Directory::new(PathBuf::from("/nowhere/at/all")).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("/nowhere/at/all") && text.contains("create it"),
            "{text}"
        );
    }
}
