//! In place of `sys/ring_memory.rs`: indices and entries that loom watches.

use std::sync::Arc;

use loom::cell::UnsafeCell;
use loom::sync::atomic::AtomicU32;

/// What a ring can hold.
pub trait Entry: Copy {}

impl Entry for u64 {}

#[derive(Debug)]
struct Places<T> {
    producer: AtomicU32,
    consumer: AtomicU32,
    entries: Vec<UnsafeCell<T>>,
}

// SAFETY: loom lets one thread run at a time, and fails the model when two may touch an entry
// without an order between them.
unsafe impl<T: Send> Sync for Places<T> {}

/// A ring's memory, as one end sees it.
#[derive(Debug)]
pub struct RingMemory<T>(Arc<Places<T>>);

impl<T: Entry + Default> RingMemory<T> {
    /// Both ends.
    pub fn pair(len: u32) -> (Self, Self) {
        let places = Arc::new(Places {
            producer: AtomicU32::new(0),
            consumer: AtomicU32::new(0),
            entries: (0..len).map(|_| UnsafeCell::new(T::default())).collect(),
        });
        (Self(Arc::clone(&places)), Self(places))
    }
}

impl<T: Entry> RingMemory<T> {
    pub fn capacity(&self) -> u32 {
        u32::try_from(self.0.entries.len()).expect("few")
    }

    pub fn producer(&self) -> &AtomicU32 {
        &self.0.producer
    }

    pub fn consumer(&self) -> &AtomicU32 {
        &self.0.consumer
    }

    fn entry(&self, index: u32) -> &UnsafeCell<T> {
        &self.0.entries[index as usize % self.0.entries.len()]
    }

    /// Writes the entry with this index.
    ///
    /// # Safety
    ///
    /// Nobody else reads or writes that entry meanwhile: loom looks whether that is so.
    pub unsafe fn write(&self, index: u32, entry: T) {
        self.entry(index).with_mut(|place| {
            // SAFETY: of the cell, which is alive; loom has just checked that it is ours alone.
            unsafe { place.write(entry) };
        });
    }

    /// Reads the entry with this index.
    ///
    /// # Safety
    ///
    /// Nobody writes that entry meanwhile: loom looks whether that is so.
    pub unsafe fn read(&self, index: u32) -> T {
        // SAFETY: as in `write`.
        self.entry(index).with(|place| unsafe { place.read() })
    }
}
