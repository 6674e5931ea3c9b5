//! A reader that fetches everything again and again while the search goes on.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};

use crate::clock;
use crate::daemon::Daemon;
use crate::objects::{self, files};
use crate::process;
use crate::stage::Stage;
use crate::stop::{self, Stop};

/// How long three rounds may take; they take a few seconds.
const PATIENCE: Duration = Duration::from_mins(3);

pub(super) struct Load<'a> {
    stage: &'a Stage<'a>,
    edges: [SocketAddr; 2],
    out: PathBuf,
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
    pub(super) fn new(stage: &'a Stage<'a>) -> Result<Self> {
        Ok(Self {
            stage,
            edges: objects::addresses(stage.ground)?,
            out: stage.folder.join("out"),
            enough: AtomicBool::new(false),
            failed: AtomicBool::new(false),
            fetches: AtomicU64::new(0),
        })
    }

    pub(super) fn leash(&'a self) -> Leash<'a> {
        Leash(self)
    }

    /// Objects that came back whole so far.
    pub(super) fn fetches(&self) -> u64 {
        self.fetches.load(Ordering::Relaxed)
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
        for edge in self.edges.iter().cycle() {
            for one in &self.stage.sealed {
                let mut get =
                    objects::get(&self.stage.ground.reader, &one.ticket, *edge, &self.out);
                let Some(status) = self.wait(&mut get)? else {
                    return Ok(());
                };
                if !status.success() {
                    bail!("failed ({status}): {}", process::line(&get));
                }
                if files::sha256(&self.out)? != one.object.sha256 {
                    bail!("{} came back altered", one.object.name);
                }
                std::fs::remove_file(&self.out)?;
                self.fetches.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }

    /// How a child ended; none when it was ended because that is enough.
    fn wait(&self, command: &mut Command) -> Result<Option<ExitStatus>> {
        let mut child = process::spawn(command.stdout(Stdio::null()))?;
        loop {
            if let Some(status) = child.try_wait()? {
                return Ok(Some(status));
            }
            if self.enough.load(Ordering::Relaxed) || stop::came() {
                process::end(&mut child);
                return Ok(None);
            }
            clock::pause();
        }
    }
}
