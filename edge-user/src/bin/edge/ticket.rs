//! Tickets, as they are given on a command line: `-`, `@FILE`, or bare.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use clap::builder::{PathBufValueParser, StringValueParser, TypedValueParser};
use edge_user::seal::destination::{Begun, Content, Destination};
use edge_user::seal::ticket::{AnyTicket, TEXT_BYTES_MAX};
use rustix::process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit};
use zeroize::Zeroizing;

use crate::failed::Failed;
use crate::said::complain;

const PREFIX: &str = "edge1:";
/// What stands in an error for what may be a ticket.
const HIDDEN: &str = "(not shown: it may be a ticket)";
/// A shorter piece of a ticket leaves more than a hundred bits of the key to be guessed.
const PIECE_BYTES: usize = 24;
/// As many words and numbers as no name has in so few characters.
const PIECE_WORDS: usize = 9;
/// As many places as are looked at for the start of a path.
const PATH_STARTS_MAX: usize = 16;

/// The text of a ticket, from where the argument says.
pub(crate) fn read(argument: &str) -> Result<Zeroizing<String>, Failed> {
    if argument == "-" {
        let name = Path::new("standard input");
        // Not through the buffer of `stdin()`, which nobody wipes.
        let source = io::stdin().as_fd().try_clone_to_owned();
        let source = source.map_err(|error| Failed::file("read", name, &error))?;
        return read_text(File::from(source), name);
    }
    if let Some(path) = argument.strip_prefix('@') {
        if path.trim_start().starts_with(PREFIX) {
            // Not quoted: an error ends up in logs.
            return Err(Failed::usage(
                "behind @ stands the name of a file, not a ticket".to_owned(),
            ));
        }
        let path = Path::new(path);
        let file = File::open(path).map_err(|error| Failed::file("read", path, &error))?;
        return read_text(file, path);
    }
    if argument.trim_start().starts_with(PREFIX) {
        complain(
            "edge: warning: a ticket on the command line can be read by everybody on this \
             machine (`ps`); use @FILE or - (standard input)",
        );
    } else if Path::new(argument).exists() {
        return Err(Failed::usage(format!(
            "{argument} is a file, not a ticket: write @{argument} to read the ticket from it"
        )));
    }
    Ok(Zeroizing::new(argument.trim().to_owned()))
}

/// Whether the ticket is read from the file that stands there.
pub(crate) fn is_in(argument: &str, place: &Destination) -> bool {
    let file = argument.strip_prefix('@').map(Path::new);
    file.is_some_and(|file| file.metadata().is_ok_and(|found| place.is_file(&found)))
}

/// The text without what may be a ticket or a piece of one. Errors end up in logs, and whoever
/// pastes a ticket in the wrong place, cut in two or with a typo, must not find it there. What
/// exists under this path is no ticket.
pub(crate) fn hidden(text: &str) -> String {
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
            || (is_whole(run) || is_random(run)) && !is_path(&text[..end], run.len());
        out.push_str(if is_secret { HIDDEN } else { run });
        at = end;
    }
    out + &text[at..]
}

fn is_behind_prefix(before: &str) -> bool {
    let last = before.get(before.len().saturating_sub(PREFIX.len())..);
    last.is_some_and(|last| last.eq_ignore_ascii_case(PREFIX))
}

/// Whether length and check are those of a ticket.
fn is_whole(run: &str) -> bool {
    let ticket = Zeroizing::new(format!("{PREFIX}{run}"));
    AnyTicket::decode(&ticket).is_ok()
}

/// Whether it looks like base64. Names are made of words and numbers, which are longer than the
/// runs of one kind in random characters.
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
    let is_dense = |piece: &[bool]| piece.iter().filter(|begins| **begins).count() >= PIECE_WORDS;
    let has = |is: fn(&u8) -> bool| bytes.iter().any(is);
    has(u8::is_ascii_uppercase)
        && has(u8::is_ascii_lowercase)
        && begins.windows(PIECE_BYTES).any(is_dense)
}

/// Whether the text ends with the path of something that exists, of which so much is looked at.
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

/// For arguments that name something else: a ticket there would become the name of a file.
fn no_ticket<T: AsRef<OsStr>>(argument: T) -> Result<T, &'static str> {
    let text = argument.as_ref().to_string_lossy();
    let prefix = text.to_ascii_lowercase().contains(PREFIX);
    if prefix && hidden(&text) != text {
        return Err("a ticket does not belong here");
    }
    Ok(argument)
}

