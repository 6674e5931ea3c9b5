//! Scenarios: each tests one promise of an edge under adverse conditions.

/// Searches the edge for keys and plaintext.
mod blind;
/// Injects faults into a busy edge.
mod faults;
/// Attacks an edge and its readers.
mod attack;

/// Selects rows of a scenario.
mod selection;
/// The background reader.
mod load;
/// A minimal HTTP client for metrics and the admin socket.
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
    /// Search a busy edge for keys and plaintext: memory, log, configuration, answers, origin
    Blind(blind::Blind),
    /// Inject faults into a busy edge, and report its behaviour and recovery
    Faults(faults::Faults),
    /// Attack an edge and its readers, and report the cost and the effect of each attack
    Attack(attack::Attack),
}

pub(crate) fn scenario(which: &Scenario) -> Result<()> {
    match which {
        Scenario::Blind(options) => blind::blind(options),
        Scenario::Faults(options) => faults::faults(options),
        Scenario::Attack(options) => attack::attack(options),
    }
}

/// Stops the work of another thread on drop.
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
