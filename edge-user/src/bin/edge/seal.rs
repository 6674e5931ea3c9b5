//! `edge seal`: file to chunks and a ticket.

use std::fs::Metadata;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use edge_user::seal::destination::Destination;
use edge_user::seal::publish::{make_durable, open_origin, publish};
use edge_user::seal::source::Source;
use edge_user::seal::ticket::PublicTicket;
use serde_json::json;

use crate::failed::Failed;
use crate::said::{complain, print_json, print_text};
use crate::ticket::{TicketFile, guard_memory, path, text};
use crate::{interrupt, progress};

/// Encrypt a file under a new key, upload it to an origin, and write its ticket.
///
/// The origin only ever gets ciphertext. The ticket is the key: whoever has it can read the
/// object, and without it nobody can.
#[derive(Args)]
pub(crate) struct Arguments {
    /// The file to seal.
    #[arg(value_parser = path())]
    file: PathBuf,
    /// The origin: an existing directory, or file:// and its absolute path.
    #[arg(long, value_name = "DIR", value_parser = text())]
    origin: String,
    /// Where to write the ticket (mode 0600), or - for a standard output that is no terminal.
    #[arg(long, value_name = "FILE", value_parser = path())]
    ticket_out: PathBuf,
    /// Where to write the public ticket, which has no key and is what operators need, or -.
    #[arg(long, value_name = "FILE", value_parser = path())]
    public_ticket_out: Option<PathBuf>,
    /// Overwrite ticket files that exist.
    #[arg(long)]
    force: bool,
    /// Print one JSON object. It never holds the key.
    #[arg(long)]
    json: bool,
}

#[expect(clippy::disallowed_methods, reason = "a program may look at the clock")]
pub(crate) fn run(arguments: &Arguments) -> Result<(), Failed> {
    guard_memory();
    let start = Instant::now();
    let file = Source::open(&arguments.file)?;
    let size_bytes = file.found().len();
    let origin = open_origin(&arguments.origin)?;
    // Before the work, so that it is not done for a ticket that cannot be written.
    let places = Places::find(arguments, file.found())?;
    let to_standard_output = places.to_standard_output();
    let stop = interrupt::stop_on_signal()?;
    let ticket_file = TicketFile::begin(places.ticket, arguments.force, 0o600)?;
    let public_file = places
        .public
        .map(|place| TicketFile::begin(place, arguments.force, 0o644))
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
    let unread = "; the chunks are at the origin, and without a ticket nobody can read them: seal \
                  the file again";
    make_durable(&arguments.origin)
        .map_err(|error| Failed::file("sync", Path::new(&arguments.origin), &error).and(unread))?;
    ticket_file
        .write(&ticket.encode())
        .map_err(|failed| failed.and(unread))?;
    let public = ticket.public().clone();
    drop(ticket);
    if let Some(file) = public_file {
        file.write(&public.encode())?;
    }
    report(arguments, &public, start, to_standard_output)
}

/// Where the tickets go.
struct Places {
    ticket: Destination,
    public: Option<Destination>,
}

impl Places {
    /// None of the two takes the place of the other or of the file that is sealed.
    fn find(arguments: &Arguments, file: &Metadata) -> Result<Self, Failed> {
        let ticket = Destination::find(&arguments.ticket_out)?;
        let public = arguments.public_ticket_out.as_deref();
        let public = public.map(Destination::find).transpose()?;
        let refused = if ticket.is_terminal() {
            "a ticket is a key and is not shown on a terminal: name a file with --ticket-out"
        } else if public
            .as_ref()
            .is_some_and(|public| public.is_same(&ticket))
        {
            "--ticket-out and --public-ticket-out name one file: the key would be lost"
        } else if ticket.is_file(file) {
            "the ticket would take the place of the file that is sealed: name another file"
        } else if public.as_ref().is_some_and(|public| public.is_file(file)) {
            "the public ticket would take the place of the file that is sealed: name another file"
        } else {
            let places = Self { ticket, public };
            if !(arguments.json && places.to_standard_output()) {
                return Ok(places);
            }
            "--json prints to standard output, where a ticket would go: name a file for it"
        };
        Err(Failed::usage(refused))
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
) -> Result<(), Failed> {
    let seconds = start.elapsed().as_secs_f64();
    let (shape, root) = (public.shape(), public.root().to_string());
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
    // Each on a line of its own, whatever the names have in them.
    let lines = [
        format!(
            "sealed {name}: {} in {} chunks and {} index chunks, {}",
            progress::human(shape.size_bytes()),
            shape.data_chunks(),
            shape.index_chunks(),
            progress::rate(shape.size_bytes(), seconds),
        ),
        format!("root   {root}"),
        format!(
            "ticket {} (a key: hand it only to who may read the object)",
            arguments.ticket_out.display()
        ),
    ];
    for line in lines {
        if to_standard_output {
            complain(&line);
        } else {
            print_text(&line)?;
        }
    }
    Ok(())
}
