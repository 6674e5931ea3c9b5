//! Request to answer.

/// Steered requests: one pinned thread for each RX queue.
pub mod xdp;
/// Datagrams from the kernel: one thread, the only writer of the cache (I7).
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

use edge_ebpf::wire::{ChunkId, Get, Nack, NackCode};

use self::peer::Peer;
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
