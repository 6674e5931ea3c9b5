//! Why the admin API cannot start.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum AdminError {
    #[error("another edged answers on {0}; stop it, or set admin.socket to another path")]
    AnotherEdged(PathBuf),
    #[error("another edged is just starting: it holds {0}; try again")]
    Starting(PathBuf),
    #[error(
        "{0} is not a file that this user alone can open; remove it, and let no other user write \
         to its directory"
    )]
    NotOurLock(PathBuf),
    #[error("{path}: {cause}; {}", socket_remedy(cause), path = path.display())]
    Lock { path: PathBuf, cause: io::Error },
    #[error("{0} exists and is not a socket; remove it, or set admin.socket to another path")]
    NotASocket(PathBuf),
    #[error("admin.socket: {path}: {cause}; {}", socket_remedy(cause), path = path.display())]
    Socket { path: PathBuf, cause: io::Error },
    #[error(
        "admin.metrics: cannot listen on {address}: {cause}; {}",
        metrics_remedy(cause)
    )]
    Metrics {
        address: SocketAddr,
        cause: io::Error,
    },
}

fn socket_remedy(cause: &io::Error) -> &'static str {
    if cause.kind() == io::ErrorKind::PermissionDenied {
        "run as root, or set admin.socket to a writable path"
    } else {
        "set admin.socket to another path"
    }
}

fn metrics_remedy(cause: &io::Error) -> &'static str {
    if cause.kind() == io::ErrorKind::AddrInUse {
        "stop the program that listens there (ss -ltnp), or choose another port, or \"\" to disable"
    } else {
        "use an address of this machine, or \"\" to disable"
    }
}

impl AdminError {
    /// As in docs/OPERATING.md, "Exit codes".
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::AnotherEdged(_) | Self::Starting(_) => 75,
            Self::NotASocket(_) | Self::NotOurLock(_) => 78,
            Self::Socket { cause, .. } | Self::Lock { cause, .. } | Self::Metrics { cause, .. } => {
                let kind = cause.kind();
                match () {
                    () if kind == io::ErrorKind::AddrInUse => 75,
                    () if kind == io::ErrorKind::PermissionDenied => 77,
                    () if kind == io::ErrorKind::AddrNotAvailable => 78,
                    () => 1,
                }
            }
        }
    }
}
