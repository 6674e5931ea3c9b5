//! Which chunk to fetch next: from the root down, left to right. Index chunks are fetched shortly
//! before their ids are needed, so memory holds only a few, whatever the size of the object.

use std::collections::VecDeque;

use edge_ebpf::wire::ChunkId;

use crate::object::tree::{IDS_PER_INDEX, Place, Shape, Verified};

/// With fewer ids than this ready at a level, the next index chunk above it is fetched. The several
/// megabytes of data still to fetch hide the round trip.
const LOW_WATER: usize = 256;

/// The chunks of one object, each taken once.
#[derive(Debug)]
pub struct FetchOrder {
    shape: Shape,
    levels: Vec<Level>,
    /// Chunks taken and neither expanded nor finished.
    in_flight: u64,
}

#[derive(Debug, Default)]
struct Level {
    /// Known, not taken.
    ready: VecDeque<(u64, ChunkId)>,
    /// Taken, neither expanded nor finished.
    in_flight: usize,
}

/// A chunk to fetch.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Wanted {
    pub place: Place,
    pub id: ChunkId,
    pub chunk_bytes: u32,
}

impl FetchOrder {
    pub fn new(shape: Shape, root: ChunkId) -> Self {
        let mut levels = Vec::new();
        if let Some(place) = shape.root() {
            levels.resize_with(place.level + 1, Level::default);
            levels[place.level].ready.push_back((place.index, root));
        }
        Self {
            shape,
            levels,
            in_flight: 0,
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
            here.in_flight == 0 && !here.ready.is_empty() && below.ready.len() < LOW_WATER
        });
        let level = due.unwrap_or(0);
        let here = self.levels.get_mut(level)?;
        let (index, id) = here.ready.pop_front()?;
        here.in_flight += 1;
        self.in_flight += 1;
        let place = Place { level, index };
        Some(Wanted {
            place,
            id,
            chunk_bytes: self.shape.chunk_bytes(place),
        })
    }

    /// Adds the ids of an index chunk.
    pub fn expand(&mut self, place: Place, chunk: &Verified) {
        let first = self.shape.first_child(place);
        let below = &mut self.levels[first.level].ready;
        below.extend((first.index..).zip(chunk.ids()));
        assert!(below.len() <= LOW_WATER + usize::try_from(IDS_PER_INDEX).expect("4096"));
        self.finish(place);
    }

    /// Marks a chunk as done.
    pub fn finish(&mut self, place: Place) {
        self.levels[place.level].in_flight -= 1;
        self.in_flight -= 1;
    }

    pub fn is_done(&self) -> bool {
        self.in_flight == 0 && self.levels.iter().all(|level| level.ready.is_empty())
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

    /// Takes all chunks of an object with up to `window` in flight, which complete in the order
    /// `pick` chooses. Returns the data chunks in the order they were taken.
    fn take_all(data_chunks: u64, window: usize, mut pick: impl FnMut(usize) -> usize) -> Vec<u64> {
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
        let mut fetch_order = FetchOrder::new(shape, root);
        let (mut order, mut under_way) = (Vec::new(), Vec::new());
        while !fetch_order.is_done() {
            while under_way.len() < window
                && let Some(wanted) = fetch_order.take_next()
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
                fetch_order.finish(place);
            } else {
                let bytes = stored[&id].clone();
                assert_eq!(bytes.len(), chunk_bytes as usize);
                fetch_order.expand(place, &Verified::check(bytes, &id).ok().unwrap());
            }
        }
        order
    }

    #[test]
    fn every_chunk_comes_once_and_in_order_at_every_boundary() {
        for data_chunks in [0, 1, 2, 4096, 4097, 8193, 12_289] {
            let order = take_all(data_chunks, 64, |_| 0);
            assert!(order.into_iter().eq(0..data_chunks), "{data_chunks}");
        }
    }

    #[test]
    fn the_empty_object_needs_nothing() {
        let mut fetch_order = FetchOrder::new(Shape::of(0).unwrap(), EMPTY_ROOT);
        assert!(fetch_order.is_done() && fetch_order.take_next().is_none());
    }

    #[test]
    fn an_index_chunk_is_asked_for_before_its_ids_are_needed() {
        let mut fetch_order = FetchOrder::new(
            Shape::of(5000 * u64::from(CHUNK_BYTES_MAX)).unwrap(),
            id_of(b"root"),
        );
        let root = fetch_order.take_next().unwrap();
        assert_eq!(root.place, Place { level: 2, index: 0 });
        assert_eq!(fetch_order.take_next(), None);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(12))]
        #[test]
        fn every_chunk_comes_once_in_whatever_order_they_arrive(
            data_chunks in 0_u64..10_000, window in 1_usize..100, seed: u64,
        ) {
            let mut state = seed | 1;
            let mut order = take_all(data_chunks, window, |len| {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                usize::try_from(state >> 33).unwrap() % len
            });
            order.sort_unstable();
            prop_assert!(order.into_iter().eq(0..data_chunks));
        }
    }
}
