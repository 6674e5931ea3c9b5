//! Why the daemon does not start, with remedies.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use super::remedy::{Operation, Refused};
use super::shortage::Shortage;
use crate::cache::store::TooSmall;
use crate::daemon::nic::program::AttachError;
use crate::fetch::origin::local::OriginError;
use crate::limits::DAD_TIMEOUT;

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
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error(
        "{address} is still tentative after {} s: its interface has no link, or duplicate address \
         detection is slow (`ip -6 address show tentative`); start again when it is complete",
        DAD_TIMEOUT.as_secs()
    )]
    Tentative { address: SocketAddr },
    #[error(
        "a neighbour has {address} too, so this host cannot use it (`ip -6 address show \
         dadfailed`); assign it to one host only"
    )]
    Duplicate { address: SocketAddr },
    #[error(
        "service.interfaces: {first} and {second} are names of one interface, {name}; remove one"
    )]
    SameInterface {
        first: String,
        second: String,
        name: String,
    },
    #[error(
        "{address} is an address of both {first} and {second}, but a link-local service address \
         must belong to one interface; use different addresses, or serve only one of them"
    )]
    LinkLocal {
        address: SocketAddr,
        first: String,
        second: String,
    },
    #[error("interface {interface}: {error} (`ip link` lists the interfaces of this host)")]
    Interface { interface: String, error: io::Error },
    #[error(
        "segments of {segment_bytes} bytes make packets of {needed_bytes} bytes, but the MTU \
         of {interface} is {mtu_bytes}: lower service.segment_bytes, or raise the MTU"
    )]
    Mtu {
        interface: String,
        mtu_bytes: u32,
        needed_bytes: u32,
        segment_bytes: u16,
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
            Self::Refused(refused) | Self::Attach(AttachError::Refused(refused)) => {
                refused.exit_code()
            }
            Self::Attach(AttachError::NotPermitted(_)) => 77,
            Self::Tentative { .. } | Self::Duplicate { .. } => 75,
            Self::Config(_)
            | Self::TooSmall(_)
            | Self::Mtu { .. }
            | Self::SameInterface { .. }
            | Self::LinkLocal { .. } => 78,
            Self::Attach(_) | Self::Origin(_) | Self::Interface { .. } => 1,
        }
    }
}

/// Why a running daemon cannot continue.
#[derive(Debug, thiserror::Error)]
pub enum Broken {
    #[error("a thread of the data plane ended unexpectedly; see the log lines above")]
    Thread,
    #[error(
        "{}; start edged again when one is restored (`ip link`)",
        removed(interfaces)
    )]
    InterfacesRemoved { interfaces: Vec<String> },
}

fn removed(interfaces: &[String]) -> String {
    match interfaces {
        [one] => format!("the interface {one} was removed while it was served"),
        all => format!(
            "the interfaces {} were removed while they were served",
            all.join(", ")
        ),
    }
}

/// Converts an error of the kernel.
pub(super) fn refused<T>(
    operation: Operation,
    subject: impl fmt::Display,
    result: io::Result<T>,
) -> Result<T, StartError> {
    result.map_err(|error| {
        StartError::Refused(Refused {
            operation,
            subject: subject.to_string(),
            error,
        })
    })
}

/// Converts an error of an operation that needs no explanation of its own.
pub(super) fn system<T>(what: &str, result: io::Result<T>) -> Result<T, StartError> {
    refused(Operation::Other, what, result)
}
