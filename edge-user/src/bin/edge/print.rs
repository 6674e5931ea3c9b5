//! All output of the program: control characters are escaped, and tickets are redacted from standard
//! error.
use std::io::{ErrorKind, Write, stderr, stdout};

use edge_user::terminal::{json, lines};

use crate::error::CommandError;
use crate::ticket;

/// Prints a line to standard output.
macro_rules! outln {
    ($($words:tt)*) => {
        $crate::print::print_text(&format!($($words)*))
    };
}
pub(crate) use outln;

/// Prints the object of `--json`.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), CommandError> {
    print(&format!("{}\n", json(&value.to_string())))
}

/// Prints lines to standard output.
pub(crate) fn print_text(text: &str) -> Result<(), CommandError> {
    print(&lines(text))
}

/// A closed pipe is no error: its reader has read enough.
fn print(text: &str) -> Result<(), CommandError> {
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(CommandError::output),
    }
}

/// Prints lines to standard error, and ignores errors.
pub(crate) fn warn(text: &str) {
    let (Ok(()) | Err(_)) = stderr().write_all(lines(&ticket::redact(text)).as_bytes());
}
