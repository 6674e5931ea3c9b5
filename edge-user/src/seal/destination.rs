//! Where the output of a command goes. Resolved and checked before the work. A regular file is
//! replaced when the new one is complete; anything else is written to. Names are looked up in an
//! open folder, and a symbolic link is followed only where the kernel follows it for this user
//! (`fs.protected_symlinks`).

use std::ffi::{OsStr, OsString};
use std::fs::{File, Metadata};
use std::io::{self, IsTerminal, Seek, SeekFrom, stderr, stdin, stdout};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{env, fs};

use rustix::fs::{
    AtFlags, FileType, Gid, Mode, OFlags, Stat, StatxAttributes, StatxFlags, Uid, fchmod, fchown,
    fcntl_getfl, fstat, open, openat, statat, statx,
};
use rustix::io::Errno;
use rustix::process::{PidfdFlags, PidfdGetfdFlags, geteuid, getpid, pidfd_getfd, pidfd_open};
use rustix::thread::{CapabilitySet, capabilities};
use thiserror::Error;

use super::temp_file::TempFile;

/// Before the umask.
const OBJECT_MODE: u32 = 0o666;
/// As in the kernel.
const LINKS_MAX: u32 = 40;
const FOLDER: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

#[derive(Debug, Error)]
pub enum DestinationError {
    #[error("{0} is a directory: choose a file in it")]
    Folder(PathBuf),
    #[error("{0} is a socket or a block device: choose a file, a pipe or a character device")]
    Kind(PathBuf),
    #[error("{0} is a dangling symbolic link: remove it, or choose its target")]
    Dangling(PathBuf),
    #[error(
        "{0} is a symbolic link that the kernel does not follow for you (permissions, or \
         fs.protected_symlinks): choose its target"
    )]
    Protected(PathBuf),
    #[error("{0} leads to a file without a name: choose another file")]
    Unnamed(PathBuf),
    #[error("{0} is not open for writing")]
    ReadOnly(PathBuf),
    #[error("{0} belongs to another user: choose another file, or remove it")]
    Owner(PathBuf),
    #[error(
        "{0} exists and may contain the only key to an object: choose another file, or use --force"
    )]
    Exists(PathBuf),
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot create a temporary file in {path}: {source}")]
    Scratch { path: PathBuf, source: io::Error },
    #[error("cannot sync the file for {path} to disk: {source}")]
    Sync { path: PathBuf, source: io::Error },
    #[error("cannot move the file to {path}: {source}")]
    Place { path: PathBuf, source: io::Error },
    #[error("{path} is damaged, as overwriting it failed: {source}")]
    Damaged { path: PathBuf, source: io::Error },
}

/// What is written, which determines mode and owner of the file.
#[derive(Clone, Copy)]
pub enum Content {
    /// A new file gets its mode from the umask; a replaced file keeps owner and mode.
    Object,
    /// Always has this mode and belongs to its writer. Without `force` it does not replace a file
    /// that may contain a key.
    Ticket { mode: u32, force: bool },
}

/// A resolved path.
pub struct Destination {
    path: PathBuf,
    kind: Kind,
}

enum Kind {
    Stream(File),
    Name(Name),
}

/// A name in a folder, of a regular file or of none.
struct Name {
    folder: Arc<OwnedFd>,
    file: OsString,
    existing: Option<Existing>,
}

struct Existing {
    found: Stat,
    /// Whether another file can be renamed over it.
    replaceable: bool,
}

impl Destination {
    /// `-` is standard output. Blocks on a FIFO until it has a reader.
    pub fn resolve(path: &Path) -> Result<Self, DestinationError> {
        let kind = if path == Path::new("-") {
            stream(own_descriptor(1), path)?
        } else {
            resolve(path, path)?
        };
        Ok(Self {
            path: path.to_owned(),
            kind,
        })
    }

    /// Whether this file is the destination.
    pub fn is_file(&self, file: &Metadata) -> bool {
        match &self.kind {
            Kind::Name(Name {
                existing: Some(Existing { found, .. }),
                ..
            }) => (file.dev(), file.ino()) == (found.st_dev, found.st_ino),
            Kind::Name(_) | Kind::Stream(_) => false,
        }
    }

