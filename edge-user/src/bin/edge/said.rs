//! What the program says. All of it goes out here: nothing that was typed, read or received acts on
//! the terminal, and no complaint repeats what may be a ticket.
use std::io::{ErrorKind, Write, stderr, stdout};

use edge_user::terminal::{json, lines};

use crate::failed::Failed;
use crate::ticket;

/// A line on standard output.
macro_rules! say {
    ($($words:tt)*) => {
        $crate::said::print_text(&format!($($words)*))
    };
}
pub(crate) use say;

/// The one object that `--json` prints.
pub(crate) fn print_json(value: &serde_json::Value) -> Result<(), Failed> {
    print(&format!("{}\n", json(&value.to_string())))
}

/// Lines on standard output.
pub(crate) fn print_text(text: &str) -> Result<(), Failed> {
    print(&lines(text))
}

/// Whoever closed the other end has read enough; that is no error.
fn print(text: &str) -> Result<(), Failed> {
    match stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        written => written.map_err(Failed::output),
    }
}

/// Lines on standard error. There is nobody to tell when they cannot be written.
pub(crate) fn complain(text: &str) {
    let (Ok(()) | Err(_)) = stderr().write_all(lines(&ticket::hidden(text)).as_bytes());
}
