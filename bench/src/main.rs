//! `edge-bench`: load, ceilings and reports, to measure an edge and to size machines with.

use std::fmt::Display;
use std::io::{Write, stderr};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use edge_bench::{
    capacity, ceiling, cold, core_to_core, host, load, output, report, seed, stalls, verdict,
};
use edge_user::terminal::lines;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measure an edge, its ceilings and its peers, and report the results.
#[derive(Parser)]
#[command(name = "edge-bench", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Seal random objects into an origin, and write their public tickets to a file
    Seed(seed::Seed),
    /// Fetch chunks from an edge and print throughput and latency as a JSON object
    Load(load::Load),
    /// Find the highest rate that an edge sustains within limits of loss and latency
    Capacity(capacity::Capacity),
    /// Fetch single segments from many source addresses, and print the same
    Singles(load::Singles),
    /// Write the sequence of requests of a generator, for other generators
    Draw(load::Draw),
    /// Flood an edge with HELLOs or invalid datagrams
    Flood(load::Flood),
    /// Measure the XDP program on sample packets with the kernel's test runs, in nanoseconds
    Verdicts(verdict::Verdicts),
    /// Measure it on hits with cold caches: another chunk and source per run, and a bare map lookup
    Cold(cold::Cold),
    /// Run a ceiling: a minimal server that answers as fast as possible
    Ceiling(ceiling::Ceiling),
    /// Print the facts about this host that a report contains
    Host(host::Host),
    /// Measure stalls on idle CPUs
    Stalls(stalls::Stalls),
    /// Measure how long a cache line takes between two CPUs
    CoreToCore(core_to_core::CoreToCore),
    #[command(flatten)]
    Report(report::Command),
}

/// As clap has it.
const WRONG_COMMAND_LINE: u8 = 2;

fn main() -> ExitCode {
    match run(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The exit code says it too.
            let text = lines(&format!("error: {error:#}"));
            let (Ok(()) | Err(_)) = stderr().write_all(text.as_bytes());
            if error.is::<capacity::Unconfirmed>() {
                return ExitCode::from(WRONG_COMMAND_LINE);
            }
            ExitCode::from(report::exit_code(&error))
        }
    }
}

fn run(command: Command) -> Result<()> {
    match command {
        Command::Seed(options) => seed::seed(&options),
        Command::Load(options) => print(&load::load(&options)?),
        Command::Singles(options) => print(&load::singles(&options)?),
        Command::Flood(options) => print(&load::flood(&options)?),
        Command::Verdicts(options) => print(&verdict::verdicts(&options)?),
        Command::Cold(options) => print(&cold::cold(&options)?),
        Command::Capacity(options) => print(&capacity::capacity(&options)?),
        Command::Host(options) => print(&host::host(&options)?),
        Command::Stalls(options) => print(&stalls::stalls(&options)?),
        Command::CoreToCore(options) => print(&core_to_core::core_to_core(&options)?),
        Command::Draw(options) => load::draw(&options),
        Command::Ceiling(options) => ceiling::ceiling(&options),
        Command::Report(command) => report::run(&command),
    }
}

/// One line on standard output.
fn print(result: &impl Display) -> Result<()> {
    output::print(&format!("{result}\n"))
}