    /// Whether output to one would replace or mix with output to the other.
    pub fn is_same(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::Stream(one), Kind::Stream(other)) => same_stream(one, other),
            (Kind::Name(one), Kind::Name(other)) => match (&one.existing, &other.existing) {
                (Some(one), Some(other)) => same(&one.found, &other.found),
                (None, None) => {
                    let folders = (fstat(&one.folder), fstat(&other.folder));
                    one.file == other.file
                        && matches!(folders, (Ok(one), Ok(other)) if same(&one, &other))
                }
                (Some(_), None) | (None, Some(_)) => false,
            },
            (Kind::Stream(_), Kind::Name(_)) | (Kind::Name(_), Kind::Stream(_)) => false,
        }
    }

    /// Whether it is the same file as standard output.
    pub fn is_standard_output(&self) -> bool {
        let out = || stdout().as_fd().try_clone_to_owned().map(File::from);
        match &self.kind {
            Kind::Stream(file) => out().is_ok_and(|out| same_stream(file, &out)),
            Kind::Name(_) => false,
        }
    }

    pub fn is_terminal(&self) -> bool {
        matches!(&self.kind, Kind::Stream(file) if file.is_terminal())
    }

    /// Creates the file to write to, and finds out how it can replace the destination.
    pub fn create(self, content: Content) -> Result<OutputFile, DestinationError> {
        let Self { path, kind } = self;
        let strategy = match kind {
            Kind::Stream(file) => Strategy::Stream(file),
            Kind::Name(name) => name.create(&path, content)?,
        };
        Ok(OutputFile { path, strategy })
    }
}

/// `shown` is the path for messages.
fn resolve(path: &Path, shown: &Path) -> Result<Kind, DestinationError> {
    let failed = |errno: Errno| DestinationError::Write {
        path: shown.to_owned(),
        source: errno.into(),
    };
    let (folder, name) = split(path).ok_or_else(|| DestinationError::Folder(shown.to_owned()))?;
    let folder = Arc::new(open(folder, FOLDER, Mode::empty()).map_err(failed)?);
    let file = name.to_owned();
    let found = match statat(&folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(found) => found,
        Err(Errno::NOENT) => {
            let existing = None;
            return Ok(Kind::Name(Name {
                folder,
                file,
                existing,
            }));
        }
        Err(errno) => return Err(failed(errno)),
    };
    match FileType::from_raw_mode(found.st_mode) {
        FileType::RegularFile => {
            let replaceable = is_replaceable(&folder, name, &found).map_err(failed)?;
            let existing = Some(Existing { found, replaceable });
            Ok(Kind::Name(Name {
                folder,
                file,
                existing,
            }))
        }
        FileType::Fifo | FileType::CharacterDevice => {
            let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NOCTTY | OFlags::CLOEXEC;
            stream(
                openat(&folder, name, flags, Mode::empty()).map_err(io::Error::from),
                shown,
            )
        }
        FileType::Symlink => {
            let target = match openat(&folder, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())
            {
                Ok(target) => fstat(target).map_err(failed)?,
                Err(Errno::NOENT) => return Err(DestinationError::Dangling(shown.to_owned())),
                Err(Errno::ACCESS) => return Err(DestinationError::Protected(shown.to_owned())),
                Err(errno) => return Err(failed(errno)),
            };
            if let Some(number) = own_descriptor_at(path) {
                return stream(own_descriptor(number), shown);
            }
            let Ok(real) = path.canonicalize() else {
                return Err(DestinationError::Unnamed(shown.to_owned()));
            };
            // Only the file that the kernel opened above.
            match real.symlink_metadata() {
                Ok(found) if (found.dev(), found.ino()) == (target.st_dev, target.st_ino) => {
                    resolve(&real, shown)
                }
                Ok(_) | Err(_) => Err(DestinationError::Unnamed(shown.to_owned())),
            }
        }
        FileType::Directory => Err(DestinationError::Folder(shown.to_owned())),
        FileType::Socket | FileType::BlockDevice | FileType::Unknown => {
            Err(DestinationError::Kind(shown.to_owned()))
        }
    }
}

/// Folder and file name of a path; nothing if it can only be a folder.
fn split(path: &Path) -> Option<(&Path, &OsStr)> {
    let bytes = path.as_os_str().as_bytes();
    let at = bytes.iter().rposition(|byte| *byte == b'/');
    let (folder, name) = match at {
        None => (&b"."[..], bytes),
        Some(0) => (&b"/"[..], &bytes[1..]),
        Some(at) => (&bytes[..at], &bytes[at + 1..]),
    };
    let is_file = !matches!(name, b"" | b"." | b"..");
    is_file.then(|| {
        (
            Path::new(OsStr::from_bytes(folder)),
            OsStr::from_bytes(name),
        )
    })
}

