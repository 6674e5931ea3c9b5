//! Where the demo and the scenarios play: objects in an origin, a bed, and an edge on it.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use edge_testbed::{
    bed::Bed,
    daemon::{self, Daemon, SENDERS, Settings},
    machine::Machine,
    objects::{self, Sealed, files},
    rights,
};
use serde_json::Value;

/// What every play lets its user choose.
#[derive(Args)]
pub(crate) struct Options {
    /// Write one JSON object, and nothing else, to standard output
    #[arg(long)]
    json: bool,
    /// How the edge sends its replies
    #[arg(long, value_parser = SENDERS, default_value = "gso")]
    sender: String,
}

/// What came out of a play, and the two ways to tell it.
pub(crate) trait Outcome {
    /// Each promise, and whether it was kept.
    fn promises(&self) -> Vec<(bool, String)>;

    fn ok(&self) -> bool {
        self.promises().iter().all(|(kept, _)| *kept)
    }

    fn to_json(&self) -> Value;
    fn story(&self) -> String;
}

/// Borrows what is needed from the machine, plays, gives it back, and tells what came out.
/// `needs` says what root is needed for, `broken` what it means when a promise was not kept.
pub(crate) fn perform<O: Outcome>(
    options: &Options,
    needs: &str,
    broken: &str,
    play: impl FnOnce(&mut Machine) -> Result<O>,
) -> Result<()> {
    rights::need_root(needs)?;
    let mut machine = Machine::borrow()?;
    let outcome = play(&mut machine)?;
    machine.give_back()?;
    if options.json {
        println!("{}", outcome.to_json());
    } else {
        println!("{}", outcome.story());
    }
    if !outcome.ok() {
        bail!("{broken}, see above");
    }
    Ok(())
}

/// Everything is in place; the edge is not started yet.
pub(crate) struct Stage<'a> {
    pub(crate) bed: &'a Bed,
    /// For files of the run: only root can read it, and it goes with the run.
    pub(crate) folder: PathBuf,
    pub(crate) settings: Settings,
    pub(crate) config: PathBuf,
    pub(crate) sealed: Vec<Sealed>,
    pub(crate) distinct_chunks: u64,
}

impl<'a> Stage<'a> {
    /// Seals what `choose` finds (it may put files of its own into the folder) and makes the
    /// bed.
    pub(crate) fn set(
        options: &Options,
        machine: &'a mut Machine,
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

    /// The edge with the stage's settings as they are now, once it serves.
    pub(crate) fn start_edge(&self) -> Result<Daemon> {
        Daemon::start(&mut self.settings.command(self.bed, &self.config)?)
    }
}
