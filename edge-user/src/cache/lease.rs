//! The readers' view of the cache: leases on resident chunks.

use std::ops::Range;
use std::sync::Arc;

use edge_ebpf::maps::Resident;
use edge_ebpf::wire::{ChunkId, DATA_HEADER_BYTES, Geometry};

use super::index::Index;
use super::layout::Layout;
use super::slot_table::SlotTable;
use crate::limits::OWNED_LEASES;
use crate::sys::epochs::{Epochs, Loan, OwnedLoan, Reader};
use crate::sys::slab::Slab;

/// The cache as readers see it. Slots are accessible through leases only.
#[derive(Debug)]
pub struct CacheView {
    pub(super) table: SlotTable,
    pub(super) index: Index,
    pub(super) epochs: Epochs,
    pub(super) layout: Layout,
}

/// A resident chunk that may be read and sent. Its slot is not rewritten before the next quiescent
/// state of the reader that holds the lease (I6).
#[derive(Clone, Copy, Debug)]
pub struct Lease<'pin> {
    loan: Loan<'pin>,
    geometry: Geometry,
    layout: Layout,
}

/// A lease that outlasts its reader's next quiescent state. Their number is bounded, because each
/// keeps a slot from being reused.
#[derive(Debug)]
pub struct OwnedLease {
    loan: OwnedLoan,
    geometry: Geometry,
    layout: Layout,
}

impl CacheView {
    /// An empty cache whose slots are the slab's blocks.
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

    /// The handle that a thread takes leases with. `number` is below the cache's count of readers
    /// and not in use.
    pub fn reader(&self, number: usize) -> Reader {
        self.epochs.reader(number)
    }

    /// The chunk, if it is still in the slot and generation of the XDP program's hint. The hint is
    /// not trusted (I5).
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

    /// The chunk, if it is resident. Concurrent changes of the cache can hide it for a moment.
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

    pub const fn loan(&self) -> &Loan<'pin> {
        &self.loan
    }

    /// The range in the slot of `count` datagrams starting at `first`.
    #[inline]
    pub fn datagrams(&self, first: u8, count: u8) -> Option<Range<usize>> {
        self.layout.datagrams(&self.geometry, first, count)
    }

    #[inline]
    pub fn datagram(&self, index: u8) -> Option<&'pin [u8]> {
        self.loan.bytes().get(self.datagrams(index, 1)?)
    }

    /// Prefetches one datagram into the CPU cache.
    #[inline]
    pub fn prefetch(&self, index: u8) {
        if let Some(place) = self.datagrams(index, 1) {
            self.loan.prefetch(place);
        }
    }

    /// A lease that outlasts the pin; `None` if all owned leases are in use.
    pub fn to_owned(&self) -> Option<OwnedLease> {
        Some(OwnedLease {
            loan: self.loan.to_owned()?,
            geometry: self.geometry,
            layout: self.layout,
        })
    }
}

impl OwnedLease {
    /// The chunk's bytes, segment by segment.
    pub fn segments(&self) -> impl Iterator<Item = &[u8]> {
        (0..=self.geometry.last).filter_map(|index| {
            let place = self.layout.datagrams(&self.geometry, index, 1)?;
            self.loan.bytes().get(place)?.get(DATA_HEADER_BYTES..)
        })
    }
}
