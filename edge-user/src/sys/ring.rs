//! One direction of an AF_XDP ring: entries in memory shared with the kernel, a producer index and
//! a consumer index, each written by one side only. They count up for ever and wrap.

use std::marker::PhantomData;
use std::sync::atomic::Ordering;

use super::ring_memory::{Entry, RingMemory};

/// The side that puts entries in.
#[derive(Debug)]
pub struct Producing;
/// The side that takes entries out.
#[derive(Debug)]
pub struct Consuming;

/// One end of a ring.
#[derive(Debug)]
pub struct Ring<T, Side> {
    memory: RingMemory<T>,
    _side: PhantomData<Side>,
}

impl<T: Entry, Side> Ring<T, Side> {
    /// The one end of this kind over this memory.
    pub const fn new(memory: RingMemory<T>) -> Self {
        Self {
            memory,
            _side: PhantomData,
        }
    }

    /// Whether everything that was put in has been taken out.
    pub fn is_empty(&self) -> bool {
        self.memory.consumer().load(Ordering::Acquire)
            == self.memory.producer().load(Ordering::Acquire)
    }
}

impl<T: Entry> Ring<T, Producing> {
    /// Puts in as many as there is room for and says how many that were.
    pub fn produce(&mut self, mut entries: impl Iterator<Item = T>) -> u32 {
        let start = self.memory.producer().load(Ordering::Relaxed);
        // Acquire: the consumer has read what we now write over.
        let taken = self.memory.consumer().load(Ordering::Acquire);
        let room = self
            .memory
            .capacity()
            .saturating_sub(start.wrapping_sub(taken));
        let mut count = 0;
        while count < room {
            let Some(entry) = entries.next() else { break };
            // SAFETY: between producer and consumer + len only this side writes, and nobody reads.
            unsafe { self.memory.write(start.wrapping_add(count), entry) };
            count += 1;
        }
        // Release: the entries are written before the index says so.
        self.memory
            .producer()
            .store(start.wrapping_add(count), Ordering::Release);
        count
    }
}

impl<T: Entry> Ring<T, Consuming> {
    /// Takes out at most `most` entries.
    pub fn consume(&mut self, most: u32, mut each: impl FnMut(T)) -> u32 {
        let start = self.memory.consumer().load(Ordering::Relaxed);
        // Acquire: the entries are read after the index that announced them.
        let filled = self.memory.producer().load(Ordering::Acquire);
        // A producer index that ran away from us cannot make us read past the ring.
        let count = filled
            .wrapping_sub(start)
            .min(self.memory.capacity())
            .min(most);
        for step in 0..count {
            // SAFETY: between consumer and producer only this side reads, and nobody writes.
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
        let (one, other) = RingMemory::ours(8).unwrap();
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
