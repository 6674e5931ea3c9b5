//! The slots that the chunks of one origin are read into: a bounded number, even if reads hang.

use std::io::IoSliceMut;
use std::sync::Arc;

use crossbeam::queue::ArrayQueue;
use edge_ebpf::wire::ChunkId;

use super::error::{FetchError, ReadError};
use crate::cache::fill::{FreeSlot, Verified, Written};
use crate::cache::lease::CacheView;

const ALTERED: &str = "does not match its name: altered or truncated";

#[derive(Clone, Debug)]
pub struct Slots {
    view: Arc<CacheView>,
    free: Arc<ArrayQueue<FreeSlot>>,
}

/// A slot for one chunk, returned on drop.
#[derive(Debug)]
pub struct Filling {
    slots: Slots,
    written: Option<Written>,
}

impl Slots {
    /// Starts without any slot.
    pub fn new(view: Arc<CacheView>, capacity: usize) -> Self {
        Self {
            view,
            free: Arc::new(ArrayQueue::new(capacity)),
        }
    }

    /// A slot for a chunk of this length.
    pub fn take(&self, id: ChunkId, chunk_bytes: u64) -> Result<Filling, ReadError> {
        let slot = self.free.pop().ok_or(ReadError::NoSlot)?;
        let written = slot.open(&self.view, id, chunk_bytes).map_err(|slot| {
            self.put(slot);
            FetchError::Corrupt(format!("has {chunk_bytes} bytes, which no chunk has"))
        })?;
        Ok(Filling {
            slots: self.clone(),
            written: Some(written),
        })
    }

    pub(crate) fn len(&self) -> usize {
        self.free.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.free.is_empty()
    }

    pub(crate) fn put(&self, slot: FreeSlot) {
        let pushed = self.free.push(slot);
        assert!(pushed.is_ok(), "the queue has room for every slot");
    }

    pub(crate) fn take_back(&self) -> Option<FreeSlot> {
        self.free.pop()
    }
}

impl Filling {
    /// The buffers of the chunk's segments, in order.
    pub fn segments(&mut self) -> Vec<IoSliceMut<'_>> {
        let view = &self.slots.view;
        let written = self.written.as_mut();
        written.map_or_else(Vec::new, |written| written.segments(view))
    }

    /// Compares the bytes in the slot with the chunk's id.
    pub fn verify(mut self) -> Result<Verified, FetchError> {
        let corrupt = || FetchError::Corrupt(ALTERED.to_owned());
        let written = self.written.take().ok_or_else(corrupt)?;
        written.verify(&self.slots.view).map_err(|slot| {
            self.slots.put(slot);
            corrupt()
        })
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        if let Some(written) = self.written.take() {
            self.slots.put(written.discard());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::layout::Layout;
    use crate::cache::store::holding;
    use edge_ebpf::wire::SEGMENT_BYTES_DEFAULT;

    #[test]
    #[should_panic(expected = "room for every slot")]
    fn a_slot_more_than_were_lent_is_not_lost_silently() {
        let (mut store, _) = holding(b"another", Layout::new(SEGMENT_BYTES_DEFAULT), 0);
        let slots = Slots::new(Arc::clone(store.view()), 1);
        for _ in 0..2 {
            slots.put(store.take_free().unwrap());
        }
    }
}
