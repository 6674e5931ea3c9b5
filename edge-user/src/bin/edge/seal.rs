//! `edge seal`: file to chunks and a ticket.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use edge_user::seal::publish::{make_durable, open_origin, publish};
use edge_user::seal::ticket::PublicTicket;
use serde_json::json;

use crate::failed::Failed;
use crate::said::{print_json, say};
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
    /// Where to write the ticket (mode 0600).
    #[arg(long, value_name = "FILE", value_parser = path())]
    ticket_out: PathBuf,
    /// Where to write the public ticket, which has no key and is what operators need.
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
    let path = &arguments.file;
    let unreadable = |error| Failed::file("read", path, &error);
    let file = File::open(path).map_err(unreadable)?;
    let found = file.metadata().map_err(unreadable)?;
    if !found.is_file() {
        return Err(Failed::new(format!(
            "{} is not a regular file",
            path.display()
        )));
    }
    let size_bytes = found.len();
    let origin = open_origin(&arguments.origin)?;
    let stop = interrupt::stop_on_signal()?;
    // Before the work, so that it is not done for a ticket that cannot be written.
    let ticket_file = TicketFile::create(&arguments.ticket_out, arguments.force, 0o600)?;
    if ticket_file.would_replace(path) {
        return Err(Failed::usage(
            "the ticket would take the place of the file that is sealed: name another file",
        ));
    }
    let public_file = match &arguments.public_ticket_out {
        Some(public) if ticket_file.would_replace(public) => {
            return Err(Failed::usage(
                "--ticket-out and --public-ticket-out name one file: the key would be lost",
            ));
        }
        Some(public) => Some(TicketFile::create(public, arguments.force, 0o644)?),
        None => None,
    };
    if public_file
        .as_ref()
        .is_some_and(|file| file.would_replace(path))
    {
        return Err(Failed::usage(
            "the public ticket would take the place of the file that is sealed: name another file",
        ));
    }
    let bar = progress::bar(size_bytes, arguments.json);
    let ticket = publish(
        file,
        size_bytes,
        origin.as_ref(),
        stop.asked(),
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
    if let Some(file) = public_file {
        file.write(&ticket.public().encode())?;
    }
    report(arguments, ticket.public(), start)
}

fn report(arguments: &Arguments, public: &PublicTicket, start: Instant) -> Result<(), Failed> {
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
    say!(
        "sealed {name}: {} in {} chunks and {} index chunks, {}",
        progress::human(shape.size_bytes()),
        shape.data_chunks(),
        shape.index_chunks(),
        progress::rate(shape.size_bytes(), seconds),
    )?;
    say!("root   {root}")?;
    say!(
        "ticket {} (a key: hand it only to who may read the object)",
        arguments.ticket_out.display()
    )?;
    Ok(())
}
