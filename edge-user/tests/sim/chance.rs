//! The seed's randomness.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng as _, RngExt as _, SeedableRng as _};

#[derive(Clone, Debug)]
pub(crate) struct Chance(SmallRng);

impl Chance {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SmallRng::seed_from_u64(seed))
    }

    /// A stream of its own, so that one part's choices do not shift another's.
    pub(crate) fn split(&mut self) -> Self {
        Self(self.0.fork())
    }

    /// Below `end`.
    pub(crate) fn below(&mut self, end: u64) -> u64 {
        self.0.random_range(0..end)
    }

    pub(crate) fn index(&mut self, len: usize) -> usize {
        self.0.random_range(0..len)
    }

    pub(crate) fn one_of<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// True this many times in a thousand.
    pub(crate) fn permille(&mut self, times: u64) -> bool {
        self.below(1000) < times
    }

    pub(crate) fn bytes<const N: usize>(&mut self) -> [u8; N] {
        self.0.random()
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        self.0.fill_bytes(bytes);
    }

    /// Between nothing and `most`, more often short.
    pub(crate) fn time(&mut self, most: Duration) -> Duration {
        let nanoseconds = u64::try_from(most.as_nanos()).expect("seconds");
        let part = self.below(nanoseconds + 1);
        Duration::from_nanos(if self.permille(500) { part / 16 } else { part })
    }
}
