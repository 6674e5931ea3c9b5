//! `edge-bench`: load, ceilings and reports, to measure an edge and to size machines with.

use std::fmt::Display;
use std::io::{Write, stderr};
use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};
use edge_bench::{capacity, ceiling, cold, host, load, output, report, seed, stalls, verdict};
use edge_user::terminal::lines;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Measures an edge beside its ceilings and its peers, and reports it.
#[derive(Parser)]
#[command(name = "edge-bench", version, disable_help_subcommand = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Makes random objects in an origin, and a file of public tickets to them
    Seed(seed::Seed),
    /// Fetches from an edge and tells how fast it answered, as one JSON object
    Load(load::Load),
    /// Finds the highest rate that an edge holds within limits of loss and latency
    Capacity(capacity::Capacity),
    /// Asks for single segments from many sources and tells how fast they came, likewise
    Singles(load::Singles),
    /// Draws what the generators would ask for, for other generators
    Draw(load::Draw),
    /// Sends what an edge must not answer, or only briefly, as fast as it can
    Flood(load::Flood),
    /// Times the XDP program on some packets, by the kernel's test runs, in nanoseconds
    Verdicts(verdict::Verdicts),
    /// Times it on hits, with another chunk and another source in each run, beside a bare lookup
    Cold(cold::Cold),
    /// Serves as a ceiling does: as fast as can be, and of no other use
    Ceiling(ceiling::Ceiling),
    /// Tells what a report says of a host
    Host(host::Host),
    /// Tells for how long CPUs stand still that have nothing to do but to look at the clock
    Stalls(stalls::Stalls),
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
        Command::Load(options) => say(&load::load(&options)?),
        Command::Singles(options) => say(&load::singles(&options)?),
        Command::Flood(options) => say(&load::flood(&options)?),
        Command::Verdicts(options) => say(&verdict::verdicts(&options)?),
        Command::Cold(options) => say(&cold::cold(&options)?),
        Command::Capacity(options) => say(&capacity::capacity(&options)?),
        Command::Host(options) => say(&host::host(&options)?),
        Command::Stalls(options) => say(&stalls::stalls(&options)?),
        Command::Draw(options) => load::draw(&options),
        Command::Ceiling(options) => ceiling::ceiling(&options),
        Command::Report(command) => report::run(&command),
    }
}

/// One line on standard output.
fn say(result: &impl Display) -> Result<()> {
    output::print(&format!("{result}\n"))
}
