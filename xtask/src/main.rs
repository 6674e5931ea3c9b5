//! The one door to building, trying and testing Sealedge: `cargo xtask <command>`.
//!
//! A command is a function. What a person asked for goes to standard output, everything on the
//! way to standard error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a program for people to read"
)]

/// Versions of tools, and the packages they come in.
mod versions;

/// Finds a compiler and a linker for the XDP program.
mod toolchain;
/// Installs what is missing.
mod setup;
/// Tells what is missing.
mod doctor;
/// Compiles everything.
mod build;
/// Looks for faults without running anything.
mod check;
/// Runs all tests.
mod test;
/// Starts the demo and the scenarios.
mod testbed;
/// Serves on a real interface.
mod run;
/// Measures the edge beside its ceilings and its peers.
mod bench;
/// Counts instructions.
mod instructions;
/// Looks for inputs that break what the documents say.
mod fuzz;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};
use edge_testbed::stop;

/// Builds, tries and tests Sealedge.
#[derive(Parser)]
#[command(
    name = "cargo xtask",
    bin_name = "cargo xtask",
    version,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Installs what building and trying needs; the other commands call it when something is missing
    Setup,
    /// Tells what of that is there and what is missing, and changes nothing
    Doctor,
    /// Compiles the XDP programs and the release build of `edged` and `edge`
    Build,
    /// Seals files, serves them from an edge without their key, fetches them through XDP
    Demo(testbed::Words),
    /// Proves one promise of the edge on hostile ground
    Scenario(testbed::Words),
    /// Serves on a real interface until Ctrl-C
    Run(run::Run),
    /// Runs all tests, those that need the kernel too
    Test {
        /// Only the searches among them, for longer: more seeds, cases and orders of threads
        #[arg(long, conflicts_with = "filter")]
        nightly: bool,
        /// Passed on to `cargo test`
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Measures the edge beside its ceilings and its peers
    Bench(bench::Bench),
    /// Throws mutated inputs at parsers, decoders and the reader, and compares with the documents
    Fuzz(fuzz::Fuzz),
    /// Looks at format, lints, docs and the project's own rules; never writes
    Check {
        /// Only the project's own rules about its source text
        #[arg(long)]
        source: bool,
    },
    /// Formats the source
    Fix,
}

fn main() -> ExitCode {
    if let Err(error) = fuzz::stand_between() {
        eprintln!("error: {error:#}");
        return ExitCode::FAILURE;
    }
    let cli = Cli::parse();
    stop::exit_code(stop::listen().and_then(|()| dispatch(cli.command)))
}

fn dispatch(command: Option<Command>) -> Result<()> {
    match command {
        None => list(),
        Some(Command::Setup) => setup::setup().map(drop),
        Some(Command::Doctor) => doctor::doctor(),
        Some(Command::Build) => build::build(),
        Some(Command::Demo(words)) => testbed::start("demo", &words),
        Some(Command::Scenario(words)) => testbed::start("scenario", &words),
        Some(Command::Run(options)) => run::run(&options),
        Some(Command::Test { nightly, filter }) => test::test(nightly, &filter),
        Some(Command::Bench(options)) => bench::bench(&options),
        Some(Command::Fuzz(options)) => fuzz::fuzz(&options),
        Some(Command::Check { source: true }) => check::source(),
        Some(Command::Check { source: false }) => check::check(),
        Some(Command::Fix) => check::fix(),
    }
}

fn list() -> Result<()> {
    Ok(Cli::command().print_help()?)
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
        for unknown in ["P9", "P", "P3-", "P3-1", "P1,"] {
            assert!(refused(&format!("bench --only {unknown}")).contains("P3-1k"));
        }
        assert!(refused("bench --sender pigeon").contains("gso, xsk"));
    }
}
