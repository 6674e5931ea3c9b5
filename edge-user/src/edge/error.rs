//! Why the daemon does not start, with what to do about it.

use std::io;
use std::net::SocketAddr;

use super::memory::Shortage;
use crate::attach::AttachError;
use crate::miss::directory::OriginError;
use crate::store::TooSmall;

/// Why the daemon does not start, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("{0}; raise store.size")]
    TooSmall(#[from] TooSmall),
    #[error("no hugepages for {what}: {shortage}, or set store.hugepages = \"prefer\" or \"off\"")]
    Hugepages { what: String, shortage: Shortage },
    #[error("no memory for {what}: {shortage}")]
    Memory { what: String, shortage: Shortage },
    #[error("{address} is taken by another program (`ss -lunp` names it); stop it first")]
    AddressInUse { address: SocketAddr },
    #[error(
        "{address} is not an address of this host; give it to an interface (`ip address add …`) or \
         change service.listen"
    )]
    NoSuchAddress { address: SocketAddr },
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    #[error("interface {interface}: {error}; `ip link` lists those there are")]
    Interface { interface: String, error: io::Error },
    #[error(
        "segments of {segment_bytes} bytes make packets of {needed_bytes}, and {interface} carries \
         {mtu_bytes}: lower service.segment_bytes, or raise the MTU"
    )]
    Mtu {
        interface: String,
        mtu_bytes: u32,
        needed_bytes: u32,
        segment_bytes: u16,
    },
    #[error(
        "queue {queue} of {interface} is taken by an AF_XDP socket of another program (`ss -p \
         --xdp` names it); stop it first"
    )]
    QueueInUse { queue: u32, interface: String },
    #[error(
        "no AF_XDP socket on queue {queue} of {interface}: {error}; see docs/OPERATING.md, \
         \"Queues\""
    )]
    Bind {
        queue: u32,
        interface: String,
        error: io::Error,
    },
    #[error("{what} cannot be set up: {error}")]
    System {
        what: &'static str,
        error: io::Error,
    },
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
}

impl StartError {
    /// As in docs/OPERATING.md, "Exit codes".
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Hugepages { shortage, .. } | Self::Memory { shortage, .. } => {
                shortage.exit_code()
            }
            Self::Attach(AttachError::NotPermitted(_)) => 77,
            Self::AddressInUse { .. }
            | Self::QueueInUse { .. }
            | Self::Attach(AttachError::Occupied { .. }) => 75,
            Self::Config(_) | Self::NoSuchAddress { .. } | Self::TooSmall(_) | Self::Mtu { .. } => {
                78
            }
            Self::Bind { error, .. } | Self::Listen { error, .. } | Self::System { error, .. }
                if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) =>
            {
                77
            }
            Self::Attach(_)
            | Self::Origin(_)
            | Self::Listen { .. }
            | Self::Interface { .. }
            | Self::Bind { .. }
            | Self::System { .. } => 1,
        }
    }
}

/// Why a daemon that served does not go on.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("a thread of the data plane ended by itself; the lines above say why")]
    Thread,
    #[error(
        "the interface {interface} was removed while it was served; start edged again when it is \
         back (`ip link`)"
    )]
    InterfaceGone { interface: String },
}

/// An error of something every Linux has.
pub(super) fn system<T>(what: &'static str, result: io::Result<T>) -> Result<T, StartError> {
    result.map_err(|error| StartError::System { what, error })
}
