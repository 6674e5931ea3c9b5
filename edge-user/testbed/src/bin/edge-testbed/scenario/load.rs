//! Readers as users run them: one in the background that fetches everything again and again, and
//! single ones whose end matters.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, bail};
use edge_testbed::{
    clock,
    daemon::Daemon,
    objects::{self, Sealed, files},
    process,
    stop::{self, Stop},
};

use crate::stage::Stage;

/// How long three rounds may take; they take a few seconds.
const PATIENCE: Duration = Duration::from_mins(3);

/// How a reader's run ended.
pub(super) enum End {
    /// With the very bytes that were published.
    Whole,
    /// With this exit code and these words.
    Failed { code: Option<i32>, said: String },
}

/// Runs `edge get` once, and compares what came of it; none when that is enough. Other bytes than
/// those published are an error, whoever asks.
pub(super) fn fetch(
    stage: &Stage<'_>,
    one: &Sealed,
    edge: SocketAddr,
    out: &PathBuf,
    enough: impl Fn() -> bool,
) -> Result<Option<End>> {
    let mut get = objects::get(&stage.bed.reader, &one.ticket, edge, out);
    let child = process::spawn(get.stdout(Stdio::null()).stderr(Stdio::piped()))?;
    let Some(ended) = process::watch(child, enough)? else {
        return Ok(None);
    };
    if ended.code != Some(0) {
        if out.exists() {
            bail!("a reader failed and left a file: {}", process::line(&get));
        }
        let process::Ended { code, said } = ended;
        return Ok(Some(End::Failed { code, said }));
    }
    if files::sha256(out)? != one.object.sha256 {
        bail!("{} came back altered", one.object.name);
    }
    std::fs::remove_file(out)?;
    Ok(Some(End::Whole))
}

pub(super) struct Load<'a> {
    stage: &'a Stage<'a>,
    edges: [SocketAddr; 2],
    out: PathBuf,
    /// With which words a reader may fail.
    excuses: &'a [&'a str],
    excused: Mutex<Vec<String>>,
    enough: AtomicBool,
    failed: AtomicBool,
    fetches: AtomicU64,
}

/// Ends the load when let go of, on every way out.
pub(super) struct Leash<'a>(&'a Load<'a>);

impl Drop for Leash<'_> {
    fn drop(&mut self) {
        self.0.enough.store(true, Ordering::Relaxed);
    }
}

impl<'a> Load<'a> {
    pub(super) fn new(stage: &'a Stage<'a>) -> Self {
        Self {
            stage,
            edges: stage.bed.services(),
            out: stage.folder.join("out"),
            excuses: &[],
            excused: Mutex::default(),
            enough: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            fetches: AtomicU64::new(0),
        }
    }

    /// A reader that fails with one of these words tries again.
    pub(super) fn excused_by(self, excuses: &'a [&'a str]) -> Self {
        Self { excuses, ..self }
    }

    pub(super) fn leash(&'a self) -> Leash<'a> {
        Leash(self)
    }

    /// Objects that came back whole so far.
    pub(super) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
    }

    /// What readers said that failed for a good reason.
    pub(super) fn excused(&self) -> Vec<String> {
        let excused = self.excused.lock();
        excused.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Until everything was fetched so often since the start.
    pub(super) fn wait_for_rounds(&self, rounds: u64, edged: &mut Daemon) -> Result<()> {
        let objects = u64::try_from(self.stage.sealed.len())?;
        self.wait_for_fetches(rounds * objects, edged)
    }

    /// Until so many objects were fetched since the start.
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
            for one in &self.stage.sealed {
                match fetch(self.stage, one, *edge, &self.out, enough)? {
                    None => return Ok(()),
                    Some(End::Whole) => {
                        self.fetches.fetch_add(1, Ordering::Relaxed);
                    }
                    Some(End::Failed { said, .. }) if self.excuses(&said) => {
                        let excused = self.excused.lock();
                        excused.unwrap_or_else(PoisonError::into_inner).push(said);
                    }
                    Some(End::Failed { code, said }) => {
                        bail!("a reader failed with exit code {code:?}: {said}")
                    }
                }
            }
        }
        Ok(())
    }

    fn excuses(&self, said: &str) -> bool {
        self.excuses.iter().any(|excuse| said.contains(excuse))
    }
}
