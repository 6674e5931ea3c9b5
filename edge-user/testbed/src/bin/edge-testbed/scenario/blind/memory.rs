//! The memory of a running process, as `/proc` shows it to root.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// The kernel's name for anonymous memory in hugepages.
const HUGEPAGES: &str = "/anon_hugepage";
const PAGE: u64 = 4096;

/// An address range and what is mapped there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mapping {
    start: u64,
    end: u64,
    readable: bool,
    pub(super) name: String,
}

impl Mapping {
    fn parse(line: &str) -> Option<Self> {
        let (range, rest) = line.split_once(' ')?;
        let (start, end) = range.split_once('-')?;
        // Permissions, offset, device and inode precede the name, which may contain spaces.
        let name = rest.splitn(5, ' ').nth(4).unwrap_or_default().trim();
        Some(Self {
            start: u64::from_str_radix(start, 16).ok()?,
            end: u64::from_str_radix(end, 16).ok()?,
            readable: rest.starts_with('r'),
            name: name.to_owned(),
        })
    }

    pub(super) fn bytes(&self) -> u64 {
        self.end - self.start
    }

    /// The intersection of two ranges, with the name of this one.
    fn shared(&self, other: &Self) -> Option<Self> {
        let start = self.start.max(other.start);
        let end = self.end.min(other.end);
        (start < end).then(|| Self {
            start,
            end,
            ..self.clone()
        })
    }
}

/// All readable memory of a process; the largest mapping of hugepages is the arena.
pub(super) struct Layout {
    pub(super) arena: Vec<Mapping>,
    pub(super) others: Vec<Mapping>,
}

impl Layout {
    pub(super) fn of(process: u32) -> Result<Self> {
        let path = format!("/proc/{process}/maps");
        let text = fs::read_to_string(&path).with_context(|| format!("cannot read {path}"))?;
        Ok(Self::parse(&text))
    }

    fn parse(text: &str) -> Self {
        let all = text.lines().filter_map(Mapping::parse);
        let mut others: Vec<Mapping> = all.filter(|mapping| mapping.readable).collect();
        let largest = (0..others.len())
            .filter(|at| others[*at].name.starts_with(HUGEPAGES))
            .max_by_key(|at| others[*at].bytes());
        let arena = largest.map(|at| others.remove(at)).into_iter().collect();
        Self { arena, others }
    }

    /// The parts of these ranges that still exist.
    pub(super) fn still_there(&self, ranges: &[Mapping]) -> Vec<Mapping> {
        let now = || self.arena.iter().chain(&self.others);
        let parts = ranges
            .iter()
            .flat_map(|range| now().filter_map(|mapping| mapping.shared(range)));
        parts.collect()
    }

    /// The program and its libraries.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        let mut files: Vec<PathBuf> = self
            .others
            .iter()
            .filter(|mapping| mapping.name.starts_with('/'))
            .map(|mapping| PathBuf::from(&mapping.name))
            .filter(|path| path.is_file())
            .collect();
        files.dedup();
        files
    }
}

/// Reads one mapping after the other. What cannot be read is skipped and recorded.
pub(super) struct Memory {
    file: File,
    mappings: Vec<Mapping>,
    current: usize,
    at: u64,
    pub(super) unread: Vec<Mapping>,
}

impl Memory {
    pub(super) fn open(process: u32, mappings: Vec<Mapping>) -> Result<Self> {
        let path = Path::new("/proc").join(process.to_string()).join("mem");
        let file = File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        Ok(Self {
            file,
            mappings,
            current: 0,
            at: 0,
            unread: Vec::new(),
        })
    }
}

impl Read for Memory {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while let Some(mapping) = self.mappings.get(self.current) {
            let at = self.at.max(mapping.start);
            if at >= mapping.end {
                self.current += 1;
                self.at = 0;
                continue;
            }
            let left = usize::try_from(mapping.end - at).unwrap_or(usize::MAX);
            let length = left.min(buffer.len());
            let count = match self.file.read_at(&mut buffer[..length], at) {
                Err(error) if error.kind() == ErrorKind::Interrupted => return Err(error),
                // A page that only the kernel can read, or the process ended.
                Err(_) | Ok(0) => {
                    let next = (at - at % PAGE + PAGE).min(mapping.end);
                    match self.unread.last_mut() {
                        Some(last) if last.end == at && last.name == mapping.name => {
                            last.end = next;
                        }
                        Some(_) | None => self.unread.push(Mapping {
                            start: at,
                            end: next,
                            ..mapping.clone()
                        }),
                    }
                    self.at = next;
                    continue;
                }
                Ok(count) => count,
            };
            self.at = at + u64::try_from(count).expect("a length fits");
            return Ok(count);
        }
        Ok(0)
    }
}

#[cfg(test)]
mod tests {
    use super::super::search::Searcher;
    use super::*;
    use std::collections::BTreeSet;

    const MAPS: &str = "\
55d0c0000000-55d0c0010000 r-xp 00000000 08:01 42                         /bin/a b
7f0000000000-7f0000200000 rw-p 00000000 00:10 7                          /anon_hugepage (deleted)
7f1000000000-7f1020000000 rw-p 00000000 00:10 8                          /anon_hugepage (deleted)
7f2000000000-7f2000001000 ---p 00000000 00:00 0 
7ffd00000000-7ffd00021000 rw-p 00000000 00:00 0                          [stack]
";

    #[test]
    fn the_arena_is_the_largest_mapping_of_hugepages() {
        let layout = Layout::parse(MAPS);
        assert_eq!(layout.arena.len(), 1);
        assert_eq!(layout.arena[0].bytes(), 512 << 20);
        let others: Vec<&str> = layout.others.iter().map(|m| m.name.as_str()).collect();
        assert_eq!(others, ["/bin/a b", "/anon_hugepage (deleted)", "[stack]"]);
    }

    #[test]
    fn what_was_unmapped_meanwhile_is_no_longer_there() {
        let layout = Layout::parse(MAPS);
        let line = "7f1010000000-7f1030000000 rw-p 00000000 00:00 0 ";
        let unread = Mapping::parse(line).unwrap();
        let still = layout.still_there(std::slice::from_ref(&unread));
        assert_eq!(still.len(), 1);
        assert_eq!(still[0].start, unread.start);
        assert_eq!(still[0].end, 0x7f10_2000_0000);
    }

    #[test]
    fn what_this_very_process_holds_is_found_in_its_memory() {
        let secret: Vec<u8> = (0..64).map(|n: u8| n.wrapping_mul(37) ^ 0x5c).collect();
        let us = std::process::id();
        let memory = Memory::open(us, Layout::of(us).unwrap().others).unwrap();
        let mut found = BTreeSet::new();
        let searcher = Searcher::new(vec![secret]).unwrap();
        assert!(searcher.search(memory, &mut found).unwrap() > 0);
        assert_eq!(found.len(), 1);
    }
}
