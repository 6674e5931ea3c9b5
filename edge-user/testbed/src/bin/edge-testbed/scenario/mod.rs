//! The main job on hostile ground: one scenario each for what an edge promises there.

/// Looks for keys and plaintext wherever the edge could have them.
mod blind;
/// Breaks one thing after the other under an edge at work.
mod faults;
/// Floods, forgeries and lies, towards the edge and towards its readers.
mod attack;

/// Which rows of a scenario are run.
mod selection;
/// The reader in the background.
mod load;
/// As much of an HTTP client as asking an edge takes.
mod http;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use clap::Subcommand;
use edge_testbed::objects::files;
use rand::Rng as _;
use rand::rngs::SmallRng;

#[derive(Subcommand)]
pub(crate) enum Scenario {
    /// Searches a busy edge for keys and plaintext: memory, log, configuration, answers, origin
    Blind(blind::Blind),
    /// Breaks one thing after the other under an edge at work, and tells how that went
    Faults(faults::Faults),
    /// Attacks an edge and its readers, and tells what each attack cost and what it changed
    Attack(attack::Attack),
}

pub(crate) fn scenario(which: &Scenario) -> Result<()> {
    match which {
        Scenario::Blind(options) => blind::blind(options),
        Scenario::Faults(options) => faults::faults(options),
        Scenario::Attack(options) => attack::attack(options),
    }
}

/// Ends what goes on in another thread, on every way out.
struct StopGuard<F: Fn()>(F);

impl<F: Fn()> Drop for StopGuard<F> {
    fn drop(&mut self) {
        self.0();
    }
}

/// Files of random bytes.
fn random_files(
    folder: &Path,
    name: &str,
    bytes: usize,
    count: usize,
    rng: &mut SmallRng,
) -> Result<Vec<files::Object>> {
    let mut content = vec![0; bytes];
    let write = |number| {
        rng.fill_bytes(&mut content);
        let file = folder.join(format!("{name}{number}"));
        fs::write(&file, &content).with_context(|| format!("cannot write {}", file.display()))?;
        Ok(file)
    };
    let written = (0..count).map(write).collect::<Result<Vec<PathBuf>>>()?;
    files::choose(&written, folder)
}
