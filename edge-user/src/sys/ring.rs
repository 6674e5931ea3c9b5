//! One end of an AF_XDP ring: entries in memory shared with the kernel, a producer index and a
//! consumer index, each written by one side only. The indices are free-running and wrap.

use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use super::ring_memory::{Entry, RingMemory};

/// The side that adds entries.
#[derive(Debug)]
pub struct Producing;
/// The side that removes entries.
#[derive(Debug)]
pub struct Consuming;

#[derive(Debug)]
pub struct Ring<T, Side> {
    memory: RingMemory<T>,
    _side: PhantomData<Side>,
}

impl<T: Entry, Side> Ring<T, Side> {
    /// There must be only one end of this kind over the memory.
    pub const fn new(memory: RingMemory<T>) -> Self {
        Self {
            memory,
            _side: PhantomData,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.memory.consumer().load(Ordering::Acquire)
            == self.memory.producer().load(Ordering::Acquire)
    }
}

impl<T: Entry> Ring<T, Producing> {
    /// Adds as many entries as there is room for; returns how many.
    pub fn produce(&mut self, mut entries: impl Iterator<Item = T>) -> u32 {
        let start = self.memory.producer().load(Ordering::Relaxed);
        // Acquire: the consumer has read the entries that are overwritten now.
        let taken = self.memory.consumer().load(Ordering::Acquire);
        let room = self
            .memory
            .capacity()
            .saturating_sub(start.wrapping_sub(taken));
        let mut count = 0;
        while count < room {
            let Some(entry) = entries.next() else { break };
            // SAFETY: between producer and consumer + len only this side writes, and no side reads.
            unsafe { self.memory.write(start.wrapping_add(count), entry) };
            count += 1;
        }
        // Release: the entries are written before the index is.
        self.memory
            .producer()
            .store(start.wrapping_add(count), Ordering::Release);
        count
    }
}

impl<T: Entry> Ring<T, Consuming> {
    /// Removes at most `count_max` entries; returns how many.
    pub fn consume(&mut self, count_max: u32, mut each: impl FnMut(T)) -> u32 {
        let start = self.memory.consumer().load(Ordering::Relaxed);
        // Acquire: the entries are read after the index that announced them.
        let filled = self.memory.producer().load(Ordering::Acquire);
        // Bounded, even if the producer index is wrong.
        let count = filled
            .wrapping_sub(start)
            .min(self.memory.capacity())
            .min(count_max);
        for step in 0..count {
            // SAFETY: between consumer and producer only this side reads, and no side writes.
            each(unsafe { self.memory.read(start.wrapping_add(step)) });
        }
        self.memory
            .consumer()
            .store(start.wrapping_add(count), Ordering::Release);
        count
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::VecDeque;

    fn pair(start: u32) -> (Ring<u64, Producing>, Ring<u64, Consuming>) {
        let (one, other) = RingMemory::pair(8).unwrap();
        one.producer().store(start, Ordering::Relaxed);
        one.consumer().store(start, Ordering::Relaxed);
        (Ring::new(one), Ring::new(other))
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
