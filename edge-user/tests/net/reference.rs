//! The reader in `docs/reference`, written from the documents alone: what it cannot do with them,
//! they do not say.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use crate::daemon::{Edged, settings};
use crate::objects::{chunk_files, noise};
use crate::testbed::{Testbed, program, tell_skip};
use crate::wait;

/// Debian's, for which Debian packs the module.
const PYTHON: &str = "/usr/bin/python3";
const MODULE: &str = "cryptography";
const RUN_TIME_MAX: Duration = Duration::from_mins(1);
const OBJECT_BYTES: usize = 3_000_000;

#[test]
fn every_vector_of_the_documents_is_what_a_second_implementation_computes() {
    if !python_is_there() {
        return;
    }
    let mut command = Command::new(PYTHON);
    command.arg("-B").arg(reader()).arg("--self-test");
    let output = wait::ended(command, RUN_TIME_MAX);
    assert!(output.status.success(), "{}", wait::said(&output));
    assert!(wait::said(&output).contains("vectors of WIRE.md"));
}

with_each_sender!(a_second_implementation_reads_what_was_sealed_from_a_running_edged);

/// Cold, then hot, over IPv4 and IPv6.
fn a_second_implementation_reads_what_was_sealed_from_a_running_edged(sender: &'static str) {
    if !python_is_there() {
        return;
    }
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let setup = settings(&testbed, sender);
    let rows = [("v4", testbed.service_v4()), ("v6", testbed.service_v6())];
    let mut known = 0;
    let sealed = rows.map(|(name, edge)| {
        let (file, ticket) = seal(&testbed, setup.origin(), name);
        let before = std::mem::replace(&mut known, chunk_files(setup.origin()).len());
        (file, ticket, edge, known - before)
    });
    let edged = Edged::start(&testbed, &setup);
    for (file, ticket, edge, chunks) in sealed {
        let before = edged.stat().origin.fetches_total;
        for heat in ["cold", "hot"] {
            let out = testbed.folder().join("out");
            let mut command = testbed.reader.inside(PYTHON);
            command.arg("-B").arg(reader()).arg(&ticket);
            command.arg(edge.to_string()).arg(&out);
            let output = wait::ended(command, RUN_TIME_MAX);
            assert!(
                output.status.success(),
                "{heat}, {edge}: {}",
                wait::said(&output)
            );
            let same = fs::read(&file).unwrap() == fs::read(&out).unwrap();
            assert!(same, "{heat}, {edge}: the file came altered");
            fs::remove_file(out).unwrap();
            let fetches = edged.settled().origin.fetches_total - before;
            assert_eq!(fetches, chunks as u64, "{heat}, {edge}");
        }
    }
    let left = fs::read_dir(testbed.folder()).unwrap();
    let left = left.map(|entry| entry.unwrap().file_name());
    let left: Vec<_> = left
        .filter(|name| name.to_string_lossy().contains(".part"))
        .collect();
    assert!(left.is_empty(), "{left:?}");
    edged.stop();
}

fn reader() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/reference/reader.py")
}

/// Seals a file of noise; gives the file and its ticket.
fn seal(testbed: &Testbed, origin: &Path, name: &str) -> (PathBuf, PathBuf) {
    let (file, ticket) = (
        testbed.folder().join(name),
        testbed.folder().join(format!("{name}.ticket")),
    );
    noise(&file, name, OBJECT_BYTES);
    let mut command = Command::new(program("edge"));
    command.arg("seal").arg(&file).arg("--origin").arg(origin);
    command.arg("--ticket-out").arg(&ticket);
    let output = wait::ended(command, RUN_TIME_MAX);
    assert!(output.status.success(), "{}", wait::said(&output));
    (file, ticket)
}

/// Whether Python and its module are here; if not, the skip is told.
fn python_is_there() -> bool {
    let import = Command::new(PYTHON)
        .args(["-c", &format!("import {MODULE}")])
        .output();
    let reason = match import {
        Ok(output) if output.status.success() => return true,
        Ok(_) => format!("{PYTHON} has no {MODULE}, `cargo xtask setup` installs it"),
        Err(error) => format!("{PYTHON}: {error}; `cargo xtask setup` installs it"),
    };
    tell_skip(&reason);
    false
}
