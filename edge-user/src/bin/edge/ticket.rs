//! Tickets on the command line (`-`, `@FILE`, or the ticket itself), and their redaction.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, StringValueParser, TypedValueParser};
use edge_user::seal::destination::{Content, Destination, OutputFile};
use edge_user::seal::ticket::{AnyTicket, TEXT_BYTES_MAX};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use zeroize::Zeroizing;

use crate::error::CommandError;
use crate::print::warn;

const PREFIX: &str = "edge1:";
/// Replaces a possible ticket in an error.
const REDACTED: &str = "(not shown: it may be a ticket)";
/// A shorter fragment of a ticket leaves more than 100 bits of the key unknown.
const FRAGMENT_BYTES: usize = 24;
/// More words and numbers than a name has in a fragment.
const FRAGMENT_WORDS: usize = 9;
/// Positions that are tried as the start of a path.
const PATH_STARTS_MAX: usize = 16;

/// Reads the ticket an argument refers to.
pub(crate) fn read(argument: &str) -> Result<Zeroizing<String>, CommandError> {
    if argument == "-" {
        let name = Path::new("standard input");
        // Not through the buffer of `stdin()`, which is not wiped.
        let source = io::stdin().as_fd().try_clone_to_owned();
        let source = source.map_err(|error| CommandError::file("read", name, &error))?;
        return read_text(File::from(source), name);
    }
    if let Some(path) = argument.strip_prefix('@') {
        if path.trim_start().starts_with(PREFIX) {
            // Not quoted, as errors end up in logs.
            return Err(CommandError::usage(
                "@ must be followed by a file name, not by a ticket".to_owned(),
            ));
        }
        let path = Path::new(path);
        let file = File::open(path).map_err(|error| CommandError::file("read", path, &error))?;
        return read_text(file, path);
    }
    if argument.trim_start().starts_with(PREFIX) {
        warn(
            "edge: warning: a ticket on the command line is visible to all users of this host \
             (`ps`); use @FILE or - (standard input)",
        );
    } else if Path::new(argument).exists() {
        return Err(CommandError::usage(format!(
            "{argument} is a file, not a ticket: use @{argument} to read the ticket from it"
        )));
    }
    Ok(Zeroizing::new(argument.trim().to_owned()))
}

/// Whether the ticket is read from the destination.
pub(crate) fn is_in(argument: &str, destination: &Destination) -> bool {
    let file = argument.strip_prefix('@').map(Path::new);
    file.is_some_and(|file| {
        file.metadata()
            .is_ok_and(|found| destination.is_file(&found))
    })
}

/// Redacts possible tickets and fragments of them: errors end up in logs, and a ticket may be pasted
/// in the wrong place, cut in two or with a typo. Existing paths are kept.
pub(crate) fn redact(text: &str) -> String {
    let in_ticket = |char: char| char.is_ascii_alphanumeric() || char == '-' || char == '_';
    let mut out = String::with_capacity(text.len());
    let mut at = 0;
    while let Some(found) = text[at..].find(in_ticket) {
        let start = at + found;
        let run = &text[start..];
        let run = &run[..run.find(|char| !in_ticket(char)).unwrap_or(run.len())];
        let end = start + run.len();
        out.push_str(&text[at..start]);
        let is_secret = is_behind_prefix(&text[..start])
            || (is_ticket(run) || is_random(run)) && !is_path(&text[..end], run.len());
        out.push_str(if is_secret { REDACTED } else { run });
        at = end;
    }
    out + &text[at..]
}

fn is_behind_prefix(before: &str) -> bool {
    let last = before.get(before.len().saturating_sub(PREFIX.len())..);
    last.is_some_and(|last| last.eq_ignore_ascii_case(PREFIX))
}

/// Whether length and checksum are those of a ticket.
fn is_ticket(run: &str) -> bool {
    let ticket = Zeroizing::new(format!("{PREFIX}{run}"));
    AnyTicket::decode(&ticket).is_ok()
}

/// Whether it looks like base64: words and numbers in names are longer than the runs of one kind in
/// random characters.
fn is_random(run: &str) -> bool {
    let bytes = run.as_bytes();
    let begins = |at: usize| {
        let before = at.checked_sub(1).map(|before| bytes[before]);
        match bytes[at] {
            b'a'..=b'z' => !before.is_some_and(|before| before.is_ascii_alphabetic()),
            b'A'..=b'Z' => !before.is_some_and(|before| before.is_ascii_uppercase()),
            b'0'..=b'9' => !before.is_some_and(|before| before.is_ascii_digit()),
            _ => false,
        }
    };
    let begins: Vec<bool> = (0..bytes.len()).map(begins).collect();
    let is_dense =
        |piece: &[bool]| piece.iter().filter(|begins| **begins).count() >= FRAGMENT_WORDS;
    let has = |is: fn(&u8) -> bool| bytes.iter().any(is);
    has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && begins.windows(FRAGMENT_BYTES).any(is_dense)
}

/// Whether the text ends with an existing path; the last `bytes` bytes are the candidate.
fn is_path(text: &str, bytes: usize) -> bool {
    let last = text.len() - bytes;
    let starts = text[..last].rmatch_indices(|char: char| {
        char.is_whitespace() || matches!(char, '"' | '\'' | '`' | '@' | '=')
    });
    let starts = starts.map(|(at, found)| at + found.len());
    starts
        .take(PATH_STARTS_MAX)
        .chain([0, last])
        .any(|start| Path::new(&text[start..]).symlink_metadata().is_ok())
}

/// For other arguments, where a ticket would become a file name.
fn no_ticket<T: AsRef<OsStr>>(argument: T) -> Result<T, &'static str> {
    let text = argument.as_ref().to_string_lossy();
    let prefix = text.to_ascii_lowercase().contains(PREFIX);
    if prefix && redact(&text) != text {
        return Err("a ticket is not valid here");
    }
    Ok(argument)
}

