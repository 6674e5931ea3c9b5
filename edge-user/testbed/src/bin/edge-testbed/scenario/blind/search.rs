//! Searches for many byte strings at once, in one pass over a stream of any length.

use std::collections::BTreeSet;
use std::io::{ErrorKind, Read};

use aho_corasick::AhoCorasick;
use anyhow::{Result, bail};
use edge_testbed::stop::{self, Stop};

/// Shorter strings occur by chance.
const SHORTEST: usize = 23;
/// Bytes read at once.
const PIECE: usize = 1 << 20;

pub(super) struct Searcher {
    automaton: AhoCorasick,
    /// Bytes to keep from the end of a piece.
    longest: usize,
}

impl Searcher {
    pub(super) fn new(patterns: Vec<Vec<u8>>) -> Result<Self> {
        let poor = |bytes: &Vec<u8>| bytes.len() < SHORTEST || bytes.iter().all(|byte| *byte == 0);
        if patterns.iter().any(poor) {
            bail!("cannot search for less than {SHORTEST} bytes, nor for zeros");
        }
        Ok(Self {
            longest: patterns.iter().map(Vec::len).max().unwrap_or(SHORTEST),
            automaton: AhoCorasick::new(patterns)?,
        })
    }

    /// Reads to the end, adds the numbers of the strings found, and returns the bytes read.
    pub(super) fn search(&self, mut source: impl Read, found: &mut BTreeSet<usize>) -> Result<u64> {
        let mut buffer = vec![0; self.longest + PIECE];
        let mut kept = 0;
        let mut total = 0;
        loop {
            if stop::came() {
                return Err(Stop::interrupted());
            }
            let count = match source.read(&mut buffer[kept..]) {
                Ok(0) => return Ok(total),
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::Interrupted => continue,
                Err(error) => return Err(error.into()),
            };
            total += u64::try_from(count)?;
            let end = kept + count;
            let met = self.automaton.find_overlapping_iter(&buffer[..end]);
            found.extend(met.map(|string| string.pattern().as_usize()));
            // A string that continues in the next piece has at most all but one byte here.
            kept = end.min(self.longest - 1);
            buffer.copy_within(end - kept..end, 0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns its bytes in pieces of a chosen size, as pipes and memory do.
    struct Drops<'a>(&'a [u8], usize);

    impl Read for Drops<'_> {
        fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
            let count = self.0.len().min(self.1).min(buffer.len());
            let (now, later) = self.0.split_at(count);
            buffer[..count].copy_from_slice(now);
            self.0 = later;
            Ok(count)
        }
    }

    fn pattern(length: u8, first: u8) -> Vec<u8> {
        (0..length).map(|n| first.wrapping_add(n)).collect()
    }

    fn found(searcher: &Searcher, source: impl Read) -> Vec<usize> {
        let mut found = BTreeSet::new();
        searcher.search(source, &mut found).unwrap();
        found.into_iter().collect()
    }

    #[test]
    fn a_string_is_found_at_every_place() {
        let patterns = vec![pattern(23, 1), pattern(64, 100)];
        let searcher = Searcher::new(patterns.clone()).unwrap();
        for (number, planted) in patterns.iter().enumerate() {
            for at in 0..100 {
                let mut bytes = vec![0; 200];
                bytes[at..at + planted.len()].copy_from_slice(planted);
                assert_eq!(found(&searcher, bytes.as_slice()), [number], "at {at}");
            }
        }
    }

    #[test]
    fn a_string_is_found_across_the_borders_of_pieces() {
        let planted = pattern(64, 7);
        let searcher = Searcher::new(vec![planted.clone()]).unwrap();
        for at in PIECE - 70..PIECE + 140 {
            let mut bytes = vec![0; PIECE + 300];
            bytes[at..at + 64].copy_from_slice(&planted);
            assert_eq!(found(&searcher, bytes.as_slice()), [0], "at {at}");
        }
        let mut bytes = vec![0; 300];
        bytes[117..117 + 64].copy_from_slice(&planted);
        for drop in 1..100 {
            assert_eq!(
                found(&searcher, Drops(&bytes, drop)),
                [0],
                "drops of {drop}"
            );
        }
    }

    #[test]
    fn all_but_one_byte_is_not_enough() {
        let planted = pattern(40, 9);
        let searcher = Searcher::new(vec![planted.clone()]).unwrap();
        for wrong in 0..40 {
            let mut bytes = planted.clone();
            bytes[wrong] ^= 1;
            assert_eq!(found(&searcher, bytes.as_slice()), [0; 0]);
        }
        assert_eq!(found(&searcher, &planted[..39]), [0; 0]);
    }

    #[test]
    fn bytes_are_counted_once_each() {
        let searcher = Searcher::new(vec![pattern(30, 0)]).unwrap();
        let bytes = vec![3; 2 * PIECE + 5];
        let count = searcher.search(bytes.as_slice(), &mut BTreeSet::new());
        assert_eq!(count.unwrap(), 2 * (1 << 20) + 5);
    }

    #[test]
    fn short_and_empty_strings_are_refused() {
        assert!(Searcher::new(vec![vec![0; 64]]).is_err());
        assert!(Searcher::new(vec![pattern(22, 0)]).is_err());
    }
}