/// An open file that is written to directly.
fn stream(file: io::Result<OwnedFd>, path: &Path) -> Result<Kind, DestinationError> {
    let failed = |source| DestinationError::Write {
        path: path.to_owned(),
        source,
    };
    let file = file.map_err(failed)?;
    let flags = fcntl_getfl(&file).map_err(|errno| failed(errno.into()))?;
    if !flags.intersects(OFlags::WRONLY | OFlags::RDWR) || flags.contains(OFlags::PATH) {
        return Err(DestinationError::ReadOnly(path.to_owned()));
    }
    let file = File::from(file);
    let found = file.metadata().map_err(failed)?;
    if found.file_type().is_block_device() {
        return Err(DestinationError::Kind(path.to_owned()));
    }
    Ok(Kind::Stream(file))
}

/// The descriptor of this process that a link like `/dev/stdout` leads to: opened again, a file would
/// be written from its start.
fn own_descriptor_at(path: &Path) -> Option<i32> {
    let own = ["/proc/self/fd", "/proc/thread-self/fd"].map(|path| Path::new(path).canonicalize());
    let mut path = path.to_owned();
    for _ in 0..LINKS_MAX {
        let (folder, name) = split(&path)?;
        let folder = folder.canonicalize().ok()?;
        if own.iter().flatten().any(|own| *own == folder) {
            return name.to_str()?.parse().ok();
        }
        let target = folder.join(name).read_link().ok()?;
        path = folder.join(target);
    }
    None
}

/// Duplicates a descriptor of this process.
fn own_descriptor(number: i32) -> io::Result<OwnedFd> {
    match number {
        0 => stdin().as_fd().try_clone_to_owned(),
        1 => stdout().as_fd().try_clone_to_owned(),
        2 => stderr().as_fd().try_clone_to_owned(),
        _ => {
            let process = pidfd_open(getpid(), PidfdFlags::empty())?;
            Ok(pidfd_getfd(process, number, PidfdGetfdFlags::empty())?)
        }
    }
}

/// Whether another file can be renamed over this one. An error if it cannot be written to either.
fn is_replaceable(folder: &OwnedFd, name: &OsStr, found: &Stat) -> Result<bool, Errno> {
    let attributes = statx(folder, name, AtFlags::SYMLINK_NOFOLLOW, StatxFlags::empty())
        .map_or(StatxAttributes::empty(), |found| found.stx_attributes);
    if attributes.intersects(StatxAttributes::IMMUTABLE | StatxAttributes::APPEND) {
        return Err(Errno::PERM);
    }
    let folder = fstat(folder)?;
    let euid = geteuid().as_raw();
    let is_free = folder.st_mode & Mode::SVTX.as_raw_mode() == 0
        || [found.st_uid, folder.st_uid].contains(&euid)
        || capabilities(None).is_ok_and(|sets| sets.effective.contains(CapabilitySet::FOWNER));
    Ok(is_free && !attributes.contains(StatxAttributes::MOUNT_ROOT))
}

fn same(one: &Stat, other: &Stat) -> bool {
    (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
}

/// Whether output to both would mix. Character devices other than terminals accept several writers.
fn same_stream(one: &File, other: &File) -> bool {
    let found = (fstat(one), fstat(other));
    let is_one = matches!(&found, (Ok(one), Ok(other)) if same(one, other));
    let is_device = one
        .metadata()
        .is_ok_and(|found| found.file_type().is_char_device());
    is_one && (!is_device || one.is_terminal())
}

impl Name {
    fn create(self, path: &Path, content: Content) -> Result<Strategy, DestinationError> {
        let failed = |source| DestinationError::Write {
            path: path.to_owned(),
            source,
        };
        let (is_ticket, force) = match content {
            Content::Object => (false, true),
            Content::Ticket { force, .. } => (true, force),
        };
        let mode = match (content, &self.existing) {
            (Content::Ticket { mode, .. }, _) => mode,
            (Content::Object, Some(existing)) => existing.found.st_mode & 0o777,
            (Content::Object, None) => OBJECT_MODE & !umask(),
        };
        let file = TempFile::create(&self.folder);
        let Some(existing) = self.existing else {
            let file = file.map_err(failed)?;
            return Ok(Strategy::Rename {
                file,
                folder: self.folder,
                name: self.file,
                mode,
                replace: force,
            });
        };
        let found = existing.found;
        // An empty file contains no key.
        if !force && found.st_size > 0 {
            return Err(DestinationError::Exists(path.to_owned()));
        }
        let is_ours = found.st_uid == geteuid().as_raw();
        match file {
            Ok(file) if existing.replaceable && (is_ticket || copy_owner(file.file(), &found)) => {
                Ok(Strategy::Rename {
                    file,
                    folder: self.folder,
                    name: self.file,
                    mode,
                    replace: true,
                })
            }
            // The owner of an existing file must not get the key.
            Ok(_) | Err(_) if is_ticket && !is_ours => {
                Err(DestinationError::Owner(path.to_owned()))
            }
            file => {
                let flags = OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
                let target = match openat(&self.folder, &self.file, flags, Mode::empty()) {
                    Ok(target) => target,
                    // A rename is possible, but would change the owner.
                    Err(Errno::ACCESS) if file.is_ok() && existing.replaceable => {
                        return Err(DestinationError::Owner(path.to_owned()));
                    }
                    Err(errno) => return Err(failed(errno.into())),
                };
                if !fstat(&target).is_ok_and(|now| same(&now, &found)) {
                    return Err(failed(Errno::AGAIN.into()));
                }
                let file = match file {
                    Ok(file) => file.file().try_clone().map_err(failed)?,
                    Err(_) => scratch()?,
                };
                Ok(Strategy::Overwrite {
                    file,
                    target: target.into(),
                    mode: is_ticket.then_some(mode),
                })
            }
        }
    }
}

/// A temporary file without a name.
pub fn scratch() -> Result<File, DestinationError> {
    let folder = env::temp_dir();
    TempFile::scratch(&folder).map_err(|source| DestinationError::Scratch {
        path: folder,
        source,
    })
}

/// Gives a new file the owner and group of the one it replaces. Returns whether that succeeded.
fn copy_owner(file: &File, found: &Stat) -> bool {
    let Ok(own) = fstat(file) else {
        return false;
    };
    let owner = (own.st_uid != found.st_uid).then(|| Uid::from_raw(found.st_uid));
    let group = (own.st_gid != found.st_gid).then(|| Gid::from_raw(found.st_gid));
    (owner.is_none() && group.is_none()) || fchown(file, owner, group).is_ok()
}

/// The umask of this process, or 077 if unknown.
fn umask() -> u32 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status
        .lines()
        .find_map(|line| line.strip_prefix("Umask:"))
        .and_then(|mask| u32::from_str_radix(mask.trim(), 8).ok());
    mask.unwrap_or(0o077)
}