/// How the name of a file is taken.
pub(crate) fn path() -> impl TypedValueParser<Value = PathBuf> {
    PathBufValueParser::new().try_map(no_ticket)
}

/// How the name of something else is taken.
pub(crate) fn text() -> impl TypedValueParser<Value = String> {
    StringValueParser::new().try_map(no_ticket)
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

/// Where a ticket will stand. Dropped before it is written, it leaves what was there.
pub(crate) struct TicketFile(Begun);

impl TicketFile {
    /// Makes it with this mode. One that is there already is only replaced with `force`: it may
    /// hold the only key to something.
    pub(crate) fn begin(place: Destination, force: bool, mode: u32) -> Result<Self, Failed> {
        Ok(Self(place.begin(Content::Ticket { mode, force })?))
    }

    /// Writes the ticket and sees it to the disk: without it the sealed object is lost.
    pub(crate) fn write(self, text: &str) -> Result<(), Failed> {
        let write = |mut file: &File| {
            file.write_all(text.as_bytes())?;
            file.write_all(b"\n")
        };
        write(self.0.file()).map_err(|error| Failed::file("write", self.0.path(), &error))?;
        Ok(self.0.finish()?)
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

#[cfg(test)]
mod tests {
    use base64::Engine;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;

    use super::*;

    const VECTOR: &str = "edge1:AQAAAAAAAAYwOW2hJZu7vomhtzFRjSlhbETPipadGU0ht9qoLNTOpKmQAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh_w8fLz9PX29_j5-vt5WBe8";

    fn assert_hidden(text: &str) {
        let shown = hidden(text);
        for at in 6..VECTOR.len() - PIECE_BYTES {
            let piece = &VECTOR[at..at + PIECE_BYTES];
            assert!(!shown.contains(piece), "{text} became {shown}");
        }
    }

    #[test]
    fn no_piece_of_a_ticket_is_shown_however_it_was_cut_or_wrapped() {
        for at in 0..VECTOR.len() {
            let (head, tail) = VECTOR.split_at(at);
            assert_hidden(head);
            assert_hidden(tail);
            assert_hidden(&format!("cannot read {head}!{tail}/x.txt: no"));
            assert_hidden(&format!("@{head}\n{tail}"));
        }
        for change in [
            VECTOR.replace("edge1", "EDGE1"),
            VECTOR.replace("edge1:", "edge:"),
            format!("--ticket={VECTOR}"),
            format!("{VECTOR:?} ü"),
        ] {
            assert_hidden(&change);
        }
    }

    #[test]
    fn what_errors_have_to_name_stays() {
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
            assert_eq!(hidden(text), text);
        }
    }

    #[test]
    fn what_exists_is_named_whatever_it_is_called() {
        let folder = tempfile::tempdir().unwrap();
        let name = "q7Zk2Pd9XwLr4TbN8vJsC1mY6hGf3KeQ";
        let path = folder.path().join("a folder").join(name);
        let said = format!("cannot write {}: no", path.display());
        assert!(hidden(&said).contains(HIDDEN));
        std::fs::create_dir_all(&path).unwrap();
        assert_eq!(hidden(&said), said);
        let inside = format!("cannot write {}/{name}: no", path.display());
        assert!(hidden(&inside).ends_with(&format!("/{HIDDEN}: no")));
    }

    #[test]
    fn hardly_any_random_key_is_shown() {
        let mut shown = 0;
        for _ in 0..1000 {
            let bytes: [u8; 32] = rand::random();
            let key = URL_SAFE_NO_PAD.encode(bytes);
            shown += u32::from(hidden(&key) == key);
        }
        assert!(shown < 40, "{shown} of 1000 keys");
    }

    #[test]
    fn a_file_may_be_called_what_it_likes_but_for_a_ticket() {
        assert!(no_ticket(VECTOR).is_err() && no_ticket(format!("@{VECTOR}")).is_err());
        let hash = "6da1259bbbbe89a1b731518d29616c44cf8a969d194d21b7daa82cd4cea4a990";
        for name in [hash, "edge1:", "edge1.ticket", "aBcDeFgHiJkLmNoPqRsTuVwXyZ"] {
            assert!(no_ticket(name).is_ok(), "{name}");
        }
    }
}
