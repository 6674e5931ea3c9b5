//! Into a slot: packetise, then verify. There is no way to publish bytes that nobody checked.

use std::io::IoSliceMut;

use edge_ebpf::wire::{ChunkId, DATA_HEADER_BYTES, DataHeader, Geometry};
use sha2::{Digest, Sha256};

use super::lease::CacheView;
use crate::sys::slab::Block;

/// A slot that nobody reads.
#[derive(Debug)]
#[must_use = "an unused slot is put back"]
pub struct FreeSlot(Block);

/// A slot with the headers of a chunk's datagrams, and bytes that were not compared with its name.
#[derive(Debug)]
pub struct Written {
    block: Block,
    id: ChunkId,
    geometry: Geometry,
}

/// A slot with the datagrams of the chunk that the id names.
#[derive(Debug)]
pub struct Verified(Written);

impl FreeSlot {
    pub(super) fn new(block: Block) -> Self {
        Self(block)
    }

    /// Which slot it is.
    pub const fn number(&self) -> u32 {
        self.0.index()
    }

    pub(super) fn into_piece(self) -> Block {
        self.0
    }

    /// Makes room for a chunk of this geometry, with the headers of its datagrams.
    pub fn open(mut self, view: &CacheView, id: ChunkId, geometry: Geometry) -> Written {
        let layout = view.layout;
        let slot = view.epochs.slab().bytes_mut(&mut self.0);
        let places = slot.chunks_mut(layout.stride_bytes());
        for (place, index) in places.zip(0..=geometry.last) {
            let data = DataHeader {
                index,
                last: geometry.last,
                chunk_bytes: geometry.chunk_bytes(),
                tag: id.tag(),
            };
            place[..DATA_HEADER_BYTES].copy_from_slice(&data.encode());
        }
        Written {
            block: self.0,
            id,
            geometry,
        }
    }

    /// The same, with these bytes. Gives the slot back if no chunk has as many.
    pub fn write(self, view: &CacheView, id: ChunkId, bytes: &[u8]) -> Result<Written, Self> {
        let chunk_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let Some(geometry) = view.layout.geometry(chunk_bytes) else {
            return Err(self);
        };
        let mut written = self.open(view, id, geometry);
        let mut rest = bytes;
        for mut segment in written.segments(view) {
            let (segment_bytes, behind) = rest.split_at(segment.len());
            segment.copy_from_slice(segment_bytes);
            rest = behind;
        }
        Ok(written)
    }
}

impl Written {
    /// The places of the chunk's segments, in order, to read it into.
    pub fn segments<'a>(&'a mut self, view: &'a CacheView) -> Vec<IoSliceMut<'a>> {
        let slot = view.epochs.slab().bytes_mut(&mut self.block);
        let places = slot.chunks_mut(view.layout.stride_bytes());
        let segments = places
            .zip(0..=self.geometry.last)
            .filter_map(|(place, index)| {
                let (_, len_bytes) = self.geometry.segment(index)?;
                let place = place.get_mut(DATA_HEADER_BYTES..DATA_HEADER_BYTES + len_bytes)?;
                Some(IoSliceMut::new(place))
            });
        segments.collect()
    }

    /// The slot, for another chunk.
    pub fn discard(self) -> FreeSlot {
        FreeSlot(self.block)
    }

    /// Compares what lies in the slot with the name it is to have, so that a fault on the way
    /// there is found as well as a lie of the origin.
    pub fn verify(self, view: &CacheView) -> Result<Verified, FreeSlot> {
        let slot = view.epochs.slab().bytes(&self.block);
        let mut digest = Sha256::new();
        for index in 0..=self.geometry.last {
            if let Some(place) = view.layout.datagrams(&self.geometry, index, 1) {
                digest.update(&slot[place][DATA_HEADER_BYTES..]);
            }
        }
        if digest.finalize().as_slice() == self.id.0 {
            Ok(Verified(self))
        } else {
            Err(FreeSlot(self.block))
        }
    }
}

impl Verified {
    pub const fn chunk_bytes(&self) -> u32 {
        self.0.geometry.chunk_bytes()
    }

    /// The slot, for another chunk.
    pub fn discard(self) -> FreeSlot {
        self.0.discard()
    }

    pub(super) fn into_parts(self) -> (Block, ChunkId, u32) {
        (self.0.block, self.0.id, self.0.geometry.chunk_bytes())
    }
}
