//! In place of `sys/slab.rs`: blocks that loom watches. Tokens are as there.

use std::ops::Range;

use loom::cell::UnsafeCell;

use super::mapping::Mapping;

#[derive(Debug)]
pub struct Slab {
    mapping: Mapping,
    block_bytes: usize,
    blocks: Vec<UnsafeCell<Box<[u8]>>>,
}

// SAFETY: loom lets one thread run at a time, and fails the model when two may touch a block
// without an order between them.
unsafe impl Sync for Slab {}

/// The right to touch one block.
#[derive(Debug)]
pub struct Block(u32);

impl Block {
    pub const fn index(&self) -> u32 {
        self.0
    }

    /// Each model has one slab.
    #[expect(clippy::unused_self, reason = "as in the product")]
    pub(in crate::sys) const fn is_of(&self, _slab: &Slab) -> bool {
        true
    }
}

impl Slab {
    pub fn partition(mapping: Mapping, block_bytes: usize, count: u32) -> (Self, Vec<Block>) {
        let block = |_| UnsafeCell::new(vec![0; block_bytes].into_boxed_slice());
        let slab = Self {
            mapping,
            block_bytes,
            blocks: (0..count).map(block).collect(),
        };
        (slab, (0..count).map(Block).collect())
    }

    pub const fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    pub fn block_count(&self) -> u32 {
        u32::try_from(self.blocks.len()).expect("few")
    }

    pub const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub fn bytes<'a>(&'a self, block: &'a Block) -> &'a [u8] {
        let cell = &self.blocks[block.0 as usize];
        // SAFETY: the box is alive as long as `self`; loom checks the access here, and whoever
        // holds the token does nothing that loom could interrupt while it looks.
        cell.with(|bytes| unsafe { &**bytes })
    }

    pub fn bytes_mut<'a>(&'a self, block: &'a mut Block) -> &'a mut [u8] {
        let cell = &self.blocks[block.0 as usize];
        // SAFETY: as in `bytes`, and the token is borrowed mutably.
        cell.with_mut(|bytes| unsafe { &mut **bytes })
    }

    /// # Safety
    ///
    /// Nobody writes the block while the result is in use: loom looks whether that is so here, and
    /// the reader does nothing that loom could interrupt while it reads.
    pub(in crate::sys) unsafe fn lent_bytes(&self, index: u32) -> &[u8] {
        // SAFETY: the box is alive as long as `self`.
        self.blocks[index as usize].with(|bytes| unsafe { &**bytes })
    }

    /// Nothing reads what a send names here: loom has no kernel.
    #[expect(clippy::unused_self, reason = "as in the product")]
    pub(in crate::sys) const fn span(&self, _index: u32, _part: Range<usize>) -> Span {
        Span
    }

    #[expect(clippy::unused_self, reason = "as in the product")]
    pub(in crate::sys) const fn prefetch(&self, _span: Span) {}
}

/// Part of a block.
pub(in crate::sys) struct Span;