/// Parses a path that must not be a ticket.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(no_ticket)
}

/// Parses a text that must not be a ticket.
pub(crate) fn text() -> impl TypedValueParser<Value = String> {
    StringValueParser::new().try_map(no_ticket)
}

fn read_text(source: impl Read, name: &Path) -> Result<Zeroizing<String>, CommandError> {
    // Allocated once: a buffer that grows leaves parts of the key behind.
    let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES_MAX * 2));
    let read = source.take(TEXT_BYTES_MAX as u64).read_to_string(&mut text);
    match read {
        Ok(_) => Ok(Zeroizing::new(text.trim().to_owned())),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(CommandError::new(
            format!("{} does not contain a ticket", name.display()),
        )),
        Err(error) => Err(CommandError::file("read", name, &error)),
    }
}

/// A ticket file to write. Dropped before that, it leaves an existing file unchanged.
pub(crate) struct TicketFile(OutputFile);

impl TicketFile {
    /// Replaces an existing file only with `force`: it may contain the only key to an object.
    pub(crate) fn create(
        destination: Destination,
        force: bool,
        mode: u32,
    ) -> Result<Self, CommandError> {
        Ok(Self(destination.create(Content::Ticket { mode, force })?))
    }

    /// Writes the ticket and syncs it to disk: without it the object is lost.
    pub(crate) fn write(self, text: &str) -> Result<(), CommandError> {
        let write = |mut file: &File| {
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")
        };
        write(self.0.file()).map_err(|error| CommandError::file("write", self.0.path(), &error))?;
        Ok(self.0.commit()?)
    }
}

/// Disables core dumps and tracing: this process handles a key.
pub(crate) fn guard_memory() {
    // Lowering its own limits does not fail; if one call did, the other would suffice.
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

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const VECTOR: &str = "edge1:AQAAAAAAAAYwOW2hJZu7vomhtzFRjSlhbETPipadGU0ht9qoLNTOpKmQAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh_w8fLz9PX29_j5-vt5WBe8";

    fn assert_redact(text: &str) {
        let shown = redact(text);
        for at in 6..VECTOR.len() - FRAGMENT_BYTES {
            let piece = &VECTOR[at..at + FRAGMENT_BYTES];
            assert!(!shown.contains(piece), "{text} became {shown}");
        }
    }

    #[test]
    fn every_fragment_of_a_ticket_is_redacted_however_it_was_cut_or_wrapped() {
        for at in 0..VECTOR.len() {
            let (head, tail) = VECTOR.split_at(at);
            assert_redact(head);
            assert_redact(tail);
            assert_redact(&format!("cannot read {head}!{tail}/x.txt: no"));
            assert_redact(&format!("@{head}\n{tail}"));
        }
        for change in [
            VECTOR.replace("edge1", "EDGE1"),
            VECTOR.replace("edge1:", "edge:"),
            format!("--ticket={VECTOR}"),
            format!("{VECTOR:?} ü"),
        ] {
            assert_redact(&change);
        }
    }

    #[test]
    fn names_in_errors_are_kept() {
        for text in [
            "no origin of the edge has chunk \
             6da1259bbbbe89a1b731518d29616c44cf8a969d194d21b7daa82cd4cea4a990",
            "a ticket begins with `edge1:` (or `edgepub1:`)",
            "cannot read /srv/Holiday-Pictures-From-Rome/2026-11-22-backup_of_everything.tar.zst",
            "unexpected argument '--public-ticket-outt' found",
            "[2001:db8::1]:7347: größe",
            "f81d4fae-7dec-11d0-a765-00a0c91e6bf6",
            "cannot read /srv/MyHolidayPicturesFromRome/BackupOfEverythingIHave2026.tar.zst: no",
            "/srv/Projects/VideoEncoderSettings/HighQualityFinalCutVersion12_Rev3.mp4",
            "ThisIsTheWayThatWeDoThingsAroundHere",
            "IMG_20261122_173355-EDITED_ForPrint",
            "",
        ] {
            assert_eq!(redact(text), text);
        }
    }

    #[test]
    fn existing_paths_are_kept() {
        let folder = tempfile::tempdir().unwrap();
        let name = "q7Zk2Pd9XwLr4TbN8vJsC1mY6hGf3KeQ";
        let path = folder.path().join("a folder").join(name);
        let print = format!("cannot write {}: no", path.display());
        assert!(redact(&print).contains(REDACTED));
        std::fs::create_dir_all(&path).unwrap();
        assert_eq!(redact(&print), print);
        let inside = format!("cannot write {}/{name}: no", path.display());
        assert!(redact(&inside).ends_with(&format!("/{REDACTED}: no")));
    }

    #[test]
    fn almost_every_random_key_is_redacted() {
        let mut shown = 0;
        for _ in 0..1000 {
            let bytes: [u8; 32] = rand::random();
            let key = URL_SAFE_NO_PAD.encode(bytes);
            shown += u32::from(redact(&key) == key);
        }
        assert!(shown < 40, "{shown} of 1000 keys");
    }

    #[test]
    fn a_path_may_be_anything_but_a_ticket() {
        assert!(no_ticket(VECTOR).is_err() && no_ticket(format!("@{VECTOR}")).is_err());
        let hash = "6da1259bbbbe89a1b731518d29616c44cf8a969d194d21b7daa82cd4cea4a990";
        for name in [hash, "edge1:", "edge1.ticket", "aBcDeFgHiJkLmNoPqRsTuVwXyZ"] {
            assert!(no_ticket(name).is_ok(), "{name}");
        }
    }
}
