//! The chunks of an object: a hash tree with one root. The size determines the number of chunks and
//! levels, and the length of each chunk.

use std::mem;
use std::ops::Range;

use edge_ebpf::wire::{CHUNK_BYTES_MAX, ChunkId};
use sha2::{Digest, Sha256};

/// Larger objects would repeat counter blocks in clients that treat the 32-bit counter as signed.
pub const OBJECT_BYTES_MAX: u64 = 32 << 30;
pub const ID_BYTES: u64 = 32;
/// Maximum number of ids in an index chunk.
pub const IDS_PER_INDEX: u64 = 4096;
/// Root of the empty object, which has no chunk.
pub const EMPTY_ROOT: ChunkId = ChunkId([0; 32]);

const _: () = assert!(
    IDS_PER_INDEX * ID_BYTES == CHUNK_BYTES_MAX as u64,
    "a full index chunk is as long as a data chunk"
);

pub fn id_of(bytes: &[u8]) -> ChunkId {
    ChunkId(Sha256::digest(bytes).into())
}

/// Bytes whose SHA-256 is their id. Only `check` makes one.
pub struct Verified(Vec<u8>);

impl Verified {
    /// Returns the bytes if they do not match the id.
    pub fn check(bytes: Vec<u8>, id: &ChunkId) -> Result<Self, Vec<u8>> {
        if id_of(&bytes) == *id {
            Ok(Self(bytes))
        } else {
            Err(bytes)
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// The ids in an index chunk.
    pub fn ids(&self) -> impl Iterator<Item = ChunkId> {
        let (ids, rest) = self.0.as_chunks::<32>();
        assert!(
            rest.is_empty(),
            "the length of an index chunk follows from the size of the object"
        );
        ids.iter().map(|id| ChunkId(*id))
    }
}

/// Position of a chunk in its object.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Place {
    /// 0 for data chunks, 1 for index chunks that list them, and so on up to the root.
    pub level: usize,
    /// Within its level, from the left.
    pub index: u64,
}

/// Number and lengths of the chunks of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Shape {
    size_bytes: u64,
    /// Chunks by level, data first; the last level is the root. Empty for the empty object.
    counts: Vec<u64>,
}

impl Shape {
    /// Returns nothing for a size above `OBJECT_BYTES_MAX`.
    pub fn of(size_bytes: u64) -> Option<Self> {
        if size_bytes > OBJECT_BYTES_MAX {
            return None;
        }
        let mut counts = Vec::new();
        let mut count = size_bytes.div_ceil(u64::from(CHUNK_BYTES_MAX));
        while count > 0 {
            counts.push(count);
            count = if count == 1 {
                0
            } else {
                count.div_ceil(IDS_PER_INDEX)
            };
        }
        Some(Self { size_bytes, counts })
    }

    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub fn data_chunks(&self) -> u64 {
        self.counts.first().copied().unwrap_or(0)
    }

    pub fn index_chunks(&self) -> u64 {
        self.counts.iter().skip(1).sum()
    }

    /// Number of index levels.
    pub fn depth(&self) -> usize {
        self.counts.len().saturating_sub(1)
    }

    /// The empty object has no root.
    pub fn root(&self) -> Option<Place> {
        Some(Place {
            level: self.counts.len().checked_sub(1)?,
            index: 0,
        })
    }

    pub fn chunk_bytes(&self, place: Place) -> u32 {
        let count = self.counts[place.level];
        assert!(
            place.index < count,
            "chunk {} of {count} at level {}",
            place.index,
            place.level
        );
        let level_bytes = match place.level.checked_sub(1) {
            None => self.size_bytes,
            Some(below) => self.counts[below] * ID_BYTES,
        };
        let rest = level_bytes - place.index * u64::from(CHUNK_BYTES_MAX);
        u32::try_from(rest).map_or(CHUNK_BYTES_MAX, |rest| rest.min(CHUNK_BYTES_MAX))
    }

    /// The bytes of the object in the data chunks that an index chunk lists; empty for other chunks.
    pub fn bytes_listed(&self, place: Place) -> Range<u64> {
        if place.level != 1 {
            return 0..0;
        }
        let all = IDS_PER_INDEX * u64::from(CHUNK_BYTES_MAX);
        let start = place.index * all;
        start..(start + all).min(self.size_bytes)
    }

    /// Place of the first chunk that an index chunk lists.
    pub fn first_child(&self, place: Place) -> Place {
        let level = place
            .level
            .checked_sub(1)
            .expect("data chunks list nothing");
        Place {
            level,
            index: place.index * IDS_PER_INDEX,
        }
    }
}

/// Builds the index chunks from the ids of the data chunks, in order. Holds at most one incomplete
/// index chunk per level.
#[derive(Default)]
pub struct Builder {
    levels: Vec<Level>,
}

#[derive(Default)]
struct Level {
    /// Ids of the incomplete index chunk.
    pending: Vec<u8>,
    count: u64,
    last: Option<ChunkId>,
}

