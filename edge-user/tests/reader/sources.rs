//! What `edge seal` takes, and what it refuses.

use std::fs::{self, OpenOptions};
use std::os::unix::fs::FileExt;
use std::process::{Command, Output, Stdio};
use std::thread;

use rustix::fs::{CWD, Mode, mkfifoat};

use crate::object::plaintext;
use crate::program::{Place, refusal};

fn seal(place: &Place, file: &str) -> Output {
    place.edge(&["seal", file, "--origin", "origin", "--ticket-out", "t"])
}

#[test]
fn a_file_that_is_written_to_while_it_is_sealed_gets_no_ticket() {
    let place = Place::new(0);
    let path = place.path().join("file");
    fs::write(&path, plaintext(8 << 20)).unwrap();
    // As long and nearly as it was: only its times tell.
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_edge"))
        .args(["seal", "file", "--origin", "origin", "--ticket-out", "t"])
        .current_dir(place.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut byte = 0;
    while child.try_wait().unwrap().is_none() {
        byte ^= 1;
        file.write_all_at(&[byte], 0).unwrap();
        thread::yield_now();
    }
    let stderr = refusal(&child.wait_with_output().unwrap(), 1);
    assert!(
        stderr.contains("changed while it was being sealed"),
        "{stderr}"
    );
    assert!(!place.path().join("t").exists());
    assert!(seal(&place, "file").status.success());
}

#[test]
fn what_is_not_a_regular_file_with_a_size_of_its_own_is_refused_at_once() {
    let place = Place::new(0);
    mkfifoat(CWD, place.path().join("fifo"), Mode::RUSR | Mode::WUSR).unwrap();
    for (name, says) in [
        ("fifo", "not a regular file"),
        ("/dev/zero", "not a regular file"),
        ("origin", "not a regular file"),
        ("/proc/self/status", "reports size 0"),
        (
            "/sys/kernel/mm/transparent_hugepage/enabled",
            "another size than it reports",
        ),
    ] {
        let stderr = refusal(&seal(&place, name), 1);
        assert!(stderr.contains(says), "{name}: {stderr}");
        assert!(!place.path().join("t").exists(), "{name}");
    }
    assert!(seal(&place, "file").status.success());
}
