//! `edge get`: fetches and decrypts an object.

use std::fmt::Write;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::Range;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use edge_user::client::drive::{Sink, fetch};
use edge_user::client::failure::Failure;
use edge_user::object::tree::Verified;
use edge_user::seal::destination::Destination;
use edge_user::seal::open::Opener;
use edge_user::seal::output::Output;
use edge_user::seal::ticket::Ticket;
use indicatif::ProgressBar;
use serde_json::json;

use crate::error::CommandError;
use crate::print::{print_json, print_text, warn};
use crate::{address, interrupt, progress, ticket};

/// Fetch an object from an edge, verify and decrypt it.
///
/// A file appears only when it is complete. Standard output (-), a pipe or a device receives the
/// verified data as it arrives; if the transfer fails, the output is truncated and the exit code
/// is not 0.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The ticket: @FILE, - for standard input, or the ticket itself (visible to other users in
    /// `ps`).
    ticket: String,
    /// Address of the edge: ADDR or ADDR:PORT.
    #[arg(long, value_name = "ADDR")]
    edge: String,
    /// Output: a file, a pipe, a device, or - for standard output.
    #[arg(short, long, value_name = "FILE", value_parser = ticket::path())]
    output: PathBuf,
    /// Give up after this long without progress [default: 150 s once data has arrived, less before].
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..=86400))]
    timeout: Option<u64>,
    /// Print a JSON object, with the SHA-256 of the output. Not with -o -.
    #[arg(long)]
    json: bool,
}

#[expect(clippy::disallowed_methods, reason = "a program may look at the clock")]
pub(crate) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    ticket::guard_memory();
    let start = Instant::now();
    let ticket = Ticket::decode(&ticket::read(&arguments.ticket)?)?;
    let destination = Destination::resolve(&arguments.output)?;
    if ticket::is_in(&arguments.ticket, &destination) {
        return Err(CommandError::usage(
            "the output would overwrite the ticket: choose another file with -o",
        ));
    }
    let is_standard_output = destination.is_standard_output();
    if arguments.json && is_standard_output {
        return Err(CommandError::usage(
            "--json and the object would both go to standard output: choose a file with -o",
        ));
    }
    let quiet = arguments.json || destination.is_terminal();
    let edge = address::resolve(&arguments.edge)?;
    let size_bytes = ticket.public().shape().size_bytes();
    let stop = interrupt::stop_on_signal()?;
    let mut reader = Reader {
        opener: Opener::new(&ticket),
        output: Output::create(destination, arguments.json)?,
        bar: progress::bar(size_bytes, quiet),
    };
    let timeout = arguments.timeout.map(Duration::from_secs);
    let fetched = fetch(&edge.all, ticket.public(), &mut reader, &stop, timeout);
    let Reader { output, bar, .. } = reader;
    bar.finish_and_clear();
    // Wipe the key before anything that may block.
    drop(ticket);
    let (stats, answered) = fetched.map_err(|failure| {
        let Failure::Sink(error) = &failure else {
            return CommandError::with_edge(&failure, &edge);
        };
        if is_standard_output && error.kind() == ErrorKind::BrokenPipe {
            return CommandError::closed();
        }
        CommandError::file("write", &arguments.output, error)
    })?;
    let digest = output.commit()?;
    let edge = answered.unwrap_or(edge.all[0]);

    let seconds = start.elapsed().as_secs_f64();
    if let Some(digest) = digest {
        return print_json(&json!({
            "size": size_bytes,
            "sha256": hex(&digest),
            "chunks": stats.chunks,
            "requests": stats.requests,
            "retransmitted": stats.retransmitted,
            "bytes_received": stats.bytes_received,
            "seconds": seconds,
            "edge": edge.to_string(),
        }));
    }
    let line = report(arguments, edge, size_bytes, seconds, stats.retransmitted);
    if is_standard_output {
        warn(&line);
        return Ok(());
    }
    print_text(&line)
}

fn report(
    arguments: &Arguments,
    edge: SocketAddr,
    size_bytes: u64,
    seconds: f64,
    retransmitted: u64,
) -> String {
    let mut line = format!(
        "{}: {} from {edge} in {seconds:.2} s ({}), verified",
        arguments.output.display(),
        progress::human(size_bytes),
        progress::rate(size_bytes, seconds),
    );
    if retransmitted > 0 {
        write!(line, ", {retransmitted} segments retransmitted").expect("a string grows");
    }
    line
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut out, byte| {
        write!(out, "{byte:02x}").expect("a string grows");
        out
    })
}

/// Decrypts each verified chunk and writes it.
struct Reader<'ticket> {
    opener: Opener<'ticket>,
    output: Output,
    bar: ProgressBar,
}

impl Sink for Reader<'_> {
    fn expect(&mut self, bytes: Range<u64>) -> io::Result<()> {
        self.output.reserve(bytes)
    }

    fn take(&mut self, index: u64, chunk: Verified) -> io::Result<Vec<u8>> {
        let plaintext = self.opener.open(index, chunk);
        self.output.write(index, &plaintext)?;
        self.bar.inc(plaintext.len() as u64);
        Ok(plaintext)
    }
}
