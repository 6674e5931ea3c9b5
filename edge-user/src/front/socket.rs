//! The unix socket: its folder, its mode, and whether somebody else is behind it.

use std::fs::{self, File};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, chmod, flock};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, listen, socket_with,
};
use tokio::net::UnixListener;

use super::FrontError;
use crate::terminal::one_line;

/// Owner and group may ask; the rest of the machine may not.
const SOCKET_MODE: Mode = Mode::from_bits_truncate(0o660);
/// Connections the kernel holds for us while all places are taken.
const BACKLOG: i32 = 64;

/// The socket's file, removed with this value.
#[derive(Debug)]
pub(super) struct AdminSocket {
    path: PathBuf,
    /// Device and inode: at the end we remove ours, not that of somebody who came after us.
    identity: (u64, u64),
}

impl AdminSocket {
    /// Makes the folder, removes what a dead `edged` left, and listens.
    pub(super) fn open(path: &Path) -> Result<(Self, UnixListener), FrontError> {
        let refuse = |cause: io::Error| FrontError::Socket {
            path: path.to_owned(),
            cause,
        };
        let folder = path.parent().unwrap_or_else(|| Path::new("/"));
        fs::create_dir_all(folder).map_err(refuse)?;
        // Two of us must not look, remove and bind at the same time: the second would remove the
        // socket of the first. The lock goes with the descriptor, when we listen.
        let lock = File::open(folder).map_err(refuse)?;
        if let Err(errno) = flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            return Err(if errno == Errno::WOULDBLOCK {
                FrontError::Starting(folder.to_owned())
            } else {
                refuse(errno.into())
            });
        }
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

impl Drop for AdminSocket {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|identity| identity == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            let path = one_line(&self.path.display().to_string());
            tracing::warn!("{path} stays behind: {error}");
        }
    }
}

fn remove_stale(path: &Path) -> Result<(), FrontError> {
    let refuse = |cause: io::Error| FrontError::Socket {
        path: path.to_owned(),
        cause,
    };
    let kind = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata.file_type(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(refuse(error)),
    };
    if !kind.is_socket() {
        return Err(FrontError::NotASocket(path.to_owned()));
    }
    if is_answered(path).map_err(refuse)? {
        return Err(FrontError::AnotherEdged(path.to_owned()));
    }
    fs::remove_file(path).map_err(refuse)
}

fn is_answered(path: &Path) -> io::Result<bool> {
    let socket = open_socket()?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        // Would block: it listens, but its backlog is full.
        Ok(()) | Err(Errno::WOULDBLOCK) => Ok(true),
        // Nobody has it open any more.
        Err(Errno::CONNREFUSED) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// In three steps rather than one, so that the mode is right before anybody can come in.
fn listen_on(path: &Path) -> io::Result<UnixListener> {
    let socket = open_socket()?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    chmod(path, SOCKET_MODE)?;
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
