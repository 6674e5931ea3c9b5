//! Answers requests: one policy for GETs on all fronts, and transmitters without policy.

/// The workers: steered requests, with one pinned thread for each RX queue.
pub mod xdp;
/// The socket front: datagrams from the kernel and bounced requests, in one thread.
pub mod socket;
/// The trait of the workers' transmitters.
pub mod transmit;
/// The queue for requests that a worker could not answer.
pub mod bounce;
/// Cookie keys and their rotation.
pub mod cookies;
/// From want set to runs of segments.
pub mod plan;
/// Client and service address of a request.
pub mod peer;

use std::net::SocketAddr;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{ChunkId, Get, Nack, NackCode};

use self::peer::Peer;
use self::plan::{Runs, plan};
use crate::cache::lease::Lease;
use crate::fetch::flights::Waiter;

/// A GET with a valid cookie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Request {
    pub peer: Peer,
    pub get: Get,
}

impl Request {
    pub fn nack(&self, code: NackCode, retry_ms: u32) -> Nack {
        Nack {
            code,
            retry_ms,
            tag: self.get.id.tag(),
            echo: self.get.cookie.value,
        }
    }
}

/// One waiter for each client address, port and chunk: a repeated request replaces the want set.
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

/// The answer to a GET with a valid cookie.
#[derive(Clone, Debug)]
pub enum Decision<'pin> {
    Data(Lease<'pin>, Runs),
    /// No wanted segment exists.
    Nack(Nack),
    /// The chunk is not resident.
    Miss,
}

/// Decides for every front that answers GETs. `max_burst` is the largest number of segments sent
/// for one GET.
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

/// Why a reply was not sent, or only in part.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unsent {
    /// The send queue is full.
    Full,
    /// An earlier datagram has not reached the client yet.
    Unreached,
    /// Only the first part was sent.
    Partly,
    /// The request's frame is not one that this transmitter can answer.
    BadDescriptor,
}

impl Unsent {
    /// The reason of the request.
    pub const fn reason(self) -> Reason {
        match self {
            Self::Full => Reason::SendQueueFull,
            Self::Unreached => Reason::Unreached,
            Self::Partly => Reason::ServedPartly,
            Self::BadDescriptor => Reason::BadDescriptor,
        }
    }
}
