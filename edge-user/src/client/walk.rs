//! Which chunk comes next: from the root down, left to right. Index chunks are asked for a little
//! before their ids are needed, so memory holds a few of them whatever the object's size.

use std::collections::VecDeque;

use edge_ebpf::wire::ChunkId;

use crate::object::tree::{IDS_PER_INDEX, Place, Shape, Verified};

/// Once fewer ids than this wait at a level, the next index chunk above it is due: several
/// megabytes of data are then still to come, which hides the round trip.
const LOW: usize = 256;

/// The chunks of one object, each handed out once.
#[derive(Debug)]
pub struct Walk {
    shape: Shape,
    levels: Vec<Level>,
    /// Chunks that were handed out and not yet learnt or settled.
    out: u64,
}

#[derive(Debug, Default)]
struct Level {
    /// Known and not handed out.
    waiting: VecDeque<(u64, ChunkId)>,
    /// Handed out and not learnt yet; each brings ids for the level below.
    coming: usize,
}

/// A chunk to fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub place: Place,
    pub id: ChunkId,
    pub chunk_bytes: u32,
}

impl Walk {
    pub fn new(shape: Shape, root: ChunkId) -> Self {
        let mut levels = Vec::new();
        if let Some(place) = shape.root() {
            levels.resize_with(place.level + 1, Level::default);
            levels[place.level].waiting.push_back((place.index, root));
        }
        Self {
            shape,
            levels,
            out: 0,
        }
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    /// The next chunk to fetch, if one is known.
    pub fn take_next(&mut self) -> Option<Wanted> {
        let due = (1..self.levels.len()).find(|&level| {
            let below = &self.levels[level - 1];
            let here = &self.levels[level];
            here.coming == 0 && !here.waiting.is_empty() && below.waiting.len() < LOW
        });
        let level = due.unwrap_or(0);
        let here = self.levels.get_mut(level)?;
        let (index, id) = here.waiting.pop_front()?;
        here.coming += 1;
        self.out += 1;
        let place = Place { level, index };
        Some(Wanted {
            place,
            id,
            chunk_bytes: self.shape.chunk_bytes(place),
        })
    }

    /// An index chunk has come: its ids can be fetched.
    pub fn learn(&mut self, place: Place, chunk: &Verified) {
        let first = self.shape.first_child(place);
        let below = &mut self.levels[first.level].waiting;
        below.extend((first.index..).zip(chunk.ids()));
        assert!(below.len() <= LOW + usize::try_from(IDS_PER_INDEX).expect("4096"));
        self.settle(place);
    }

    /// A chunk that was handed out is done with.
    pub fn settle(&mut self, place: Place) {
        self.levels[place.level].coming -= 1;
        self.out -= 1;
    }

    pub fn is_done(&self) -> bool {
        self.out == 0 && self.levels.iter().all(|level| level.waiting.is_empty())
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::convert::Infallible;

    use edge_ebpf::wire::CHUNK_BYTES_MAX;
    use proptest::prelude::*;

    use super::*;
    use crate::object::tree::{Builder, EMPTY_ROOT, id_of};

    /// Walks an object of this many chunks with `window` of them under way, settled in an order
    /// that `pick` chooses; gives the data chunks in the order they were handed out.
    fn walk(data_chunks: u64, window: usize, mut pick: impl FnMut(usize) -> usize) -> Vec<u64> {
        let mut stored = HashMap::new();
        let mut store = |id, bytes| {
            stored.insert(id, bytes);
            Ok::<_, Infallible>(())
        };
        let mut builder = Builder::default();
        for index in 0..data_chunks {
            builder
                .push(id_of(&index.to_be_bytes()), &mut store)
                .unwrap();
        }
        let root = builder.finish(&mut store).unwrap();
        let shape = Shape::of(data_chunks * u64::from(CHUNK_BYTES_MAX)).unwrap();
        let mut walk = Walk::new(shape, root);
        let (mut order, mut under_way) = (Vec::new(), Vec::new());
        while !walk.is_done() {
            while under_way.len() < window
                && let Some(wanted) = walk.take_next()
            {
                if wanted.place.level == 0 {
                    assert_eq!(wanted.id, id_of(&wanted.place.index.to_be_bytes()));
                    order.push(wanted.place.index);
                }
                under_way.push(wanted);
            }
            let Wanted {
                place,
                id,
                chunk_bytes,
            } = under_way.remove(pick(under_way.len()));
            if place.level == 0 {
                walk.settle(place);
            } else {
                let bytes = stored[&id].clone();
                assert_eq!(bytes.len(), chunk_bytes as usize);
                walk.learn(place, &Verified::check(bytes, &id).ok().unwrap());
            }
        }
        order
    }

    #[test]
    fn every_chunk_comes_once_and_in_order_at_every_boundary() {
        for data_chunks in [0, 1, 2, 4096, 4097, 8193, 12_289] {
            let order = walk(data_chunks, 64, |_| 0);
            assert!(order.into_iter().eq(0..data_chunks), "{data_chunks}");
        }
    }

    #[test]
    fn the_empty_object_needs_nothing() {
        let mut walk = Walk::new(Shape::of(0).unwrap(), EMPTY_ROOT);
        assert!(walk.is_done() && walk.take_next().is_none());
    }

    #[test]
    fn an_index_chunk_is_asked_for_before_its_ids_are_needed() {
        // With one chunk under way at a time, the second index chunk comes up while data that
        // the first one listed still waits.
        let mut walk = Walk::new(
            Shape::of(5000 * u64::from(CHUNK_BYTES_MAX)).unwrap(),
            id_of(b"root"),
        );
        let root = walk.take_next().unwrap();
        assert_eq!(root.place, Place { level: 2, index: 0 });
        assert_eq!(walk.take_next(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn every_chunk_comes_once_in_whatever_order_they_arrive(
            data_chunks in 0_u64..10_000, window in 1_usize..100, seed: u64,
        ) {
            let mut state = seed | 1;
            let mut order = walk(data_chunks, window, |len| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                usize::try_from(state >> 33).unwrap() % len
            });
            order.sort_unstable();
            prop_assert!(order.into_iter().eq(0..data_chunks));
        }
    }
}
