//! The search strings, and where they were found.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::os::unix::fs::FileExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use edge_testbed::objects::Sealed;
use rand::SeedableRng as _;
use rand::rngs::SmallRng;
use serde::Serialize;

use super::memory::{Layout, Mapping, Memory};
use super::runs::{self, CHUNK_BYTES, DISTINCT, DISTINCT_PLAINTEXT, Run};
use super::search::Searcher;
use super::secrets::{self, Form, Ticket};

/// Runs of plaintext and of ciphertext for each object.
pub(super) const RUNS: usize = 16;
/// Plaintext runs chosen first; those in the edge's own program are dropped.
const CANDIDATES: usize = 3 * RUNS;
/// Attempts to read memory that could not be read.
const TRIES: usize = 3;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum What {
    Key(Form),
    Plaintext,
    Ciphertext,
}

/// A byte string of an object.
#[derive(Serialize)]
pub(super) struct Needle {
    object: usize,
    pub(super) what: What,
    #[serde(skip)]
    bytes: Vec<u8>,
}

/// A published object.
#[derive(Serialize)]
pub(super) struct Published {
    pub(super) name: String,
    pub(super) size: u64,
    /// Minimum number of distinct values in each plaintext run.
    pub(super) distinct: usize,
}

/// A searched place.
#[derive(Default, Serialize)]
pub(super) struct Place {
    pub(super) name: String,
    pub(super) bytes: u64,
    /// Numbers of the strings that were found.
    pub(super) found: BTreeSet<usize>,
}

impl Place {
    fn add(&mut self, part: Self) {
        self.bytes += part.bytes;
        self.found.extend(part.found);
    }
}

#[derive(Serialize)]
pub(super) struct Scan {
    pub(super) objects: Vec<Published>,
    pub(super) needles: Vec<Needle>,
    #[serde(skip)]
    searcher: Searcher,
    pub(super) places: Vec<Place>,
    /// Memory that could not be read, by the name of its mapping.
    pub(super) unread: BTreeMap<String, u64>,
}

impl Scan {
    /// Chooses the search strings. `own` are the files of the edge itself, program and libraries.
    pub(super) fn prepare(
        sealed: &[Sealed],
        origin: &Path,
        own: &[PathBuf],
        seed: u64,
    ) -> Result<Self> {
        let mut needles = Vec::new();
        let mut objects = Vec::new();
        let mut rng = SmallRng::seed_from_u64(seed);
        for (object, one) in sealed.iter().enumerate() {
            let ticket = Ticket::read(&one.ticket)?;
            let mut add = |what, bytes| {
                needles.push(Needle {
                    object,
                    what,
                    bytes,
                });
            };
            for (form, bytes) in secrets::forms(&ticket.key) {
                add(What::Key(form), bytes);
            }
            let (distinct, plaintext) = plaintext_runs(one, own, &mut rng)?;
            objects.push(Published {
                name: one.object.name.clone(),
                size: one.object.size,
                distinct,
            });
            for run in plaintext {
                add(What::Plaintext, run.to_vec());
            }
            for run in ciphertext_runs(origin, &ticket, &mut rng)? {
                add(What::Ciphertext, run.to_vec());
            }
        }
        let searcher = Searcher::new(needles.iter().map(|needle| needle.bytes.clone()).collect())?;
        Ok(Self {
            objects,
            needles,
            searcher,
            places: Vec::new(),
            unread: BTreeMap::new(),
        })
    }

    pub(super) fn search(&mut self, name: &str, source: impl Read) -> Result<()> {
        let place = self.look(name, source)?;
        self.places.push(place);
        Ok(())
    }

    pub(super) fn search_files(&mut self, name: &str, files: &[PathBuf]) -> Result<()> {
        let place = self.look_in_files(name, files)?;
        self.places.push(place);
        Ok(())
    }

    pub(super) fn search_memory(
        &mut self,
        name: &str,
        process: u32,
        mappings: Vec<Mapping>,
    ) -> Result<()> {
        let mut whole = Place {
            name: name.to_owned(),
            ..Place::default()
        };
        let mut left = mappings;
        for _try in 0..TRIES {
            let mut memory = Memory::open(process, left)?;
            whole.add(self.look(name, &mut memory)?);
            // An active process returns memory while it is read, and may allocate it again.
            left = Layout::of(process)?.still_there(&memory.unread);
        }
        self.places.push(whole);
        for mapping in left {
            *self.unread.entry(mapping.name.clone()).or_default() += mapping.bytes();
        }
        Ok(())
    }

    /// Like `search_files`, for places that contain the secrets: a search that does not find them
    /// there proves nothing elsewhere.
    pub(super) fn look_in_files(&self, name: &str, files: &[PathBuf]) -> Result<Place> {
        let mut whole = Place {
            name: name.to_owned(),
            ..Place::default()
        };
        for file in files {
            whole.add(self.look(name, open(file)?)?);
        }
        Ok(whole)
    }

    fn look(&self, name: &str, source: impl Read) -> Result<Place> {
        let mut found = BTreeSet::new();
        let bytes = self
            .searcher
            .search(source, &mut found)
            .with_context(|| format!("cannot search {name}"))?;
        Ok(Place {
            name: name.to_owned(),
            bytes,
            found,
        })
    }

    /// The numbers of an object's strings.
    pub(super) fn of(
        &self,
        object: usize,
        wanted: impl Fn(What) -> bool,
    ) -> impl Iterator<Item = usize> {
        let needles = self.needles.iter().enumerate();
        needles
            .filter(move |(_, needle)| needle.object == object && wanted(needle.what))
            .map(|(number, _)| number)
    }
}

/// The runs of the strictest kind that has enough, and how strict that is.
fn plaintext_runs(one: &Sealed, own: &[PathBuf], rng: &mut SmallRng) -> Result<(usize, Vec<Run>)> {
    let file = open(&one.object.path)?;
    let mut best = (DISTINCT, Vec::new());
    for distinct in DISTINCT_PLAINTEXT {
        let candidates = runs::choose(one.object.size, CANDIDATES, distinct, rng, |at, run| {
            Ok(file.read_exact_at(run, at)?)
        })?;
        let strangers = without_those_in(candidates, own)?;
        if strangers.len() > best.1.len() {
            best = (distinct, strangers);
        }
        if best.1.len() == RUNS {
            break;
        }
    }
    Ok(best)
}

fn without_those_in(candidates: Vec<Run>, own: &[PathBuf]) -> Result<Vec<Run>> {
    let searcher = Searcher::new(candidates.iter().map(|run| run.to_vec()).collect())?;
    let mut known = BTreeSet::new();
    for file in own {
        searcher.search(open(file)?, &mut known)?;
    }
    Ok(candidates
        .into_iter()
        .enumerate()
        .filter(|(number, _)| !known.contains(number))
        .map(|(_, run)| run)
        .take(RUNS)
        .collect())
}

fn ciphertext_runs(origin: &Path, ticket: &Ticket, rng: &mut SmallRng) -> Result<Vec<Run>> {
    let chunks = secrets::data_chunks(origin, ticket)?;
    runs::choose(ticket.size, RUNS, DISTINCT, rng, |at, run| {
        let chunk = &chunks[usize::try_from(at / CHUNK_BYTES)?];
        Ok(open(chunk)?.read_exact_at(run, at % CHUNK_BYTES)?)
    })
}

fn open(file: &Path) -> Result<File> {
    File::open(file).with_context(|| format!("cannot open {}", file.display()))
}
