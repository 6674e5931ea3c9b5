//! Chooses the runs of bytes that represent an object's content.

use std::collections::BTreeSet;

use anyhow::Result;
use rand::RngExt as _;
use rand::rngs::SmallRng;

/// Length of a run.
pub(super) const RUN_BYTES: usize = 64;
/// Minimum number of distinct values in a run of ciphertext; most have more.
pub(super) const DISTINCT: usize = 40;
/// The same for plaintext. Text rarely has so many in so few bytes: then the next lower number is
/// used, as no run may occur in the edge's own program or libraries anyway.
pub(super) const DISTINCT_PLAINTEXT: [usize; 4] = [DISTINCT, 32, 24, 16];
/// Ciphertext of a data chunk.
pub(super) const CHUNK_BYTES: u64 = 131_072;
/// Ciphertext of a segment: `service.segment_bytes`, left as it is.
const SEGMENT_BYTES: u64 = 1216;
/// Places to try for each kind of run in an object.
const TRIES: usize = 50_000;

pub(super) type Run = [u8; RUN_BYTES];

/// Up to this many different runs of an object of this size, each with enough distinct values and
/// within one segment.
pub(super) fn choose(
    size: u64,
    wanted: usize,
    distinct_min: usize,
    rng: &mut SmallRng,
    mut read: impl FnMut(u64, &mut Run) -> Result<()>,
) -> Result<Vec<Run>> {
    let mut chosen = Vec::new();
    let mut seen = BTreeSet::new();
    let Some(places) = (size + 1)
        .checked_sub(length())
        .filter(|places| *places > 0)
    else {
        return Ok(chosen);
    };
    for _try in 0..TRIES {
        if chosen.len() == wanted {
            break;
        }
        let at = rng.random_range(0..places);
        if !within_a_segment(at) {
            continue;
        }
        let mut run = [0; RUN_BYTES];
        read(at, &mut run)?;
        if distinct(&run) >= distinct_min && !monotonous(&run) && seen.insert(run) {
            chosen.push(run);
        }
    }
    Ok(chosen)
}

/// A run across segments or chunks is not contiguous in the arena.
fn within_a_segment(at: u64) -> bool {
    let in_chunk = at % CHUNK_BYTES;
    in_chunk % SEGMENT_BYTES + length() <= SEGMENT_BYTES && in_chunk + length() <= CHUNK_BYTES
}

fn length() -> u64 {
    u64::try_from(RUN_BYTES).expect("64 fits")
}

fn distinct(run: &Run) -> usize {
    let mut seen = [false; 256];
    for byte in run {
        seen[usize::from(*byte)] = true;
    }
    seen.iter().filter(|seen| **seen).count()
}

/// A run of equal bytes, which would be found all over empty memory.
fn monotonous(run: &Run) -> bool {
    run.array_windows::<8>()
        .any(|window| window.iter().all(|byte| *byte == window[0]))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;

    use super::*;

    /// An object whose byte at each offset is the offset, mixed.
    #[expect(clippy::unnecessary_wraps, reason = "represents a readable file")]
    fn mixed(at: u64, run: &mut Run) -> Result<()> {
        for (place, byte) in (at..).zip(run) {
            let [.., high] = place.wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
            *byte = high;
        }
        Ok(())
    }

    #[test]
    fn runs_are_many_different_and_of_the_seed() {
        let choose_by = |seed| {
            choose(
                1 << 30,
                16,
                DISTINCT,
                &mut SmallRng::seed_from_u64(seed),
                mixed,
            )
            .unwrap()
        };
        let runs = choose_by(1);
        assert_eq!(runs.len(), 16);
        assert!(runs.iter().all(|run| distinct(run) >= DISTINCT));
        assert_eq!(runs.iter().collect::<BTreeSet<_>>().len(), 16);
        assert_eq!(runs, choose_by(1));
        assert_ne!(runs, choose_by(2));
    }

    #[test]
    fn places_stay_within_segment_chunk_and_object() {
        let size = 3 * CHUNK_BYTES + 100;
        let runs = choose(
            size,
            10_000,
            0,
            &mut SmallRng::seed_from_u64(3),
            |at, run| {
                assert!(at + 64 <= size, "{at}");
                let in_chunk = at % 131_072;
                assert!(in_chunk % 1216 <= 1216 - 64, "{at}");
                assert!(in_chunk <= 131_072 - 64, "{at}");
                mixed(at, run)
            },
        );
        assert!(runs.unwrap().len() > 1000);
    }

    #[test]
    fn an_object_too_small_or_too_plain_has_no_run() {
        let choose = |size, read: fn(u64, &mut Run) -> Result<()>| {
            choose(size, 16, DISTINCT, &mut SmallRng::seed_from_u64(1), read)
                .unwrap()
                .len()
        };
        assert_eq!(choose(0, mixed), 0);
        assert_eq!(choose(63, mixed), 0);
        assert_eq!(choose(64, mixed), 1);
        assert_eq!(choose(1 << 20, |_, _| Ok(())), 0);
    }

    #[test]
    fn eight_equal_bytes_in_a_row_are_too_many() {
        let mut run: Run = std::array::from_fn(|n| u8::try_from(n).unwrap());
        assert!(!monotonous(&run));
        run[20..28].fill(0);
        assert!(monotonous(&run));
        assert!(distinct(&run) >= DISTINCT);
    }
}
