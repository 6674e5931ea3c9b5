//! How a worker's answers leave: one small trait, two ways.

use edge_ebpf::frame::Frame;
use edge_ebpf::reason::Reason;

use crate::cache::ChunkRef;
use crate::serve::Request;
use crate::serve::socket::gso::GsoTransmitter;
use crate::sys::send::SendQueue;
use crate::sys::xsk::{RxFrame, Xsk};

pub trait Transmitter: Send {
    /// Answers a request, whose packet is `received`, from a slot that was confirmed and whose
    /// bytes are `stored`.
    fn answer(
        &mut self,
        xsk: &mut Xsk,
        received: &RxFrame,
        frame: &Frame,
        request: &Request,
        stay: ChunkRef,
        stored: &[u8],
    ) -> Reason;

    /// Told of each answer of a batch before the first one is made.
    fn expect(&self, _request: &Request, _stay: ChunkRef) {}

    /// Hands what is queued to the kernel.
    fn flush(&mut self, xsk: &mut Xsk);

    /// Sends that name a slot and are not done (I6).
    fn holds_slots(&self) -> bool;

    /// Whether something is left that [`Self::flush`] is to hand over again.
    fn has_unsent(&self, xsk: &Xsk) -> bool;
}

/// By the kernel's stack, gathered from the arena.
impl<Q: SendQueue + Send> Transmitter for GsoTransmitter<Q> {
    fn answer(
        &mut self,
        _xsk: &mut Xsk,
        _received: &RxFrame,
        _frame: &Frame,
        request: &Request,
        stay: ChunkRef,
        _stored: &[u8],
    ) -> Reason {
        Self::answer(self, request, stay)
    }

    fn flush(&mut self, _xsk: &mut Xsk) {
        Self::flush(self);
    }

    fn holds_slots(&self) -> bool {
        self.in_flight() > 0
    }

    fn has_unsent(&self, _xsk: &Xsk) -> bool {
        self.in_flight() > 0
    }
}
