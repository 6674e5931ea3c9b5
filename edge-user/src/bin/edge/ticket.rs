//! Tickets, as they are given on a command line: `-`, `@FILE`, or bare.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use edge_user::seal::ticket::TEXT_BYTES_MAX;
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use zeroize::Zeroizing;

use crate::failed::Failed;

/// The text of a ticket, from where the argument says.
pub(crate) fn read(argument: &str) -> Result<Zeroizing<String>, Failed> {
    if argument == "-" {
        return read_text(io::stdin().lock(), Path::new("standard input"));
    }
    if let Some(path) = argument.strip_prefix('@') {
        if path.starts_with("edge1:") {
            // Not quoted: an error ends up in logs.
            return Err(Failed::usage(
                "behind @ stands the name of a file, not a ticket".to_owned(),
            ));
        }
        let path = Path::new(path);
        let file = File::open(path).map_err(|error| Failed::file("read", path, &error))?;
        return read_text(file, path);
    }
    if argument.starts_with("edge1:") {
        eprintln!(
            "edge: warning: a ticket on the command line can be read by everybody on this \
             machine (`ps`); use @FILE or - (standard input)"
        );
    } else if Path::new(argument).exists() {
        return Err(Failed::usage(format!(
            "{argument} is a file, not a ticket: write @{argument} to read the ticket from it"
        )));
    }
    Ok(Zeroizing::new(argument.trim().to_owned()))
}

fn read_text(source: impl Read, name: &Path) -> Result<Zeroizing<String>, Failed> {
    // Room for all of it at once: a buffer that grows would leave parts of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES_MAX * 2));
    let read = source.take(TEXT_BYTES_MAX as u64).read_to_string(&mut text);
    match read {
        Ok(_) => Ok(Zeroizing::new(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(Failed::new(format!(
            "{} does not hold a ticket",
            name.display()
        ))),
        Err(error) => Err(Failed::file("read", name, &error)),
    }
}

/// A file that waits for its ticket. Dropped before that, a new one is removed again.
pub(crate) struct TicketFile {
    file: File,
    path: PathBuf,
    /// Made by this run, and still without a ticket.
    hollow: bool,
}

impl TicketFile {
    /// Opens it with this mode. One that is there already is only taken with `force`: it may hold
    /// the only key to something.
    pub(crate) fn create(path: &Path, force: bool, mode: u32) -> Result<Self, Failed> {
        let mut options = OpenOptions::new();
        options.write(true).mode(mode);
        let created = options.create_new(true).open(path);
        let hollow = created.is_ok();
        let opened = match created {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && force => {
                options.create_new(false).open(path)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                return Err(Failed::new(format!(
                    "{} exists and may hold the only key to something: name another file, or \
                     --force",
                    path.display()
                )));
            }
            other => other,
        };
        let file = opened.map_err(|error| Failed::file("write", path, &error))?;
        let this = Self {
            file,
            path: path.to_owned(),
            hollow,
        };
        if this.is_regular() {
            // One that was there keeps its mode unless it is told.
            this.file
                .set_permissions(Permissions::from_mode(mode))
                .map_err(|error| Failed::file("protect", path, &error))?;
        }
        Ok(this)
    }

    fn is_regular(&self) -> bool {
        self.file.metadata().is_ok_and(|found| found.is_file())
    }

    /// Writes the ticket and sees it to the disk: without it the sealed object is lost.
    pub(crate) fn write(mut self, text: &str) -> Result<(), Failed> {
        self.write_all(text)
            .map_err(|error| Failed::file("write", &self.path, &error))?;
        self.hollow = false;
        Ok(())
    }

    fn write_all(&mut self, text: &str) -> io::Result<()> {
        let regular = self.is_regular();
        if regular {
            self.file.set_len(0)?;
        }
        self.file.write_all(text.as_bytes())?;
        self.file.write_all(b"\n")?;
        if regular {
            self.file.sync_all()
        } else {
            Ok(())
        }
    }
}

impl Drop for TicketFile {
    fn drop(&mut self) {
        if self.hollow {
            // Left behind it would only be an empty file.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// From here on this process leaves no core dump and cannot be traced: it holds a key.
pub(crate) fn guard_memory() {
    // Neither fails for a process that lowers its own limits; if one did, the other would hold.
    match set_dumpable_behavior(DumpableBehavior::NotDumpable) {
        Ok(()) | Err(_) => {}
    }
    match setrlimit(
        Resource::Core,
        Rlimit {
            current: Some(0),
            maximum: Some(0),
        },
    ) {
        Ok(()) | Err(_) => {}
    }
}
