//! `edge`: what publishers, readers and operators type.
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use mimalloc::MiMalloc;

/// File to chunks and a ticket.
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
/// What the program says.
mod said;

use edge_user::terminal::one_line;
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
    let arguments = match Arguments::try_parse() {
        Ok(arguments) => arguments,
        Err(refusal) => return answer(&refusal),
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
                said::complain(&format!("edge: {}", one_line(&failed.to_string())));
            }
            failed.exit_code()
        }
    }
}

/// Help and version as clap prints them; what was typed wrong without the tickets in it.
fn answer(refusal: &clap::Error) -> ExitCode {
    if refusal.use_stderr() {
        said::complain(&refusal.render().to_string());
        return u8::try_from(refusal.exit_code()).map_or(ExitCode::FAILURE, ExitCode::from);
    }
    match refusal.print() {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            let failed = Failed::output(error);
            said::complain(&format!("edge: {failed}"));
            failed.exit_code()
        }
        Ok(()) | Err(_) => ExitCode::SUCCESS,
    }
}