/// An output being written. Dropped before `commit`, it leaves an existing file unchanged, unless it
/// is a stream.
pub struct OutputFile {
    path: PathBuf,
    strategy: Strategy,
}

enum Strategy {
    /// Written directly.
    Stream(File),
    /// Written to a new file, which then replaces the destination.
    Rename {
        file: TempFile,
        folder: Arc<OwnedFd>,
        name: OsString,
        mode: u32,
        replace: bool,
    },
    /// Written to a temporary file, which is then copied over the destination.
    Overwrite {
        file: File,
        target: File,
        mode: Option<u32>,
    },
}

impl OutputFile {
    /// The file to write to.
    pub fn file(&self) -> &File {
        match &self.strategy {
            Strategy::Rename { file, .. } => file.file(),
            Strategy::Stream(file) | Strategy::Overwrite { file, .. } => file,
        }
    }

    /// Whether it must be written in order.
    pub fn is_stream(&self) -> bool {
        matches!(self.strategy, Strategy::Stream(_))
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Moves the complete file to its destination and syncs it to disk.
    pub fn commit(self) -> Result<(), DestinationError> {
        let Self { path, strategy } = self;
        let sync = |source| DestinationError::Sync {
            path: path.clone(),
            source,
        };
        match strategy {
            Strategy::Stream(_) => Ok(()),
            Strategy::Rename {
                file,
                folder,
                name,
                mode,
                replace,
            } => {
                // Some write errors occur only here, and a name must not outlive its bytes.
                fchmod(file.file(), Mode::from_raw_mode(mode))
                    .map_err(|errno| sync(errno.into()))?;
                file.file().sync_all().map_err(sync)?;
                match file.persist(&name, replace) {
                    Ok(()) => sync_folder(&folder).map_err(sync),
                    Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                        Err(DestinationError::Exists(path))
                    }
                    Err(source) => Err(DestinationError::Place { path, source }),
                }
            }
            Strategy::Overwrite { file, target, mode } => copy(file, target, mode)
                .map_err(|source| DestinationError::Damaged { path, source }),
        }
    }
}

fn sync_folder(folder: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    match openat(folder, ".", flags, Mode::empty()) {
        Ok(folder) => File::from(folder).sync_all(),
        // A folder that is writable but not readable cannot be synced.
        Err(Errno::ACCESS) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

fn copy(mut file: File, mut target: File, mode: Option<u32>) -> io::Result<()> {
    if let Some(mode) = mode {
        fchmod(&target, Mode::from_raw_mode(mode))?;
    }
    file.seek(SeekFrom::Start(0))?;
    let bytes = io::copy(&mut file, &mut target)?;
    target.set_len(bytes)?;
    target.sync_all()
}
