//! One direction of an AF_XDP ring: entries in memory shared with the kernel, a producer index and
//! a consumer index, each written by one side only. They count up for ever and wrap.

use std::marker::PhantomData;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU32, Ordering};

use memmap2::MmapMut;

/// Where things lie in a ring's memory, as the kernel tells.
#[derive(Clone, Copy, Debug)]
pub struct RingOffsets {
    pub producer: usize,
    pub consumer: usize,
    pub entries: usize,
}

/// The side that puts entries in.
#[derive(Debug)]
pub struct Producing;
/// The side that takes entries out.
#[derive(Debug)]
pub struct Consuming;

/// What a ring can hold: plain integers, for which any bytes the kernel writes are a value.
pub trait Entry: Copy + sealed::Sealed {}

mod sealed {
    #[expect(unnameable_types, reason = "nobody else is to implement it")]
    pub trait Sealed {}
}

impl sealed::Sealed for u64 {}
impl Entry for u64 {}
impl sealed::Sealed for libc::xdp_desc {}
impl Entry for libc::xdp_desc {}

/// Our end of a ring.
#[derive(Debug)]
pub struct Ring<T, Side> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    entries: NonNull<T>,
    len: u32,
    /// Keeps the memory mapped; the pointers above lead into it.
    _map: MmapMut,
    _side: PhantomData<Side>,
}

// SAFETY: the pointers lead into memory this value owns; nothing is tied to a thread.
unsafe impl<T: Send, Side> Send for Ring<T, Side> {}

impl<T: Entry, Side> Ring<T, Side> {
    /// A ring of `len` entries (a power of two) in this memory.
    pub fn new(mut map: MmapMut, offsets: RingOffsets, len: u32) -> Self {
        assert!(len.is_power_of_two(), "a ring's length is a power of two");
        let index_end = offsets.producer.max(offsets.consumer) + size_of::<u32>();
        let entries_end = offsets.entries + len as usize * size_of::<T>();
        assert!(
            index_end.max(entries_end) <= map.len(),
            "the ring lies in its memory"
        );
        let base = map.as_mut_ptr();
        let at = |offset: usize| {
            // SAFETY: the assertion above keeps every offset used here inside the mapping.
            let pointer = unsafe { base.add(offset) };
            NonNull::new(pointer).expect("memory is never mapped at zero")
        };
        let (producer, consumer) = (at(offsets.producer).cast(), at(offsets.consumer).cast());
        let entries: NonNull<T> = at(offsets.entries).cast();
        assert!(
            producer.is_aligned() && consumer.is_aligned() && entries.is_aligned(),
            "the kernel aligns ring indices and entries"
        );
        Self {
            producer,
            consumer,
            entries,
            len,
            _map: map,
            _side: PhantomData,
        }
    }

    fn producer(&self) -> &AtomicU32 {
        // SAFETY: aligned and mapped, checked in `new`; the kernel's side is atomic too.
        unsafe { self.producer.as_ref() }
    }

    fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for the producer.
        unsafe { self.consumer.as_ref() }
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        let place = (index & (self.len - 1)) as usize;
        // SAFETY: the place is below `len`, and `len` entries lie in the mapping.
        unsafe { self.entries.add(place) }
    }
}

impl<T: Entry, Side> Ring<T, Side> {
    /// Whether everything that was put in has been taken out.
    pub fn is_empty(&self) -> bool {
        self.consumer().load(Ordering::Acquire) == self.producer().load(Ordering::Acquire)
    }
}

impl<T: Entry> Ring<T, Producing> {
    /// Puts in as many as there is room for and says how many that were.
    pub fn produce(&mut self, mut entries: impl Iterator<Item = T>) -> u32 {
        let start = self.producer().load(Ordering::Relaxed);
        // Acquire: the consumer has read what we now write over.
        let taken = self.consumer().load(Ordering::Acquire);
        let room = self.len.saturating_sub(start.wrapping_sub(taken));
        let mut count = 0;
        while count < room {
            let Some(entry) = entries.next() else { break };
            let place = self.entry(start.wrapping_add(count));
            // SAFETY: between consumer + len and producer only this side writes, and nobody reads.
            unsafe { place.write(entry) };
            count += 1;
        }
        // Release: the entries are written before the index says so.
        self.producer()
            .store(start.wrapping_add(count), Ordering::Release);
        count
    }
}

impl<T: Entry> Ring<T, Consuming> {
    /// Takes out at most `most` entries.
    pub fn consume(&mut self, most: u32, mut each: impl FnMut(T)) -> u32 {
        let start = self.consumer().load(Ordering::Relaxed);
        // Acquire: the entries are read after the index that announced them.
        let filled = self.producer().load(Ordering::Acquire);
        // A producer index that ran away from us cannot make us read past the ring.
        let count = filled.wrapping_sub(start).min(self.len).min(most);
        for step in 0..count {
            let place = self.entry(start.wrapping_add(step));
            // SAFETY: between consumer and producer only this side reads, and nobody writes; any
            // bit pattern is an `Entry`.
            each(unsafe { place.read() });
        }
        self.consumer()
            .store(start.wrapping_add(count), Ordering::Release);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::MmapOptions;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    const OFFSETS: RingOffsets = RingOffsets {
        producer: 0,
        consumer: 64,
        entries: 128,
    };

    /// Both ends over the same plain memory: no socket needed.
    fn pair(start: u32) -> (Ring<u64, Producing>, Ring<u64, Consuming>) {
        let file = tempfile::tempfile().unwrap();
        file.set_len(4096).unwrap();
        let map = || {
            // SAFETY: the file is private to this test.
            unsafe { MmapOptions::new().len(4096).map_mut(&file).unwrap() }
        };
        let ends = (Ring::new(map(), OFFSETS, 8), Ring::new(map(), OFFSETS, 8));
        ends.0.producer().store(start, Ordering::Relaxed);
        ends.0.consumer().store(start, Ordering::Relaxed);
        ends
    }

    proptest! {
        #[test]
        fn a_ring_is_a_bounded_queue(
            start in prop_oneof![Just(0), Just(u32::MAX - 3), any::<u32>()],
            steps in prop::collection::vec((any::<bool>(), 0_u32..12), 1..60),
        ) {
            let (mut producer, mut consumer) = pair(start);
            let mut oracle = VecDeque::new();
            let mut next = 0_u64;
            for (put, count) in steps {
                if put {
                    let done = producer.produce((next..).take(count as usize));
                    prop_assert_eq!(done as usize, (count as usize).min(8 - oracle.len()));
                    oracle.extend(next..next + u64::from(done));
                    next += u64::from(done);
                } else {
                    let mut taken = Vec::new();
                    consumer.consume(count, |entry| taken.push(entry));
                    let expected: Vec<_> =
                        oracle.drain(..oracle.len().min(count as usize)).collect();
                    prop_assert_eq!(taken, expected);
                }
                prop_assert_eq!(consumer.is_empty(), oracle.is_empty());
            }
        }
    }
}
