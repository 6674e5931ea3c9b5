//! In place of `sys/slab.rs`: pieces that loom watches. Tokens are as there.

use loom::cell::UnsafeCell;

use super::mapping::Mapping;

#[derive(Debug)]
pub struct Slab {
    mapping: Mapping,
    piece_bytes: usize,
    pieces: Vec<UnsafeCell<Box<[u8]>>>,
}

// SAFETY: loom lets one thread run at a time, and fails the model when two may touch a piece
// without an order between them.
unsafe impl Sync for Slab {}

/// The right to touch one piece.
#[derive(Debug)]
pub struct Piece(u32);

impl Piece {
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
    pub fn cut(mapping: Mapping, piece_bytes: usize, count: u32) -> (Self, Vec<Piece>) {
        let piece = |_| UnsafeCell::new(vec![0; piece_bytes].into_boxed_slice());
        let slab = Self {
            mapping,
            piece_bytes,
            pieces: (0..count).map(piece).collect(),
        };
        (slab, (0..count).map(Piece).collect())
    }

    pub const fn piece_bytes(&self) -> usize {
        self.piece_bytes
    }

    pub fn piece_count(&self) -> u32 {
        u32::try_from(self.pieces.len()).expect("few")
    }

    pub const fn mapping(&self) -> &Mapping {
        &self.mapping
    }

    pub fn bytes<'a>(&'a self, piece: &'a Piece) -> &'a [u8] {
        let cell = &self.pieces[piece.0 as usize];
        // SAFETY: the box is alive as long as `self`; loom checks the access here, and whoever
        // holds the token does nothing that loom could interrupt while it looks.
        cell.with(|bytes| unsafe { &**bytes })
    }

    pub fn bytes_mut<'a>(&'a self, piece: &'a mut Piece) -> &'a mut [u8] {
        let cell = &self.pieces[piece.0 as usize];
        // SAFETY: as in `bytes`, and the token is borrowed mutably.
        cell.with_mut(|bytes| unsafe { &mut **bytes })
    }

    /// # Safety
    ///
    /// Nobody writes the piece while the result is in use: loom looks whether that is so here, and
    /// the reader does nothing that loom could interrupt while it reads.
    pub(in crate::sys) unsafe fn lent_bytes(&self, index: u32) -> &[u8] {
        // SAFETY: the box is alive as long as `self`.
        self.pieces[index as usize].with(|bytes| unsafe { &**bytes })
    }
}
