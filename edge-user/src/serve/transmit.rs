//! How a worker's replies leave: one small trait, two ways.

use edge_ebpf::frame::Frame;
use edge_ebpf::wire::Nack;

use super::plan::Runs;
use super::socket::gso::GsoTransmitter;
use super::{Request, Unsent};
use crate::cache::lease::Lease;
use crate::sys::send::SendQueue;
use crate::sys::xsk::{RxFrame, Xsk};

/// The packet that is answered, and the socket it came in by.
pub struct Incoming<'a> {
    pub xsk: &'a mut Xsk,
    pub packet: &'a RxFrame,
    pub frame: &'a Frame,
    pub request: &'a Request,
}

pub trait Transmitter: Send {
    /// Sends these segments of the chunk.
    fn data(&mut self, to: &mut Incoming<'_>, lease: &Lease<'_>, runs: Runs) -> Result<(), Unsent>;

    fn nack(&mut self, to: &mut Incoming<'_>, nack: &Nack) -> Result<(), Unsent>;

    /// Called for each reply of a batch before the first is made.
    fn prefetch(&self, _lease: &Lease<'_>, _runs: &Runs) {}

    /// Hands what is queued to the kernel.
    fn flush(&mut self, xsk: &mut Xsk);

    /// Whether something is left that [`Self::flush`] is to hand over again.
    fn has_unsent(&self, xsk: &Xsk) -> bool;
}

/// By the kernel's stack, gathered from the arena.
impl<Q: SendQueue + Send> Transmitter for GsoTransmitter<Q> {
    fn data(&mut self, to: &mut Incoming<'_>, lease: &Lease<'_>, runs: Runs) -> Result<(), Unsent> {
        Self::data(self, &to.request.peer, lease, runs)
    }

    fn nack(&mut self, to: &mut Incoming<'_>, nack: &Nack) -> Result<(), Unsent> {
        Self::nack(self, &to.request.peer, nack)
    }

    fn flush(&mut self, _xsk: &mut Xsk) {
        Self::flush(self);
    }

    fn has_unsent(&self, _xsk: &Xsk) -> bool {
        self.in_flight() > 0
    }
}
