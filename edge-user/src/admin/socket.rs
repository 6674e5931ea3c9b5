//! The unix socket: its directory, its mode, and whether another process uses it.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, FlockOperation, Mode, OFlags, fchmod, flock, fstat, openat};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use rustix::process::{geteuid, umask};
use tokio::net::UnixListener;

use super::error::AdminError;
use crate::terminal::one_line;

/// For owner and group only.
const SOCKET_MODE: Mode = Mode::from_bits_truncate(0o660);
/// Other users cannot open the lock file, and so cannot hold the lock.
const LOCK_MODE: Mode = Mode::from_bits_truncate(0o600);
/// Connections that the kernel queues while the limit is reached.
const BACKLOG: i32 = 64;

/// The socket's file, removed with this value.
#[derive(Debug)]
pub(super) struct AdminSocket {
    path: PathBuf,
    /// Device and inode, so that a later process's socket is not removed.
    identity: (u64, u64),
}

impl AdminSocket {
    /// Creates the directory, removes the socket of a dead `edged`, and listens.
    pub(super) fn open(path: &Path) -> Result<(Self, UnixListener), AdminError> {
        let refuse = |cause: io::Error| AdminError::Socket {
            path: path.to_owned(),
            cause,
        };
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));
        fs::create_dir_all(folder).map_err(refuse)?;
        let lock = lock(path)?;
        remove_stale(path)?;
        let listener = listen_on(path).map_err(refuse)?;
        let identity = identity(path).map_err(refuse)?;
        drop(lock);
        Ok((
            Self {
                path: path.to_owned(),
                identity,
            },
            listener,
        ))
    }
}

/// Serialises startup: of two processes that check, remove and bind at the same time, the second
/// would remove the socket of the first. The lock is on a file that other users cannot open,
/// because they could lock the directory. It is released with the descriptor; the file stays.
fn lock(socket: &Path) -> Result<OwnedFd, AdminError> {
    let mut path = socket.as_os_str().to_owned();
    path.push(".lock");
    let path = PathBuf::from(path);
    let refuse = |errno: Errno| AdminError::Lock {
        path: path.clone(),
        cause: errno.into(),
    };
    // NONBLOCK, in case the file is a pipe.
    let flags =
        OFlags::RDWR | OFlags::CREATE | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(CWD, &path, flags, LOCK_MODE).map_err(refuse)?;
    let stat = fstat(&file).map_err(refuse)?;
    let others = Mode::from_raw_mode(stat.st_mode).intersects(Mode::RWXG | Mode::RWXO);
    if FileType::from_raw_mode(stat.st_mode) != FileType::RegularFile
        || stat.st_uid != geteuid().as_raw()
        || others
    {
        return Err(AdminError::NotOurLock(path));
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(file),
        Err(Errno::WOULDBLOCK) => Err(AdminError::Starting(path)),
        Err(errno) => Err(refuse(errno)),
    }
}

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            let path = one_line(&self.path.display().to_string());
            tracing::warn!("cannot remove {path}: {error}");
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), AdminError> {
    let refuse = |cause: io::Error| AdminError::Socket {
        path: path.to_owned(),
        cause,
    };
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refuse(error)),
    };
    if !kind.is_socket() {
        return Err(AdminError::NotASocket(path.to_owned()));
    }
    if is_answered(path).map_err(refuse)? {
        return Err(AdminError::AnotherEdged(path.to_owned()));
    }
    fs::remove_file(path).map_err(refuse)
}

fn is_answered(path: &Path) -> io::Result<bool> {
    let socket = open_socket()?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        // WOULDBLOCK: a process listens, but its backlog is full.
        Ok(()) | Err(Errno::WOULDBLOCK) => Ok(true),
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Creates the file with its final mode. A later chmod would follow the path, where another user
/// may have put a different file.
fn listen_on(path: &Path) -> io::Result<UnixListener> {
    let socket = open_socket()?;
    // The file gets the socket's mode, restricted by the umask.
    fchmod(&socket, SOCKET_MODE)?;
    let mask = umask(!SOCKET_MODE & (Mode::RWXU | Mode::RWXG | Mode::RWXO));
    let bound = bind(&socket, &SocketAddrUnix::new(path)?);
    umask(mask);
    bound?;
    listen(&socket, BACKLOG)?;
    UnixListener::from_std(socket.into())
}

fn open_socket() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(
        AddressFamily::UNIX,
        SocketType::STREAM,
        flags,
        None,
    )?)
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::symlink_metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}
