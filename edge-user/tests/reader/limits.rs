//! What `edge` does with fewer threads and descriptors than it needs: one line that names the
//! limit, and nothing left behind.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use rustix::process::{geteuid, getpid};

use crate::edge::Faults;
use crate::program::Place;

/// Runs `edge` under a limit, as a user who has no other process.
fn edge_under(place: &Place, limit: &str, arguments: &[&str]) -> Output {
    let mut command = Command::new("prlimit");
    command.arg(limit);
    if geteuid().is_root() {
        let user = 100_000 + getpid().as_raw_nonzero().get();
        command.args(["setpriv", &format!("--reuid={user}"), "--clear-groups"]);
    }
    // A copy: the user may not be allowed into the folder of the program itself.
    let program = place.path().join("edge");
    if !program.exists() {
        fs::copy(env!("CARGO_BIN_EXE_edge"), &program).unwrap();
        for path in ["", "store"].map(|name| place.path().join(name)) {
            fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
        }
    }
    command
        .arg(program)
        .args(arguments)
        .current_dir(place.path())
        .output()
        .unwrap()
}

/// Does the same under limits that go up until it succeeds. Every failure before is one line that
/// names the limit, and leaves the folder as it was.
fn fails_well_until_it_succeeds(place: &Place, limit: &str, arguments: &[&str], names: &str) {
    let out = place.path().join("out");
    let mut refusals = 0;
    for most in 1..200 {
        let output = edge_under(place, &format!("{limit}={most}"), arguments);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            assert!(refusals > 0, "no limit was too low");
            fs::remove_dir_all(&out).unwrap();
            return;
        }
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "{most}: {stderr}");
        // Below this the loader fails, and not `edge`.
        if stderr.starts_with("edge: ") {
            assert_eq!(output.status.code(), Some(1), "{most}: {stderr}");
            assert_eq!(stderr.lines().count(), 1, "{most}: {stderr}");
            assert!(stderr.contains(names), "{most}: {stderr}");
            refusals += 1;
        } else {
            assert_eq!(refusals, 0, "{most}: {stderr}");
            assert!(!stderr.contains("panicked"), "{most}: {stderr}");
        }
    }
    panic!("200 are not enough for {arguments:?}");
}

#[test]
fn too_few_processes_or_descriptors_end_a_command_with_a_line_that_names_the_limit() {
    let place = Place::new(1_000_000);
    place.seal();
    fs::set_permissions(place.path().join("t"), fs::Permissions::from_mode(0o644)).unwrap();
    fs::create_dir(place.path().join("store")).unwrap();
    let serving = place.serve(Faults::default());
    let address = serving.address.to_string();
    let get = ["get", "@t", "--edge", &address, "-o", "out/file"];
    let seal = ["seal", "file", "--origin", "store", "--ticket-out", "out/t"];
    for (limit, names) in [("--nproc", "ulimit -u"), ("--nofile", "ulimit -n")] {
        for arguments in [&get[..], &seal] {
            fs::create_dir(place.path().join("out")).unwrap();
            fs::set_permissions(place.path().join("out"), fs::Permissions::from_mode(0o777))
                .unwrap();
            fails_well_until_it_succeeds(&place, limit, arguments, names);
        }
    }
}
