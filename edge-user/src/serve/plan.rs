//! Which segments of a chunk to send for a GET, as runs of adjacent segments.

use edge_ebpf::wire::Geometry;

/// Adjacent segments.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Run {
    pub first: u8,
    pub count: u8,
}

/// The lowest wanted segments that exist, at most `max_burst` of them, as runs in order. `None` if
/// no wanted segment exists.
pub fn plan(want: u128, geometry: &Geometry, max_burst: u8) -> Option<Runs> {
    let set = want & geometry.all();
    (set != 0).then_some(Runs {
        set,
        budget: u32::from(max_burst),
    })
}

/// The runs of a plan, lowest first.
#[derive(Clone, Debug)]
pub struct Runs {
    set: u128,
    budget: u32,
}

impl Runs {
    /// The lowest `segments` segments, and the rest.
    pub fn split(self, segments: u32) -> (Self, Self) {
        let first = Self {
            budget: self.budget.min(segments),
            ..self
        };
        let mut rest = first.clone();
        rest.by_ref().for_each(drop);
        rest.budget = self.budget - first.budget;
        (first, rest)
    }

    /// The lowest segment.
    pub fn first(&self) -> u8 {
        u8::try_from(self.set.trailing_zeros()).unwrap_or(u8::MAX)
    }

    /// The number of segments.
    pub fn segments(&self) -> u32 {
        self.set.count_ones().min(self.budget)
    }
}

impl Iterator for Runs {
    type Item = Run;

    fn next(&mut self) -> Option<Run> {
        if self.set == 0 || self.budget == 0 {
            return None;
        }
        let first = self.set.trailing_zeros();
        let count = (self.set >> first).trailing_ones().min(self.budget);
        self.budget -= count;
        // `count` bits from `first` on; `count` may be 128.
        let taken = (u128::MAX >> (128 - count)) << first;
        self.set &= !taken;
        Some(Run {
            first: u8::try_from(first).expect("below 128"),
            count: u8::try_from(count).expect("at most 128"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_plan_is_the_lowest_wanted_segments_that_exist(
            want in any::<u128>(),
            chunk_bytes in 1_u32..=131_072,
            max_burst in 1_u8..=128,
        ) {
            let geometry = Geometry::new(chunk_bytes, 1216).unwrap();
            let expected: Vec<u8> = (0..=geometry.last)
                .filter(|index| want >> index & 1 == 1)
                .take(usize::from(max_burst))
                .collect();
            let planned: Vec<u8> = plan(want, &geometry, max_burst)
                .into_iter()
                .flatten()
                .flat_map(|run| run.first..run.first + run.count)
                .collect();
            prop_assert_eq!(planned, expected);
        }
    }

    proptest! {
        #[test]
        fn a_plan_cut_in_two_is_the_same_plan(
            want in 1_u128..,
            max_burst in 1_u8..=128,
            cut in 0_u32..=130,
        ) {
            let geometry = Geometry::new(131_072, 1024).unwrap();
            let whole = plan(want, &geometry, max_burst).unwrap();
            let segments = |runs: Runs| -> Vec<u8> {
                runs.flat_map(|run| run.first..=run.first + (run.count - 1)).collect()
            };
            let (first, rest) = whole.clone().split(cut);
            prop_assert_eq!(first.segments() + rest.segments(), whole.segments());
            prop_assert!(first.segments() == cut.min(whole.segments()));
            let both = [segments(first), segments(rest)].concat();
            prop_assert_eq!(both, segments(whole));
        }
    }

    #[test]
    fn a_whole_small_segment_chunk_is_one_run() {
        let geometry = Geometry::new(131_072, 1024).unwrap();
        let runs: Vec<_> = plan(u128::MAX, &geometry, 128).unwrap().collect();
        assert_eq!(
            runs,
            [Run {
                first: 0,
                count: 128
            }]
        );
    }
}
