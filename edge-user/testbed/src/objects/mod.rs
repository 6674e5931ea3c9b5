//! Real files that are sealed into an origin, served and fetched.

/// The files and their hashes.
pub mod files;

use std::ffi::OsString;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use self::files::Object;
use crate::bed::Side;
use crate::paths;
use crate::process;

/// Size of one chunk with its packet headers, rounded up.
const SLOT_BYTES: u64 = 136 << 10;

/// A file and its ticket.
pub struct Sealed {
    pub object: Object,
    pub ticket: PathBuf,
}

/// Seals each file into the origin; writes the tickets to the folder.
pub fn seal(objects: Vec<Object>, folder: &Path, origin: &Path) -> Result<Vec<Sealed>> {
    let seal_one = |(number, object): (usize, Object)| {
        let ticket = folder.join(format!("{number}.ticket"));
        let mut command = Command::new(paths::release("edge"));
        command
            .arg("seal")
            .arg(&object.path)
            .arg("--origin")
            .arg(origin);
        command.arg("--ticket-out").arg(&ticket).arg("--json");
        process::run(&mut command)?;
        Ok(Sealed { object, ticket })
    };
    objects.into_iter().enumerate().map(seal_one).collect()
}

/// A slot for each chunk and some spare: a hot run must not depend on eviction.
pub fn arena_bytes(distinct_chunks: u64) -> u64 {
    let bytes = (distinct_chunks + distinct_chunks / 10 + 64) * SLOT_BYTES;
    bytes.next_multiple_of(64 << 20).max(512 << 20)
}

/// The command that fetches an object on the reader's side.
pub fn get(reader: &Side, ticket: &Path, edge: SocketAddr, out: &Path) -> Command {
    let mut at_ticket = OsString::from("@");
    at_ticket.push(ticket);
    let mut get = reader.inside(paths::release("edge"));
    get.arg("get")
        .arg(at_ticket)
        .args(["--edge", &edge.to_string()]);
    get.arg("-o").arg(out).arg("--json");
    get
}
