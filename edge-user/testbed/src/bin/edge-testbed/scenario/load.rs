//! A background reader that fetches everything repeatedly.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use edge_testbed::{
    clock,
    daemon::Daemon,
    stop::{self, Stop},
};

use super::StopGuard;
use crate::reader::{End, HANGS_AFTER, fetch};
use crate::testbed::Testbed;

/// Limit for three rounds; they take a few seconds.
const PATIENCE: Duration = Duration::from_mins(3);

pub(super) struct Load<'a> {
    testbed: &'a Testbed<'a>,
    edges: [SocketAddr; 2],
    out: PathBuf,
    /// Messages with which a reader may fail.
    excuses: &'a [&'a str],
    excused: Mutex<Vec<String>>,
    enough: AtomicBool,
    failed: AtomicBool,
    fetches: AtomicU64,
}

impl<'a> Load<'a> {
    pub(super) fn new(testbed: &'a Testbed<'a>) -> Self {
        Self {
            testbed,
            edges: testbed.bed.services(),
            out: testbed.folder.join("out"),
            excuses: &[],
            excused: Mutex::default(),
            enough: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            fetches: AtomicU64::new(0),
        }
    }

    /// A reader that fails with one of these messages tries again.
    pub(super) fn excused_by(self, excuses: &'a [&'a str]) -> Self {
        Self { excuses, ..self }
    }

    /// Ends the load on drop.
    pub(super) fn stop_guard(&self) -> StopGuard<impl Fn()> {
        StopGuard(|| self.enough.store(true, Ordering::Relaxed))
    }

    /// Objects received intact so far.
    pub(super) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    /// Messages of the readers that were allowed to fail.
    pub(super) fn excused(&self) -> Vec<String> {
        let excused = self.excused.lock();
        excused.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until everything was fetched this many times since the start.
    pub(super) fn wait_for_rounds(&self, rounds: u64, edged: &mut Daemon) -> Result<()> {
        let objects = u64::try_from(self.testbed.sealed.len())?;
        self.wait_for_fetches(rounds * objects, edged)
    }

    /// Waits until this many objects were fetched since the start.
    pub(super) fn wait_for_fetches(&self, fetches: u64, edged: &mut Daemon) -> Result<()> {
        let done = clock::poll(PATIENCE, || {
            let over = self.failed.load(Ordering::Relaxed) || stop::came();
            let dead = edged.runs();
            (over || dead.is_err() || self.fetches() >= fetches).then_some(dead)
        });
        match done {
            Some(Ok(())) if stop::came() => Err(Stop::interrupted()),
            Some(result) => result,
            None => bail!("the reader is stuck: {} fetches", self.fetches()),
        }
    }

    /// Fetches round by round, over IPv4 and IPv6 in turn, and compares every file.
    pub(super) fn run(&self) -> Result<()> {
        let result = self.rounds();
        self.failed.store(result.is_err(), Ordering::Relaxed);
        result
    }

    fn rounds(&self) -> Result<()> {
        let enough = || self.enough.load(Ordering::Relaxed);
        for edge in self.edges.iter().cycle() {
            for one in &self.testbed.sealed {
                let reader = &self.testbed.bed.reader;
                match fetch(reader, one, *edge, &self.out, HANGS_AFTER, enough)? {
                    None => return Ok(()),
                    Some((_, End::Whole)) => {
                        self.fetches.fetch_add(1, Ordering::Relaxed);
                    }
                    Some((_, End::Failed(_, said))) if self.excuses(&said) => {
                        let excused = self.excused.lock();
                        excused.unwrap_or_else(PoisonError::into_inner).push(said);
                    }
                    Some((_, end)) => bail!("{}: a reader {end}", one.object.name),
                }
            }
        }
        Ok(())
    }

    fn excuses(&self, said: &str) -> bool {
        self.excuses.iter().any(|excuse| said.contains(excuse))
    }
}
