//! The trait of the workers' two transmitters.

use edge_ebpf::frame::Frame;
use edge_ebpf::wire::Nack;

use super::plan::Runs;
use super::socket::gso::GsoTransmitter;
use super::{Request, Unsent};
use crate::cache::lease::Lease;
use crate::sys::send::SendQueue;
use crate::sys::xsk::{RxFrame, Xsk};

/// The packet to answer, and the socket that received it.
pub struct Incoming<'a> {
    pub xsk: &'a mut Xsk,
    pub packet: &'a RxFrame,
    pub frame: &'a Frame,
    pub request: &'a Request,
}

pub trait Transmitter: Send {
    fn data(&mut self, to: &mut Incoming<'_>, lease: &Lease<'_>, runs: Runs) -> Result<(), Unsent>;

    fn nack(&mut self, to: &mut Incoming<'_>, nack: &Nack) -> Result<(), Unsent>;

    /// Called for each reply of a batch before the first is sent.
    fn prefetch(&self, _lease: &Lease<'_>, _runs: &Runs) {}

    /// Submits queued sends to the kernel.
    fn flush(&mut self, xsk: &mut Xsk);

    /// Whether sends are left for [`Self::flush`] to submit again.
    fn has_unsent(&self, xsk: &Xsk) -> bool;
}

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
