//! Request to answer: one policy for all fronts, and transmitters that only transmit.

/// Steered requests: one pinned thread for each RX queue.
pub mod xdp;
/// Datagrams from the kernel, and bounced requests: one thread.
pub mod socket;
/// How answers leave: one small trait.
pub mod transmit;
/// Requests that a worker could not answer.
pub mod bounce;
/// Keys of the cookie epochs.
pub mod cookies;
/// Which segments, in which runs.
pub mod plan;
/// Who asked, and which service address was asked.
pub mod peer;

use std::net::SocketAddr;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{ChunkId, Get, Nack, NackCode};

use self::peer::Peer;
use self::plan::{Runs, plan};
use crate::cache::lease::Lease;
use crate::fetch::flights::Waiter;

/// A GET with a good cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    pub peer: Peer,
    pub get: Get,
}

impl Request {
    /// The refusal of this request.
    pub fn nack(&self, code: NackCode, retry_ms: u32) -> Nack {
        Nack {
            code,
            retry_ms,
            tag: self.get.id.tag(),
            echo: self.get.cookie.value,
        }
    }
}

/// One waiter for each client address, port and chunk: a client that asks again replaces its want
/// set.
impl Waiter for Request {
    fn chunk(&self) -> ChunkId {
        self.get.id
    }

    fn client(&self) -> SocketAddr {
        self.peer.client
    }

    fn replaces(&self, other: &Self) -> bool {
        self.peer == other.peer
    }
}

/// What a GET with a good cookie is answered with.
#[derive(Clone, Debug)]
pub enum Decision<'pin> {
    /// These segments of the chunk.
    Data(Lease<'pin>, Runs),
    /// A refusal that no fetch can change.
    Nack(Nack),
    /// The chunk is not resident.
    Miss,
}

/// The policy of every front. `max_burst` is how many segments one GET can get.
#[inline]
pub fn decide<'pin>(
    request: &Request,
    lease: Option<Lease<'pin>>,
    max_burst: u8,
) -> Decision<'pin> {
    let Some(lease) = lease else {
        return Decision::Miss;
    };
    match plan(request.get.want, lease.geometry(), max_burst) {
        Some(runs) => Decision::Data(lease, runs),
        None => Decision::Nack(request.nack(NackCode::Range, 0)),
    }
}

/// Why a reply did not leave, or not all of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsent {
    /// All sends are under way.
    Full,
    /// The client was sent something that it has not been reached with yet.
    Unreached,
    /// The first part went out, and the rest did not.
    Partly,
    /// The request is not one that can be answered by this way.
    BadDescriptor,
}

impl Unsent {
    /// How a request ends that was answered so.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Full => Reason::SendQueueFull,
            Self::Unreached => Reason::Unreached,
            Self::Partly => Reason::ServedPartly,
            Self::BadDescriptor => Reason::BadDescriptor,
        }
    }
}
