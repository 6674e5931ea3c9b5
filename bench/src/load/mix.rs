//! Which chunk is requested next.

use std::fmt;
use std::str::FromStr;

use anyhow::{Context as _, Result, bail};
use rand::rngs::SmallRng;
use rand::seq::SliceRandom as _;
use rand::{RngExt as _, SeedableRng as _};
use rand_distr::{Distribution as _, Zipf};

/// Assigns the ranks, independent of the seed: parallel generators are to prefer the same chunks.
const RANKS: u64 = 1;

/// Distribution of requests over the chunks.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Mix {
    /// The chunk of rank r is requested in proportion to r^-exponent.
    Zipf(f64),
    Uniform,
    /// All in order, repeatedly.
    Scan,
    /// One chunk only.
    Hot,
}

impl FromStr for Mix {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let exponent = |text: &str| {
            let exponent = text.parse().ok();
            exponent.filter(|exponent: &f64| exponent.is_finite() && *exponent >= 0.0)
        };
        match text.split_once(':') {
            None if text == "uniform" => Ok(Self::Uniform),
            None if text == "scan" => Ok(Self::Scan),
            None if text == "hot" => Ok(Self::Hot),
            Some(("zipf", number)) => exponent(number)
                .map(Self::Zipf)
                .ok_or_else(|| format!("{number} is not an exponent; write zipf:0.9")),
            Some(_) | None => Err(format!(
                "{text} is not a mix; write zipf:EXPONENT, uniform, scan or hot"
            )),
        }
    }
}

impl fmt::Display for Mix {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Zipf(exponent) => write!(to, "zipf:{exponent}"),
            Self::Uniform => to.write_str("uniform"),
            Self::Scan => to.write_str("scan"),
            Self::Hot => to.write_str("hot"),
        }
    }
}

/// Draws indices of chunks.
#[derive(Debug)]
pub struct Picker {
    draw: Draw,
    random: SmallRng,
}

#[derive(Debug)]
enum Draw {
    /// With the chunk of each rank: popular ones are not adjacent.
    Zipf(Zipf<f64>, Vec<u32>),
    Uniform(u32),
    Scan {
        next: u32,
        count: u32,
    },
    Hot,
}

impl Picker {
    pub fn new(mix: Mix, chunks: usize, seed: u64) -> Result<Self> {
        let count = u32::try_from(chunks).context("too many chunks")?;
        if count == 0 {
            bail!("no chunks to choose from");
        }
        let random = SmallRng::seed_from_u64(seed);
        let draw = match mix {
            Mix::Zipf(exponent) => {
                let mut by_rank: Vec<u32> = (0..count).collect();
                by_rank.shuffle(&mut SmallRng::seed_from_u64(RANKS));
                Draw::Zipf(Zipf::new(f64::from(count), exponent)?, by_rank)
            }
            Mix::Uniform => Draw::Uniform(count),
            Mix::Scan => Draw::Scan { next: 0, count },
            Mix::Hot => Draw::Hot,
        };
        Ok(Self { draw, random })
    }

    pub fn pick(&mut self) -> usize {
        let index = match &mut self.draw {
            Draw::Zipf(zipf, by_rank) => {
                // Ranks are integers from 1.
                let rank = zipf.sample(&mut self.random);
                #[expect(
                    clippy::cast_possible_truncation,
                    clippy::cast_sign_loss,
                    reason = "between 1 and a count of chunks"
                )]
                let place = (rank as usize).clamp(1, by_rank.len()) - 1;
                by_rank[place]
            }
            Draw::Uniform(count) => self.random.random_range(0..*count),
            Draw::Scan { next, count } => {
                let this = *next;
                *next = (this + 1) % *count;
                this
            }
            Draw::Hot => 0,
        };
        index as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generators_with_other_seeds_want_the_same_chunk_most() {
        let most = |seed| {
            let mut picker = Picker::new(Mix::Zipf(1.2), 1000, seed).unwrap();
            let mut counts = vec![0; 1000];
            for _ in 0..10_000 {
                counts[picker.pick()] += 1;
            }
            (0..1000).max_by_key(|chunk| counts[*chunk])
        };
        assert_eq!(most(1), most(2));
    }

    fn draws(mix: Mix, chunks: usize, count: usize) -> Vec<usize> {
        let mut picker = Picker::new(mix, chunks, 7).unwrap();
        (0..count).map(|_| picker.pick()).collect()
    }

    #[test]
    fn a_mix_is_what_it_is_called() {
        assert_eq!(draws(Mix::Scan, 3, 5), [0, 1, 2, 0, 1]);
        assert_eq!(draws(Mix::Hot, 3, 3), [0, 0, 0]);
        assert!(
            draws(Mix::Uniform, 10, 1000)
                .iter()
                .all(|chunk| *chunk < 10)
        );
        let mut counts = vec![0; 1000];
        for chunk in draws(Mix::Zipf(0.9), 1000, 100_000) {
            counts[chunk] += 1;
        }
        counts.sort_unstable_by(|a, b| b.cmp(a));
        // By the sum over 1/r^0.9 for r to 1000: the first rank has 9.5 %, the tenth 1.2 %.
        assert!((9000..10_000).contains(&counts[0]), "{}", counts[0]);
        assert!((1050..1350).contains(&counts[9]), "{}", counts[9]);
    }

    #[test]
    fn words_are_mixes() {
        assert_eq!("zipf:0.9".parse(), Ok(Mix::Zipf(0.9)));
        assert_eq!("scan".parse(), Ok(Mix::Scan));
        for text in ["zipf:0.9", "uniform", "scan", "hot"] {
            assert_eq!(text.parse::<Mix>().unwrap().to_string(), text);
        }
        for wrong in ["zipf", "zipf:x", "zipf:-1", "random", "hot:1"] {
            assert!(wrong.parse::<Mix>().is_err(), "{wrong}");
        }
    }
}
