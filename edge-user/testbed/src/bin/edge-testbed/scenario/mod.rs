//! The main job on hostile ground: one scenario each for what an edge promises there.

/// Looks for keys and plaintext wherever the edge could have them.
mod blind;
/// Breaks one thing after the other under an edge at work.
mod faults;
/// Floods, forgeries and lies, towards the edge and towards its readers.
mod attack;

/// The reader in the background.
mod load;
/// Numbers that nobody chose.
mod dice;
/// As much of an HTTP client as asking an edge takes.
mod http;

use anyhow::Result;
use clap::Subcommand;

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
