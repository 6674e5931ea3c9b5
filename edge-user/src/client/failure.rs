//! Why a transfer ended without its object. Each message names what the user can do.

use std::io;

use edge_ebpf::wire::ChunkId;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum Failure {
    #[error(
        "the edge does not answer (3 tries): is edged running there, does a firewall let UDP through, and is this another host than the edge's own, whose addresses it never answers?"
    )]
    Unanswered,
    #[error("nothing listens at this address and port: is edged running there?")]
    Refused,
    #[error(
        "the path does not carry datagrams of {0} bytes: lower service.segment_bytes of the edge"
    )]
    PathTooNarrow(usize),
    #[error("the edge speaks protocol version {0}, this program version 1: update the older one")]
    Version(u8),
    #[error("the edge greets with {field} = {value}, which version 1 does not allow: it is broken")]
    BadWelcome { field: &'static str, value: u32 },
    #[error(
        "the edge refuses the cookies it gives: do the edges behind this address share their secret?"
    )]
    CookieRefused,
    #[error("the edge greets, but sends no data: see `edge stat` there")]
    Silent,
    #[error("no origin of the edge has chunk {0}: was the object sealed to that origin?")]
    Absent(ChunkId),
    #[error("the edge says that chunk {0} is shorter than the ticket makes it: it is broken")]
    Range(ChunkId),
    #[error("the edge is over its limits; try again later")]
    Busy,
    #[error(
        "the edge cannot get chunk {0} from its origin (unreachable, or the chunk is damaged there); try again later"
    )]
    Origin(ChunkId),
    #[error("the edge has been fetching chunk {0} for too long; try again later")]
    Pending(ChunkId),
    #[error(
        "chunk {0} came altered twice: the edge, or somebody on the way, changes data; use another edge"
    )]
    Altered(ChunkId),
    #[error("cannot write: {0}")]
    Sink(#[source] io::Error),
    #[error("{action}: {source}")]
    Socket {
        action: &'static str,
        source: io::Error,
    },
    #[error("interrupted")]
    Interrupted,
}

impl Failure {
    /// Whether the same command may well succeed a little later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy | Self::Origin(_) | Self::Pending(_))
    }
}
