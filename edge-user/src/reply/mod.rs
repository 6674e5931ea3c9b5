//! Turns a want set into sends of bytes that lie ready.

/// Who asked, and which service address was asked.
pub mod peer;
/// Which segments, in which runs.
pub mod plan;
/// Of which parts of a slot the sends of a burst are made.
pub mod gather;
/// Which clients can be reached.
pub mod reach;
/// One gathered send, cut into datagrams by the kernel.
pub mod gso;

use edge_ebpf::wire::{Get, Nack, NackCode};

use self::peer::Peer;

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
