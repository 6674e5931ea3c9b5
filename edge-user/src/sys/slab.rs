//! A mapping cut into pieces of one size. Each piece has exactly one token, made once. Its holder
//! may read and write the piece; others may read it only while the token is on loan (`epochs`).

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
use std::ptr;
use std::slice;
use std::sync::atomic::{AtomicU64, Ordering};

use super::mapping::Mapping;

#[cfg(target_arch = "x86_64")]
const CACHE_LINE_BYTES: usize = 64;

static NEXT_NUMBER: AtomicU64 = AtomicU64::new(1);

/// Equal pieces of one mapping.
#[derive(Debug)]
pub struct Slab {
    mapping: Mapping,
    /// No other slab of this process ever has it.
    number: u64,
    piece_bytes: usize,
    piece_count: u32,
}

/// The right to touch one piece. Not `Clone`: it is the piece's owner (I2 for frames, I7 for
/// slots).
#[derive(Debug)]
#[must_use = "a piece let go is memory leaked for good"]
pub struct Piece {
    index: u32,
    /// Number of its slab, so that a token cannot be used on another.
    slab: u64,
}

impl Piece {
    pub const fn index(&self) -> u32 {
        self.index
    }

    pub(in crate::sys) const fn is_of(&self, slab: &Slab) -> bool {
        self.slab == slab.number
    }
}

/// Bytes of a slab by address, for the kernel to read. Gives no access to them here.
#[derive(Clone, Copy, Debug)]
pub struct Span {
    pub(in crate::sys) slab: u64,
    pub(in crate::sys) address: usize,
    pub(in crate::sys) len_bytes: usize,
}

impl Span {
    /// Nothing.
    pub const EMPTY: Self = Self {
        slab: 0,
        address: 0,
        len_bytes: 0,
    };

    pub const fn address(&self) -> usize {
        self.address
    }

    pub const fn len_bytes(&self) -> usize {
        self.len_bytes
    }
}

impl Slab {
    /// Cuts the mapping, and makes the tokens: one a piece, and never another.
    pub fn cut(mapping: Mapping, piece_bytes: usize, count_max: u32) -> (Self, Vec<Piece>) {
        assert!(piece_bytes > 0, "a piece has a size");
        let fitting = u32::try_from(mapping.len_bytes() / piece_bytes).unwrap_or(u32::MAX);
        let number = NEXT_NUMBER.fetch_add(1, Ordering::Relaxed);
        let slab = Self {
            mapping,
            number,
            piece_bytes,
            piece_count: fitting.min(count_max),
        };
        let pieces = (0..slab.piece_count)
            .map(|index| Piece {
                index,
                slab: number,
            })
            .collect();
        (slab, pieces)
    }

    pub(in crate::sys) const fn number(&self) -> u64 {
        self.number
    }

    pub const fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    pub const fn piece_count(&self) -> u32 {
        self.piece_count
    }

    pub const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    fn start(&self, piece: &Piece) -> *mut u8 {
        assert!(piece.is_of(self), "the piece is of this slab");
        self.start_at(piece.index)
    }

    fn start_at(&self, index: u32) -> *mut u8 {
        assert!(index < self.piece_count, "the piece is one of those cut");
        // SAFETY: `piece_count` pieces fit the mapping, so the result lies in it.
        unsafe {
            self.mapping
                .base()
                .as_ptr()
                .add(index as usize * self.piece_bytes)
        }
    }

    /// The piece, to read.
    pub fn bytes<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        let start = self.start(piece);
        // SAFETY: the whole piece is mapped and initialised (anonymous memory begins as zeros).
        // The token is unique, so while it is borrowed nobody writes the piece: not our threads,
        // which need the token, nor the kernel, which is given only pieces whose token is put
        // away (`xsk`).
        unsafe { slice::from_raw_parts(start, self.piece_bytes) }
    }

    /// The piece, to write.
    pub fn bytes_mut<'a>(&'a self, piece: &'a mut Piece) -> &'a mut [u8] {
        let start = self.start(piece);
        // SAFETY: as in `bytes`; the token is borrowed mutably, so this is the only reference:
        // those that `lent_bytes` gives are to pieces whose token is put away (`epochs`). The
        // kernel may still read the piece for a send, which needs no cooperation to be sound here;
        // that it does not is I6, kept by `store`.
        unsafe { slice::from_raw_parts_mut(start, self.piece_bytes) }
    }

    /// The piece with this number, to read without its token.
    ///
    /// # Safety
    ///
    /// Nobody writes the piece while the result is in use.
    pub(in crate::sys) unsafe fn lent_bytes(&self, index: u32) -> &[u8] {
        let start = self.start_at(index);
        // SAFETY: as in `bytes`, except that the caller keeps writers away.
        unsafe { slice::from_raw_parts(start, self.piece_bytes) }
    }

    /// Has a span brought into the cache, for who will copy it soon. Gives no access to it, and does
    /// nothing on processors that we have not measured it on.
    pub fn prefetch(&self, span: Span) {
        assert!(span.slab == self.number, "the span is of this slab");
        #[cfg(target_arch = "x86_64")]
        for line in (span.address..span.address + span.len_bytes).step_by(CACHE_LINE_BYTES) {
            // SAFETY: a hint, which reads nothing and faults on no address.
            unsafe { _mm_prefetch::<_MM_HINT_T0>(ptr::without_provenance(line)) };
        }
    }

    /// Part of a piece, for the kernel to read. Needs no token: an address gives no access.
    pub fn span(&self, index: u32, offset_bytes: usize, len_bytes: usize) -> Span {
        assert!(index < self.piece_count, "the piece is one of those cut");
        let end = offset_bytes.checked_add(len_bytes);
        assert!(
            end.is_some_and(|end| end <= self.piece_bytes),
            "the part lies in its piece"
        );
        let address = self.mapping.address() + index as usize * self.piece_bytes + offset_bytes;
        Span {
            slab: self.number,
            address,
            len_bytes,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_do_not_overlap() {
        // I7: a piece is written only with its token, and there is one.
        let mapping = Mapping::anonymous(1 << 21, false).unwrap();
        let (slab, mut pieces) = Slab::cut(mapping, 1000, 50);
        assert_eq!(pieces.len(), 50);
        for piece in &mut pieces {
            let fill = u8::try_from(piece.index()).unwrap();
            slab.bytes_mut(piece).fill(fill);
        }
        for piece in &pieces {
            let fill = u8::try_from(piece.index()).unwrap();
            assert!(slab.bytes(piece).iter().all(|byte| *byte == fill));
        }
    }

    #[test]
    #[should_panic(expected = "of this slab")]
    fn a_piece_of_another_slab_is_refused() {
        let (_first, pieces) = Slab::cut(Mapping::anonymous(1, false).unwrap(), 1000, 1);
        let (second, _) = Slab::cut(Mapping::anonymous(1, false).unwrap(), 1000, 1);
        second.bytes(&pieces[0]);
    }

    #[test]
    #[should_panic(expected = "lies in its piece")]
    fn a_span_past_its_piece_is_refused() {
        let (slab, _pieces) = Slab::cut(Mapping::anonymous(1, false).unwrap(), 1000, 2);
        let _ = slab.span(0, 900, 101);
    }
}
