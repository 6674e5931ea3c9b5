//! Builds, tests and runs Sealedge: `cargo xtask <command>`.
//!
//! A command is a function. Results go to standard output, progress to standard error.
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command-line program"
)]

/// Versions of tools, and the packages they come in.
mod versions;

/// Finds a compiler and a linker for the XDP program.
mod toolchain;
/// Installs missing tools.
mod setup;
/// Lists missing tools.
mod doctor;
/// Compiles everything.
mod build;
/// Static checks.
mod check;
/// Runs all tests.
mod test;
/// Starts the demo and the scenarios.
mod testbed;
/// Serves on a network interface.
mod run;
/// Benchmarks the edge, its ceilings and its peers.
mod bench;
/// Counts instructions.
mod instructions;
/// Fuzzes parsers, decoders and the reader.
mod fuzz;

use std::process::ExitCode;

use anyhow::Result;
use clap::{CommandFactory as _, Parser, Subcommand};
use edge_testbed::stop;

/// Builds, tests and runs Sealedge
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
    /// Install the tools to build and test with; other commands run this when one is missing
    Setup,
    /// List the required tools and kernel features, and which are missing
    Doctor,
    /// Build the XDP programs, and `edged` and `edge` in release mode
    Build,
    /// Seal files, serve them from an edge without their keys, and fetch them through XDP
    Demo(testbed::Words),
    /// Test one promise of the edge under attack, faults or inspection
    Scenario(testbed::Words),
    /// Serve on a network interface until Ctrl-C
    Run(run::Run),
    /// Run all tests, including those that need the kernel
    Test {
        /// Run only the randomised and exhaustive tests, for longer
        #[arg(long, conflicts_with = "filter")]
        nightly: bool,
        /// Arguments for `cargo test`
        #[arg(last = true)]
        filter: Vec<String>,
    },
    /// Benchmark the edge, its ceilings and its peers
    Bench(bench::Bench),
    Fuzz(fuzz::Fuzz),
    /// Check format, lints, docs and the project's own rules; writes nothing
    Check {
        /// Check only the project's own rules about source text
        #[arg(long)]
        source: bool,
    },
    /// Format the source
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
    fn an_invalid_choice_is_a_usage_error() {
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
