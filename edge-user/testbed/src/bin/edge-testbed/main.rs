//! The demo and the scenarios, as `cargo xtask demo` and `cargo xtask scenario` start them.
//!
//! Results go to standard output, everything on the way to standard error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people to read"
)]

/// Shows the whole way of a file.
mod demo;
/// Proves promises on hostile ground.
mod scenario;
/// One reader, and its end.
mod reader;
/// Where both run.
mod testbed;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use edge_testbed::stop;

/// Tries Sealedge in network namespaces of its own.
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
    /// Seals files, serves them from an edge without their key, fetches them through XDP
    Demo(demo::Demo),
    /// Proves one promise of the edge on hostile ground
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
    fn a_choice_that_is_none_is_a_wrong_command_line() {
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
