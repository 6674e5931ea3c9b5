//! What readers have of the cache.

use std::ops::Range;
use std::sync::Arc;

use edge_ebpf::maps::Resident;
use edge_ebpf::wire::{ChunkId, Geometry};

use super::index::Index;
use super::layout::Layout;
use super::slot_table::SlotTable;
use crate::limits::OWNED_LEASES;
use crate::sys::epochs::{Epochs, Loan, OwnedLoan, Reader};
use crate::sys::slab::Slab;

/// The cache as every reader sees it. It gives out leases, and no other way to a slot.
#[derive(Debug)]
pub struct CacheView {
    pub(super) table: SlotTable,
    pub(super) index: Index,
    pub(super) epochs: Epochs,
    pub(super) layout: Layout,
}

/// A resident chunk that may be read and sent. Its slot is not written again while this exists, nor
/// before the reader it was made for is quiescent (I6).
#[derive(Clone, Copy, Debug)]
pub struct Lease<'pin> {
    loan: Loan<'pin>,
    geometry: Geometry,
    layout: Layout,
}

/// A lease for a front that is not done by its next quiescent state. There is a bounded number of
/// them: each keeps a slot from being used again.
#[derive(Debug)]
pub struct OwnedLease {
    loan: OwnedLoan,
    geometry: Geometry,
}

impl CacheView {
    /// Of a slab whose blocks are the slots, for this many readers. Nothing is resident.
    pub fn new(slab: Slab, layout: Layout, readers: usize) -> Self {
        let slots = slab.block_count();
        Self {
            epochs: Epochs::new(Arc::new(slab), readers, OWNED_LEASES.min(slots.div_ceil(4))),
            table: SlotTable::new(slots),
            index: Index::new(slots),
            layout,
        }
    }

    pub const fn layout(&self) -> Layout {
        self.layout
    }

    pub fn slot_count(&self) -> usize {
        self.epochs.slab().block_count() as usize
    }

    /// The right to ask for leases; each thread has its own. The numbers are those below what the
    /// cache was made for, and each is in use once at a time.
    pub fn reader(&self, number: usize) -> Reader {
        self.epochs.reader(number)
    }

    /// The chunk in the slot and generation that the XDP program named, if it is still there. The
    /// hint may be anything (I5).
    #[inline]
    pub fn confirm<'pin>(
        &self,
        pin: &'pin Reader,
        hint: Resident,
        id: &ChunkId,
    ) -> Option<Lease<'pin>> {
        let chunk_bytes = self.table.confirm(hint, id)?;
        self.lease(pin, hint.slot, chunk_bytes)
    }

    /// The chunk, if it is resident. Beside a change of the cache it may be missed for a moment.
    #[inline]
    pub fn lookup<'pin>(&self, pin: &'pin Reader, id: &ChunkId) -> Option<Lease<'pin>> {
        self.index.find(id, |slot| {
            let chunk_bytes = self.table.holds(slot, id)?;
            self.lease(pin, slot, chunk_bytes)
        })
    }

    #[inline]
    fn lease<'pin>(&self, pin: &'pin Reader, slot: u32, chunk_bytes: u32) -> Option<Lease<'pin>> {
        Some(Lease {
            loan: self.epochs.loan(pin, slot)?,
            geometry: self.layout.geometry(chunk_bytes)?,
            layout: self.layout,
        })
    }
}

impl<'pin> Lease<'pin> {
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    pub const fn layout(&self) -> Layout {
        self.layout
    }

    /// What a send names.
    pub const fn loan(&self) -> &Loan<'pin> {
        &self.loan
    }

    /// Neighbouring datagrams, `count` from `first` on: their place in the slot.
    #[inline]
    pub fn datagrams(&self, first: u8, count: u8) -> Option<Range<usize>> {
        self.layout.datagrams(&self.geometry, first, count)
    }

    /// One datagram.
    #[inline]
    pub fn datagram(&self, index: u8) -> Option<&'pin [u8]> {
        self.loan.bytes().get(self.datagrams(index, 1)?)
    }

    /// Has one datagram brought into the processor's cache.
    #[inline]
    pub fn prefetch(&self, index: u8) {
        if let Some(place) = self.datagrams(index, 1) {
            self.loan.prefetch(place);
        }
    }

    /// A lease that outlasts the pin, unless as many as there may be are in use.
    pub fn to_owned(&self) -> Option<OwnedLease> {
        Some(OwnedLease {
            loan: self.loan.to_owned()?,
            geometry: self.geometry,
        })
    }
}

impl OwnedLease {
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }

    /// The slot, with the chunk's datagrams in front.
    pub fn bytes(&self) -> &[u8] {
        self.loan.bytes()
    }
}
