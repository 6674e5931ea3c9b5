//! `edge seal`: encrypts and uploads a file.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use edge_user::object::ticket::PublicTicket;
use edge_user::seal::destination::Destination;
use edge_user::seal::publish::{make_durable, open_origin, publish};
use edge_user::seal::source::Source;
use serde_json::json;

use crate::error::CommandError;
use crate::print::{print_json, print_text, warn};
use crate::ticket::{TicketFile, guard_memory, path, text};
use crate::{interrupt, progress};

/// Encrypt a file with a new key, upload it to an origin, and write its ticket.
///
/// The origin receives only ciphertext. The ticket contains the key: anyone with the ticket can
/// read the file, and nobody can without it.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The file to encrypt.
    #[arg(value_parser = path())]
    file: PathBuf,
    /// The origin: an existing directory, or file:// and an absolute path.
    #[arg(long, value_name = "DIR", value_parser = text())]
    origin: String,
    /// Ticket file (mode 0600), or - for standard output unless that is a terminal.
    #[arg(long, value_name = "FILE", value_parser = path())]
    ticket_out: PathBuf,
    /// Public ticket file, or -. A public ticket identifies the object, but has no key.
    #[arg(long, value_name = "FILE", value_parser = path())]
    public_ticket_out: Option<PathBuf>,
    /// Overwrite existing ticket files.
    #[arg(long)]
    force: bool,
    /// Print a JSON object, without the key.
    #[arg(long)]
    json: bool,
}

#[expect(clippy::disallowed_methods, reason = "a program may look at the clock")]
pub(crate) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    guard_memory();
    let start = Instant::now();
    let file = Source::open(&arguments.file)?;
    let size_bytes = file.metadata().len();
    let origin = open_origin(&arguments.origin)?;
    // Before the work, in case a ticket cannot be written.
    let destinations = Destinations::resolve(arguments, file.metadata())?;
    let to_standard_output = destinations.to_standard_output();
    let stop = interrupt::stop_on_signal()?;
    let ticket_file = TicketFile::create(destinations.ticket, arguments.force, 0o600)?;
    let public_file = destinations
        .public
        .map(|place| TicketFile::create(place, arguments.force, 0o644))
        .transpose()?;
    let bar = progress::bar(size_bytes, arguments.json);
    let ticket = publish(
        file,
        size_bytes,
        origin.as_ref(),
        stop.requested(),
        &mut |bytes| {
            bar.inc(bytes);
        },
    );
    bar.finish_and_clear();
    let ticket = ticket?;
    let lost = "; the chunks are at the origin, but useless without a ticket: seal the file again";
    make_durable(&arguments.origin).map_err(|error| {
        CommandError::file("sync", Path::new(&arguments.origin), &error).and(lost)
    })?;
    ticket_file
        .write(&ticket.encode())
        .map_err(|failed| failed.and(lost))?;
    let public = ticket.public().clone();
    drop(ticket);
    if let Some(file) = public_file {
        file.write(&public.encode())?;
    }
    report(arguments, &public, start, to_standard_output)
}

struct Destinations {
    ticket: Destination,
    public: Option<Destination>,
}

impl Destinations {
    /// Neither ticket may overwrite the other or the file.
    fn resolve(arguments: &Arguments, file: &Metadata) -> Result<Self, CommandError> {
        let ticket = Destination::resolve(&arguments.ticket_out)?;
        let public = arguments.public_ticket_out.as_deref();
        let public = public.map(Destination::resolve).transpose()?;
        let refused = if ticket.is_terminal() {
            "a ticket contains the key and is not printed to a terminal: choose a file with --ticket-out"
        } else if public
            .as_ref()
            .is_some_and(|public| public.is_same(&ticket))
        {
            "--ticket-out and --public-ticket-out are the same file: the key would be lost"
        } else if ticket.is_file(file) {
            "the ticket would overwrite the file to seal: choose another file"
        } else if public.as_ref().is_some_and(|public| public.is_file(file)) {
            "the public ticket would overwrite the file to seal: choose another file"
        } else {
            let destinations = Self { ticket, public };
            if !(arguments.json && destinations.to_standard_output()) {
                return Ok(destinations);
            }
            "--json and a ticket would both go to standard output: choose a file for the ticket"
        };
        Err(CommandError::usage(refused))
    }

    fn to_standard_output(&self) -> bool {
        let public = self.public.as_ref();
        self.ticket.is_standard_output() || public.is_some_and(Destination::is_standard_output)
    }
}

fn report(
    arguments: &Arguments,
    public: &PublicTicket,
    start: Instant,
    to_standard_output: bool,
) -> Result<(), CommandError> {
    let seconds = start.elapsed().as_secs_f64();
    let (shape, root) = (public.shape(), public.root().to_string());
    let chunks = shape.data_chunks() + shape.index_chunks();
    let name = arguments
        .file
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    if arguments.json {
        return print_json(&json!({
            "name": name,
            "size": shape.size_bytes(),
            "chunks": shape.data_chunks(),
            "index_chunks": shape.index_chunks(),
            "root": root,
            "public_ticket": public.encode(),
            "seconds": seconds,
        }));
    }
    // Separate lines, whatever the names contain.
    let lines = [
        format!(
            "sealed {name} ({}, {})",
            progress::human(shape.size_bytes()),
            progress::count(chunks, "chunk"),
        ),
        format!("root   {root}"),
        format!(
            "ticket {} (anyone with this ticket can read the file)",
            arguments.ticket_out.display()
        ),
    ];
    for line in lines {
        if to_standard_output {
            warn(&line);
        } else {
            print_text(&line)?;
        }
    }
    Ok(())
}
