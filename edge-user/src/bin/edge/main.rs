//! `edge`: the command line of publishers, readers and operators.
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// Encrypts and uploads a file.
mod seal;
/// Fetches and decrypts an object.
mod get;
/// Shows the content of a ticket.
mod inspect;
/// Shows the counters of an edge.
mod stat;
/// Measures round-trip times.
mod ping;
/// Tickets on the command line, and their redaction.
mod ticket;
/// The address of an edge on the command line.
mod address;
/// Stops a command on Ctrl-C.
mod interrupt;
/// Progress bar.
mod progress;
/// Why a command failed, and its exit code.
mod error;
/// Output, with escapes and redaction.
mod print;

use edge_user::terminal::one_line;
use error::CommandError;

#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

/// Seal files, fetch them from edges, and inspect tickets and edges.
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
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(error) => return print_clap(&error),
    };
    let outcome = match arguments.command {
        Command::Seal(arguments) => seal::run(&arguments),
        Command::Get(arguments) => get::run(&arguments),
        Command::Inspect(arguments) => inspect::run(&arguments),
        Command::Stat(arguments) => stat::run(&arguments),
        Command::Ping(arguments) => ping::run(&arguments),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(failed) => {
            if !failed.is_silent() {
                print::warn(&format!("edge: {}", one_line(&failed.to_string())));
            }
            failed.exit_code()
        }
    }
}

/// Prints help and version unchanged, and usage errors with tickets redacted.
fn print_clap(message: &clap::Error) -> ExitCode {
    if message.use_stderr() {
        print::warn(&message.render().to_string());
        return u8::try_from(message.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
    }
    match message.print() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let failed = CommandError::output(error);
            print::warn(&format!("edge: {failed}"));
            failed.exit_code()
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}
