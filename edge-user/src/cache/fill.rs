//! Writes chunks into slots: packetise, then verify. Only a verified slot can be published.

use std::io::IoSliceMut;

use edge_ebpf::wire::{ChunkId, DATA_HEADER_BYTES, DataHeader, Geometry};
use sha2::{Digest, Sha256};

use super::lease::CacheView;
use crate::sys::slab::Block;

/// A slot without readers.
#[derive(Debug)]
#[must_use = "put an unused slot back"]
pub struct FreeSlot(Block);

/// A slot with the headers of a chunk's datagrams and unverified bytes.
#[derive(Debug)]
pub struct Written {
    block: Block,
    id: ChunkId,
    geometry: Geometry,
}

/// A slot whose bytes match the chunk's id.
#[derive(Debug)]
pub struct Verified(Written);

impl FreeSlot {
    pub(super) fn new(block: Block) -> Self {
        Self(block)
    }

    pub const fn number(&self) -> u32 {
        self.0.index()
    }

    pub(super) fn into_block(self) -> Block {
        self.0
    }

    /// Writes the headers of the chunk's datagrams, as readers of this cache will find them.
    /// Returns the slot if the length is not that of a chunk.
    pub fn open(
        mut self,
        view: &CacheView,
        id: ChunkId,
        chunk_bytes: u64,
    ) -> Result<Written, Self> {
        let layout = view.layout;
        let chunk_bytes = u32::try_from(chunk_bytes).unwrap_or(u32::MAX);
        let Some(geometry) = layout.geometry(chunk_bytes) else {
            return Err(self);
        };
        let slot = view.epochs.slab().bytes_mut(&mut self.0);
        let places = slot.chunks_mut(layout.stride_bytes());
        for (place, index) in places.zip(0..=geometry.last) {
            let data = DataHeader {
                index,
                last: geometry.last,
                chunk_bytes,
                tag: id.tag(),
            };
            place[..DATA_HEADER_BYTES].copy_from_slice(&data.encode());
        }
        Ok(Written {
            block: self.0,
            id,
            geometry,
        })
    }

    /// Writes headers and bytes. Returns the slot if the length is not that of a chunk.
    pub fn write(self, view: &CacheView, id: ChunkId, bytes: &[u8]) -> Result<Written, Self> {
        let mut written = self.open(view, id, bytes.len() as u64)?;
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
    /// The buffers of the chunk's segments, in order.
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

    pub fn discard(self) -> FreeSlot {
        FreeSlot(self.block)
    }

    /// Hashes the bytes in the slot, so memory and I/O errors are detected as well as a wrong
    /// chunk from the origin.
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

    pub fn discard(self) -> FreeSlot {
        self.0.discard()
    }

    pub(super) fn into_parts(self) -> (Block, ChunkId, u32) {
        (self.0.block, self.0.id, self.0.geometry.chunk_bytes())
    }
}
