//! A mapping cut into blocks of one size. Each block has exactly one token, made once. Its holder
//! may read and write the block; others may read it only while the token is on loan (`epochs`).

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
    /// No other slab of this process ever has it.
    number: u64,
    block_bytes: usize,
    block_count: u32,
}

/// The right to touch one block. Not `Clone`: it is the block's owner (I2 for frames, I7 for
/// slots).
#[derive(Debug)]
#[must_use = "a block let go is memory leaked for good"]
pub struct Block {
    index: u32,
    /// Number of its slab, so that a token cannot be used on another.
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

/// Bytes of a slab by address, for the kernel to read. Gives no access to them here.
#[derive(Clone, Copy, Debug)]
pub(in crate::sys) struct Span {
    pub(in crate::sys) address: usize,
    pub(in crate::sys) len_bytes: usize,
}

impl Slab {
    /// Cuts the mapping, and makes the tokens: one a block, and never another.
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
        assert!(index < self.block_count, "the block is one of those cut");
        // SAFETY: `block_count` blocks fit the mapping, so the result lies in it.
        unsafe {
            self.mapping
                .base()
                .as_ptr()
                .add(index as usize * self.block_bytes)
        }
    }

    /// The block, to read.
    pub fn bytes<'a>(&'a self, block: &'a Block) -> &'a [u8] {
        let start = self.start(block);
        // SAFETY: the whole block is mapped and initialised (anonymous memory begins as zeros).
        // The token is unique, so while it is borrowed nobody writes the block: not our threads,
        // which need the token, nor the kernel, which is given only blocks whose token is put
        // away (`xsk`).
        unsafe { slice::from_raw_parts(start, self.block_bytes) }
    }

    /// The block, to write.
    pub fn bytes_mut<'a>(&'a self, block: &'a mut Block) -> &'a mut [u8] {
        let start = self.start(block);
        // SAFETY: as in `bytes`; the token is borrowed mutably, so this is the only reference:
        // those that `lent_bytes` gives are to blocks whose token is put away (`epochs`). The
        // kernel may still read the block for a send, which needs no cooperation to be sound here;
        // that it does not is I6, kept by `store`.
        unsafe { slice::from_raw_parts_mut(start, self.block_bytes) }
    }

    /// The block with this number, to read without its token.
    ///
    /// # Safety
    ///
    /// Nobody writes the block while the result is in use.
    pub(in crate::sys) unsafe fn lent_bytes(&self, index: u32) -> &[u8] {
        let start = self.start_at(index);
        // SAFETY: as in `bytes`, except that the caller keeps writers away.
        unsafe { slice::from_raw_parts(start, self.block_bytes) }
    }

    /// Has a span brought into the cache, for who will copy it soon. Gives no access to it, and does
    /// nothing on processors that we have not measured it on.
    #[expect(clippy::unused_self, reason = "on other processors")]
    pub(in crate::sys) fn prefetch(&self, span: Span) {
        #[cfg(target_arch = "x86_64")]
        for line in (span.address..span.address + span.len_bytes).step_by(CACHE_LINE_BYTES) {
            // SAFETY: a hint, which reads nothing and faults on no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr::without_provenance(line)) };
        }
    }

    /// Part of a block, for the kernel to read. Needs no token: an address gives no access.
    pub(in crate::sys) fn span(&self, index: u32, part: Range<usize>) -> Span {
        assert!(index < self.block_count, "the block is one of those cut");
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
    fn pieces_do_not_overlap() {
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
    fn a_piece_of_another_slab_is_refused() {
        let (_first, blocks) = Slab::partition(Mapping::anonymous(1, false).unwrap(), 1000, 1);
        let (second, _) = Slab::partition(Mapping::anonymous(1, false).unwrap(), 1000, 1);
        second.bytes(&blocks[0]);
    }

    #[test]
    #[should_panic(expected = "lies in its block")]
    fn a_span_past_its_piece_is_refused() {
        let (slab, _pieces) = Slab::partition(Mapping::anonymous(1, false).unwrap(), 1000, 2);
        let _ = slab.span(0, 900..1001);
    }
}
