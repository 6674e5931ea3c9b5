//! The demo and the scenarios; `cargo xtask demo` and `cargo xtask scenario` start them.
//!
//! Results go to standard output, progress to standard error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]

/// Sends real files through an edge.
mod demo;
/// Tests promises of the edge under adverse conditions.
mod scenario;
/// Runs one reader.
mod reader;
/// The testbed of both.
mod testbed;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use edge_testbed::stop;

/// Tests Sealedge in network namespaces of its own.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Seal files, serve them from an edge without their keys, and fetch them through XDP
    Demo(demo::Demo),
    /// Test one promise of the edge under attack, faults or inspection
    #[command(subcommand)]
    Scenario(scenario::Scenario),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    stop::exit_code(stop::listen().and_then(|()| dispatch(&cli.command)))
}

fn dispatch(command: &Command) -> Result<()> {
    match command {
        Command::Demo(options) => demo::demo(options),
        Command::Scenario(which) => scenario::scenario(which),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invalid_choice_is_a_usage_error() {
        let refused = |words: &str| {
            let words = ["cargo xtask"].into_iter().chain(words.split(' '));
            let error = Cli::try_parse_from(words).err().unwrap();
            assert_eq!(error.exit_code(), 2);
            error.to_string()
        };
        assert!(refused("demo --sender pigeon").contains("gso, xsk"));
        assert!(refused("scenario faults --only kiled").contains("'killed'"));
        assert!(refused("scenario attack --only edge-mut").contains("'edge-mute'"));
    }
}
