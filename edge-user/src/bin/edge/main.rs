//! `edge`: what publishers, readers and operators type.
#![expect(clippy::print_stderr, reason = "a program talks to its user")]

use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// File to chunks and a ticket.
/// A line on standard output.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::print_text(&format!("{}\n", format_args!($($words)*)))
    };
}

mod seal;
/// Ticket to file.
mod get;
/// What a ticket says.
mod inspect;
/// What an edge has counted.
mod stat;
/// How far away an edge is.
mod ping;
/// Tickets, as they are given on a command line.
mod ticket;
/// The address of an edge, as it is typed.
mod address;
/// Ends a command cleanly on Ctrl-C.
mod interrupt;
/// How far a command has come.
mod progress;
/// Why a command failed, and its exit code.
mod failed;

use failed::Failed;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Seals files, fetches them through edges, and looks at tickets and edges.
#[derive(Parser)]
#[command(name = "edge", version = edge_user::VERSION, propagate_version = true)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Seal(seal::Arguments),
    Get(get::Arguments),
    Inspect(inspect::Arguments),
    Stat(stat::Arguments),
    Ping(ping::Arguments),
}

fn main() -> ExitCode {
    let outcome = match Arguments::parse().command {
        Command::Seal(arguments) => seal::run(&arguments),
        Command::Get(arguments) => get::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Stat(arguments) => stat::run(&arguments),
        Command::Ping(arguments) => ping::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            eprintln!("edge: {failed}");
            failed.exit_code()
        }
    }
}

/// The one object that `--json` prints.
fn print_json(value: &serde_json::Value) -> Result<(), Failed> {
    print_text(&format!("{value}\n"))
}

/// Whoever closed the other end has read enough; that is no error.
fn print_text(text: &str) -> Result<(), Failed> {
    use std::io::{ErrorKind, Write};
    match std::io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Failed::output),
    }
}
