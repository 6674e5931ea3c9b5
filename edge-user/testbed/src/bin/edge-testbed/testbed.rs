//! The testbed of the demo and the scenarios: objects at an origin, a bed, and an edge on it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use edge_testbed::{
    bed::Bed,
    daemon::{self, Daemon, SENDERS, Settings},
    host_guard::HostGuard,
    objects::{self, Sealed, files},
    privileges,
};
use serde::Serialize;
use serde_json::Value;

/// Options of every run.
#[derive(Args)]
pub(crate) struct Options {
    /// Print a JSON object instead of text
    #[arg(long)]
    json: bool,
    /// How the edge sends its replies
    #[arg(long, value_parser = SENDERS, default_value = "gso")]
    sender: String,
}

/// Whether it was kept, and what it is or how it was broken.
pub(crate) type Promise = (bool, String);

/// The result of a run, as JSON and as text for newcomers.
pub(crate) trait Outcome: Serialize {
    fn promises(&self) -> Vec<Promise>;
    fn story(&self) -> String;

    fn ok(&self) -> bool {
        self.promises().iter().all(|(kept, _)| *kept)
    }

    fn to_json(&self) -> Value {
        let mut object = serde_json::to_value(self).expect("a tree of plain values");
        object["ok"] = self.ok().into();
        object["promises"] = serde_json::json!(self.promises());
        object
    }

    fn to_text(&self) -> String {
        let promises = self.promises().into_iter().map(|(kept, promise)| {
            let word = if kept { "ok   " } else { "WRONG" };
            format!("\n  {word}  {promise}")
        });
        self.story() + &promises.collect::<String>()
    }
}

/// Runs with resources borrowed from the host, returns them and prints the result. `needs` is what
/// root is needed for, `broken` the error if a promise was broken.
pub(crate) fn perform<O: Outcome>(
    options: &Options,
    needs: &str,
    broken: &str,
    run: impl FnOnce(&mut HostGuard) -> Result<O>,
) -> Result<()> {
    privileges::need_root(needs)?;
    let mut machine = HostGuard::borrow()?;
    let outcome = run(&mut machine)?;
    machine.give_back()?;
    if options.json {
        println!("{}", outcome.to_json());
    } else {
        println!("{}", outcome.to_text());
    }
    if !outcome.ok() {
        bail!("{broken}, see above");
    }
    Ok(())
}

/// Everything but the running edge.
pub(crate) struct Testbed<'a> {
    pub(crate) bed: &'a Bed,
    /// For files of the run: only root can read it, and it is removed afterwards.
    pub(crate) folder: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) config: PathBuf,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) distinct_chunks: u64,
}

impl<'a> Testbed<'a> {
    /// Seals the files of `choose` (which may create some in the folder) and creates the bed.
    pub(crate) fn new(
        options: &Options,
        machine: &'a mut HostGuard,
        choose: impl FnOnce(&Path) -> Result<Vec<files::Object>>,
    ) -> Result<Self> {
        let folder = machine.folder()?;
        let chosen = choose(&folder)?;
        let origin = folder.join("origin");
        std::fs::create_dir(&origin)?;
        let sealed = objects::seal(chosen, &folder, &origin)?;
        let distinct_chunks = files::count(&origin.join("chunks"))?;

        let arena_bytes = objects::arena_bytes(distinct_chunks);
        machine.hugepages(daemon::hugepage_bytes(arena_bytes, 1))?;
        let bed = machine.bed()?;
        let settings = Settings {
            arena_bytes,
            sender: options.sender.clone(),
            ..Settings::on(bed, &folder)
        };
        Ok(Self {
            bed,
            config: folder.join("edged.toml"),
            folder,
            settings,
            sealed,
            distinct_chunks,
        })
    }

    /// Starts the edge with the current settings.
    pub(crate) fn start_edge(&self) -> Result<Daemon> {
        Daemon::start(&mut self.settings.command(self.bed, &self.config)?)
    }
}