impl Builder {
    /// Adds the next data chunk. Passes each full index chunk to `store`.
    pub fn push<E>(
        &mut self,
        id: ChunkId,
        store: &mut impl FnMut(ChunkId, Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        self.push_at(0, id, store)
    }

    fn push_at<E>(
        &mut self,
        level: usize,
        id: ChunkId,
        store: &mut impl FnMut(ChunkId, Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        if level == self.levels.len() {
            self.levels.push(Level::default());
        }
        let here = &mut self.levels[level];
        here.pending.extend_from_slice(&id.0);
        here.count += 1;
        here.last = Some(id);
        if here.pending.len() as u64 == IDS_PER_INDEX * ID_BYTES {
            self.flush(level, store)?;
        }
        Ok(())
    }

    fn flush<E>(
        &mut self,
        level: usize,
        store: &mut impl FnMut(ChunkId, Vec<u8>) -> Result<(), E>,
    ) -> Result<(), E> {
        let bytes = mem::take(&mut self.levels[level].pending);
        let id = id_of(&bytes);
        store(id, bytes)?;
        self.push_at(level + 1, id, store)
    }

    /// Stores the incomplete index chunks and returns the root.
    pub fn finish<E>(
        mut self,
        store: &mut impl FnMut(ChunkId, Vec<u8>) -> Result<(), E>,
    ) -> Result<ChunkId, E> {
        let mut level = 0;
        while let Some(here) = self.levels.get(level) {
            match here.last {
                Some(only) if here.count == 1 => return Ok(only),
                Some(_) | None => {}
            }
            if !here.pending.is_empty() {
                self.flush(level, store)?;
            }
            level += 1;
        }
        Ok(EMPTY_ROOT)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use proptest::prelude::*;

    use super::*;

    const CHUNK: u64 = CHUNK_BYTES_MAX as u64;

    fn counts(size_bytes: u64) -> Vec<u64> {
        Shape::of(size_bytes).unwrap().counts
    }

    #[test]
    fn the_size_determines_the_depth_at_every_boundary() {
        assert!(counts(0).is_empty());
        assert_eq!(counts(1), [1]);
        assert_eq!(counts(CHUNK), [1]);
        assert_eq!(counts(CHUNK + 1), [2, 1]);
        assert_eq!(counts(4096 * CHUNK), [4096, 1]);
        assert_eq!(counts(4096 * CHUNK + 1), [4097, 2, 1]);
        assert_eq!(counts(OBJECT_BYTES_MAX), [262_144, 64, 1]);
        assert_eq!(Shape::of(OBJECT_BYTES_MAX + 1), None);
    }

    #[test]
    fn lengths_follow_from_the_size_for_data_and_index_chunks() {
        let shape = Shape::of(4097 * CHUNK + 5).unwrap();
        let len = |level, index| shape.chunk_bytes(Place { level, index });
        assert_eq!(
            (len(0, 0), len(0, 4096), len(0, 4097)),
            (131_072, 131_072, 5)
        );
        assert_eq!((len(1, 0), len(1, 1), len(2, 0)), (131_072, 64, 64));
        assert_eq!(
            shape.first_child(Place { level: 1, index: 1 }),
            Place {
                level: 0,
                index: 4096
            }
        );
        assert_eq!((shape.depth(), shape.index_chunks()), (2, 3));
        let listed = |level, index| shape.bytes_listed(Place { level, index });
        assert_eq!(listed(1, 0), 0..4096 * CHUNK);
        assert_eq!(listed(1, 1), 4096 * CHUNK..4097 * CHUNK + 5);
        assert!(listed(2, 0).is_empty() && listed(0, 1).is_empty());
    }

    fn leaf(index: u64) -> ChunkId {
        id_of(&index.to_be_bytes())
    }

    fn read_down(
        shape: &Shape,
        place: Place,
        id: ChunkId,
        stored: &HashMap<ChunkId, Vec<u8>>,
        leaves: &mut Vec<ChunkId>,
    ) {
        if place.level == 0 {
            leaves.push(id);
            return;
        }
        let bytes = stored[&id].clone();
        assert_eq!(bytes.len(), shape.chunk_bytes(place) as usize, "{place:?}");
        let first = shape.first_child(place);
        for (child, id) in (first.index..).zip(Verified::check(bytes, &id).ok().unwrap().ids()) {
            read_down(
                shape,
                Place {
                    level: first.level,
                    index: child,
                },
                id,
                stored,
                leaves,
            );
        }
    }

    fn builds_what_the_shape_says(data_chunks: u64) {
        let mut stored = HashMap::new();
        let mut store = |id, bytes| {
            stored.insert(id, bytes);
            Ok::<_, Infallible>(())
        };
        let mut builder = Builder::default();
        for index in 0..data_chunks {
            builder.push(leaf(index), &mut store).unwrap();
        }
        let root = builder.finish(&mut store).unwrap();
        let shape = Shape::of(data_chunks * CHUNK).unwrap();
        assert_eq!(stored.len() as u64, shape.index_chunks());
        let mut leaves = Vec::new();
        match shape.root() {
            None => assert_eq!(root, EMPTY_ROOT),
            Some(place) => read_down(&shape, place, root, &stored, &mut leaves),
        }
        assert!(leaves.into_iter().eq((0..data_chunks).map(leaf)));
    }

    #[test]
    fn the_builder_agrees_with_the_shape_at_every_boundary() {
        for data_chunks in [0, 1, 2, 4095, 4096, 4097, 8191, 8192, 8193, 12_289] {
            builds_what_the_shape_says(data_chunks);
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]
        #[test]
        fn the_builder_agrees_with_the_shape(data_chunks in 0_u64..20_000) {
            builds_what_the_shape_says(data_chunks);
        }

        #[test]
        fn chunk_lengths_add_up_to_the_object(size_bytes in 0_u64..=3_000_000_000) {
            let shape = Shape::of(size_bytes).unwrap();
            let sum: u64 = (0..shape.data_chunks())
                .map(|index| u64::from(shape.chunk_bytes(Place { level: 0, index })))
                .sum();
            prop_assert_eq!(sum, size_bytes);
        }
    }
}
