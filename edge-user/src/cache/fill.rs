//! Into a slot: packetise, then verify. There is no way to publish bytes that nobody checked.

use edge_ebpf::wire::{ChunkId, DATA_HEADER_BYTES, DataHeader, Geometry};
use sha2::{Digest, Sha256};

use super::lease::CacheView;
use crate::sys::slab::Block;

/// A slot that nobody reads.
#[derive(Debug)]
#[must_use = "an unused slot is put back"]
pub struct FreeSlot(Block);

/// A slot with the datagrams of a chunk, not yet compared with its name.
#[derive(Debug)]
pub struct Written {
    block: Block,
    id: ChunkId,
    chunk_bytes: u32,
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

    /// Writes the chunk as the datagrams it will be sent as. Gives the slot back if these cannot
    /// be the bytes of a chunk.
    pub fn write(mut self, view: &CacheView, id: ChunkId, bytes: &[u8]) -> Result<Written, Self> {
        let chunk_bytes = u32::try_from(bytes.len()).unwrap_or(u32::MAX);
        let layout = view.layout;
        let Some(geometry) = layout.geometry(chunk_bytes) else {
            return Err(self);
        };
        let slot = view.epochs.slab().bytes_mut(&mut self.0);
        let segments = bytes.chunks(usize::from(layout.segment_bytes()));
        let places = slot.chunks_mut(layout.stride_bytes());
        for ((place, payload), index) in places.zip(segments).zip(0_u8..) {
            let (header, room) = place.split_at_mut(DATA_HEADER_BYTES);
            let data = DataHeader {
                index,
                last: geometry.last,
                chunk_bytes,
                tag: id.tag(),
            };
            header.copy_from_slice(&data.encode());
            room[..payload.len()].copy_from_slice(payload);
        }
        Ok(Written {
            block: self.0,
            id,
            chunk_bytes,
            geometry,
        })
    }
}

impl Written {
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
    pub(super) fn into_parts(self) -> (Block, ChunkId, u32) {
        (self.0.block, self.0.id, self.0.chunk_bytes)
    }
}
