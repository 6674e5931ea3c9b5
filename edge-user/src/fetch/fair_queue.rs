//! Chunks waiting for a thread, in a round robin over sources: a source with many of them delays
//! only itself.

use std::collections::VecDeque;

use edge_ebpf::wire::ChunkId;
use hashbrown::HashMap;

use super::source::Source;

#[derive(Debug, Default)]
pub(super) struct FairQueue {
    waiting: HashMap<Source, VecDeque<ChunkId>>,
    /// Each source with waiting chunks, once; the next one comes first.
    order: VecDeque<Source>,
    len: usize,
}

impl FairQueue {
    pub(super) fn push(&mut self, source: Source, id: ChunkId) {
        let chunks = self.waiting.entry(source).or_default();
        if chunks.is_empty() {
            self.order.push_back(source);
        }
        chunks.push_back(id);
        self.len += 1;
    }

    pub(super) const fn len(&self) -> usize {
        self.len
    }

    /// The oldest chunk of the next source.
    pub(super) fn pop(&mut self) -> Option<ChunkId> {
        let source = self.order.pop_front()?;
        let chunks = self.waiting.get_mut(&source)?;
        let id = chunks.pop_front();
        self.len -= usize::from(id.is_some());
        if chunks.is_empty() {
            self.waiting.remove(&source);
        } else {
            self.order.push_back(source);
        }
        id
    }

    pub(super) fn remove(&mut self, source: Source, id: &ChunkId) {
        let Some(chunks) = self.waiting.get_mut(&source) else {
            return;
        };
        self.len -= chunks.len();
        chunks.retain(|other| other != id);
        self.len += chunks.len();
        if chunks.is_empty() {
            self.waiting.remove(&source);
            self.order.retain(|other| *other != source);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_with_many_chunks_delays_only_itself() {
        let (many, one) = (Source::V4([192, 0, 2, 1]), Source::V4([192, 0, 2, 2]));
        let mut queue = FairQueue::default();
        for number in 0..100 {
            queue.push(many, ChunkId([number; 32]));
        }
        queue.push(one, ChunkId([200; 32]));
        queue.remove(many, &ChunkId([1; 32]));
        assert_eq!(queue.len(), 100);
        let order: Vec<u8> = std::iter::from_fn(|| queue.pop())
            .map(|id| id.0[0])
            .collect();
        assert_eq!(order[..4], [0, 200, 2, 3]);
        assert_eq!(order.len(), 100);
        queue.push(one, ChunkId([7; 32]));
        queue.remove(one, &ChunkId([7; 32]));
        assert_eq!(queue.pop(), None);
        assert!(queue.waiting.is_empty() && queue.order.is_empty());
        assert_eq!(queue.len(), 0);
    }
}
