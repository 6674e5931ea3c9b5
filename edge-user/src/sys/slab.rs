//! A mapping divided into blocks of one size. Each block has exactly one token. Its holder may read
//! and write the block; others may read it only while the token is on loan (`epochs`).

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::ops::Range;
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mapping::Mapping;

#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// Equal blocks of one mapping.
#[derive(Debug)]
pub struct Slab {
    mapping: Mapping,
    /// Unique within the process.
    number: u64,
    block_bytes: usize,
    block_count: u32,
}

/// The token of one block. Not `Clone`: it is the block's owner (I2 for frames, I7 for slots).
#[derive(Debug)]
#[must_use = "a dropped block is leaked"]
pub struct Block {
    index: u32,
    /// Number of its slab, so that it cannot be used with another slab.
    slab: u64,
}

impl Block {
    pub const fn index(&self) -> u32 {
        self.index
    }

    pub(in crate::sys) const fn is_of(&self, slab: &Slab) -> bool {
        self.slab == slab.number
    }
}

/// Address and length of bytes of a slab, for the kernel.
#[derive(Clone, Copy, Debug)]
pub(in crate::sys) struct Span {
    pub(in crate::sys) address: usize,
    pub(in crate::sys) len_bytes: usize,
}

impl Slab {
    /// Divides the mapping and makes its tokens, one for each block.
    pub fn partition(mapping: Mapping, block_bytes: usize, count_max: u32) -> (Self, Vec<Block>) {
        assert!(block_bytes > 0, "a block has a size");
        let fitting = u32::try_from(mapping.len_bytes() / block_bytes).unwrap_or(u32::MAX);
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let slab = Self {
            mapping,
            number,
            block_bytes,
            block_count: fitting.min(count_max),
        };
        let blocks = (0..slab.block_count)
            .map(|index| Block {
                index,
                slab: number,
            })
            .collect();
        (slab, blocks)
    }

    pub const fn block_bytes(&self) -> usize {
        self.block_bytes
    }

    pub const fn block_count(&self) -> u32 {
        self.block_count
    }

    pub const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    fn start(&self, block: &Block) -> *mut u8 {
        assert!(block.is_of(self), "the block is of this slab");
        self.start_at(block.index)
    }

    fn start_at(&self, index: u32) -> *mut u8 {
        assert!(index < self.block_count, "no such block");
        // SAFETY: `block_count` blocks fit the mapping, so the result lies in it.
        unsafe {
            self.mapping
                .base()
                .as_ptr()
                .add(index as usize * self.block_bytes)
        }
    }

    pub fn bytes<'a>(&'a self, block: &'a Block) -> &'a [u8] {
        let start = self.start(block);
        // SAFETY: the whole block is mapped and initialised (anonymous memory begins as zeros).
        // The token is unique, so while it is borrowed nothing writes the block: our threads need
        // the token, and the kernel gets only blocks whose token is stored in `xsk`.
        unsafe { slice::from_raw_parts(start, self.block_bytes) }
    }

    pub fn bytes_mut<'a>(&'a self, block: &'a mut Block) -> &'a mut [u8] {
        let start = self.start(block);
        // SAFETY: as in `bytes`; the token is borrowed mutably, so this is the only reference:
        // `lent_bytes` refers only to blocks whose token is stored in `epochs`. A read by the
        // kernel for a send would not be unsound; that there is none is I6, kept by `epochs`.
        unsafe { slice::from_raw_parts_mut(start, self.block_bytes) }
    }

    /// The bytes of a block, without its token.
    ///
    /// # Safety
    ///
    /// Nothing writes the block while the result is in use.
    pub(in crate::sys) unsafe fn lent_bytes(&self, index: u32) -> &[u8] {
        let start = self.start_at(index);
        // SAFETY: as in `bytes`, except that the caller excludes writers.
        unsafe { slice::from_raw_parts(start, self.block_bytes) }
    }

    /// Prefetches a span into the CPU cache. Does nothing on architectures where it was not
    /// measured.
    #[expect(clippy::unused_self, reason = "on other architectures")]
    pub(in crate::sys) fn prefetch(&self, span: Span) {
        #[cfg(target_arch = "x86_64")]
        for line in (span.address..span.address + span.len_bytes).step_by(CACHE_LINE_BYTES) {
            // SAFETY: a hint, which reads nothing and faults on no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr::without_provenance(line)) };
        }
    }

    /// Part of a block, for the kernel to read. Needs no token: an address gives no access.
    pub(in crate::sys) fn span(&self, index: u32, part: Range<usize>) -> Span {
        assert!(index < self.block_count, "no such block");
        assert!(
            part.start <= part.end && part.end <= self.block_bytes,
            "the part lies in its block"
        );
        let block = self.mapping.address() + index as usize * self.block_bytes;
        Span {
            address: block + part.start,
            len_bytes: part.len(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_do_not_overlap() {
        // I7: a block is written only with its token, and there is one.
        let mapping = Mapping::anonymous(1 << 21, false).unwrap();
        let (slab, mut blocks) = Slab::partition(mapping, 1000, 50);
        assert_eq!(blocks.len(), 50);
        for block in &mut blocks {
            let fill = u8::try_from(block.index()).unwrap();
            slab.bytes_mut(block).fill(fill);
        }
        for block in &blocks {
            let fill = u8::try_from(block.index()).unwrap();
            assert!(slab.bytes(block).iter().all(|byte| *byte == fill));
        }
    }

    #[test]
    #[should_panic(expected = "of this slab")]
    fn a_block_of_another_slab_is_refused() {
        let (_first, blocks) = Slab::partition(Mapping::anonymous(1, false).unwrap(), 1000, 1);
        let (second, _) = Slab::partition(Mapping::anonymous(1, false).unwrap(), 1000, 1);
        second.bytes(&blocks[0]);
    }

    #[test]
    #[should_panic(expected = "lies in its block")]
    fn a_span_past_its_block_is_refused() {
        let (slab, _blocks) = Slab::partition(Mapping::anonymous(1, false).unwrap(), 1000, 2);
        let _ = slab.span(0, 900..1001);
    }
}
