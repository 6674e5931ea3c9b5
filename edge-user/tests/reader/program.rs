//! What the program `edge` says and returns: one line, the right exit code, and no key.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::channel;
use std::thread;
use std::time::Duration;

use edge_ebpf::wire::{ChunkId, NackCode};
use edge_user::counters::{InterfaceCounts, Snapshot};
use rustix::io::ioctl_fionbio;
use rustix::process::{Pid, Signal, geteuid, kill_process};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tempfile::TempDir;

use crate::edge::{Edge, Faults};
use crate::object::{chunks_under, plaintext};
use crate::sockets::Serving;

const VECTOR: &str = "edge1:AQAAAAAAAAYwOW2hJZu7vomhtzFRjSlhbETPipadGU0ht9qoLNTOpKmQAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh_w8fLz9PX29_j5-vt5WBe8";

pub(crate) struct Place {
    folder: TempDir,
}

impl Place {
    /// A folder with an origin in it and a file to seal.
    pub(crate) fn new(size_bytes: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("origin")).unwrap();
        fs::write(folder.path().join("file"), plaintext(size_bytes)).unwrap();
        Self { folder }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn edge(&self, arguments: &[&str]) -> Output {
        Command::new(env!("CARGO_BIN_EXE_edge"))
            .args(arguments)
            .current_dir(self.path())
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    pub(crate) fn seal(&self) -> Value {
        json(&self.edge(&[
            "seal",
            "file",
            "--origin",
            "origin",
            "--ticket-out",
            "t",
            "--json",
        ]))
    }

    pub(crate) fn serve(&self, faults: Faults) -> Serving {
        let chunks = chunks_under(&self.path().join("origin"));
        Serving::start("127.0.0.1:0", Edge::new(chunks, faults))
    }
}

fn json(output: &Output) -> Value {
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    assert!(
        output.stderr.is_empty(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// The one line on standard error of a command that must end with this code.
pub(crate) fn refusal(output: &Output, code: i32) -> String {
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(code), "{error}");
    assert_eq!(error.lines().count(), 1, "{error}");
    assert!(
        error.starts_with("edge: ") && output.stdout.is_empty(),
        "{error}"
    );
    error
}

/// A line of what the kernel tells of a process.
fn status(child: &Child, name: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    line.unwrap().trim().to_owned()
}

/// Whether a signal is in this mask of a process.
fn signals(child: &Child, mask: &str, signal: Signal) -> bool {
    let mask = u64::from_str_radix(&status(child, mask), 16).unwrap();
    mask >> (signal.as_raw() - 1) & 1 == 1
}

/// Until a command takes its signals: they are blocked, and a second thread waits for them.
pub(crate) fn until_it_listens(child: &Child) {
    while status(child, "Threads:") == "1" || !signals(child, "SigBlk:", Signal::TERM) {
        thread::yield_now();
    }
}

#[test]
fn a_sealed_file_is_fetched_and_the_json_is_correct() {
    for size in [0, 1, 131_072, 1_000_000] {
        let place = Place::new(size);
        let sealed = place.seal();
        let mode = fs::metadata(place.path().join("t"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o777, 0o600);
        assert_eq!(sealed["size"], size);
        let serving = place.serve(Faults::default());
        let address = serving.address.to_string();
        let got = json(&place.edge(&["get", "@t", "--edge", &address, "-o", "out", "--json"]));
        let plain = plaintext(size);
        assert!(fs::read(place.path().join("out")).unwrap() == plain);
        let hex = ChunkId(Sha256::digest(&plain).into()).to_string();
        assert_eq!((&got["size"], &got["sha256"]), (&size.into(), &hex.into()));
        assert_eq!(got["edge"], address);
        let inspected = json(&place.edge(&["inspect", "@t", "--json"]));
        for field in ["size", "chunks", "index_chunks", "root", "public_ticket"] {
            assert_eq!(inspected[field], sealed[field], "{field}");
        }
        let chunks = inspected["chunks"].as_u64().unwrap();
        assert_eq!(
            got["chunks"],
            chunks + inspected["index_chunks"].as_u64().unwrap()
        );
        assert_eq!(serving.stop().ports.len(), usize::from(size > 0));
    }
}

#[test]
fn no_command_prints_the_key() {
    let place = Place::new(200_000);
    let sealed = place.edge(&["seal", "file", "--origin", "origin", "--ticket-out", "t"]);
    let ticket = fs::read_to_string(place.path().join("t")).unwrap();
    // Behind prefix and facts the key begins; whatever prints it prints some of this.
    let key = &ticket[6 + 56..6 + 98];
    for output in [
        sealed,
        place.edge(&["inspect", "@t"]),
        place.edge(&["inspect", &ticket]),
    ] {
        assert!(output.status.success());
        let printed = [output.stdout, output.stderr].concat();
        assert!(
            !String::from_utf8_lossy(&printed).contains(&key[..20]),
            "the key was printed"
        );
    }
}

#[test]
fn no_refusal_repeats_a_ticket_wherever_it_was_typed() {
    let place = Place::new(10);
    fs::write(place.path().join("t"), VECTOR).unwrap();
    let (head, tail) = VECTOR.split_at(70);
    let (at, flag, equals) = (
        format!("@{VECTOR}"),
        format!("--ticket={VECTOR}"),
        format!("--output={VECTOR}"),
    );
    let without_prefix = &VECTOR["edge1:".len()..];
    let origin = ["--origin", "origin", "--ticket-out"];
    for arguments in [
        &["get", "@t", VECTOR, "--edge", "::1", "-o", "out"][..],
        &["get", "@t", tail, "--edge", "::1", "-o", "out"],
        &["get", head, tail, "--edge", "::1", "-o", "out"],
        &["get", &at, "--edge", "::1", "-o", "out"],
        &["get", without_prefix, "--edge", "::1", "-o", "out"],
        &["get", &flag, "--edge", "::1", "-o", "out"],
        &["get", "@t", "--edge", VECTOR, "-o", "out"],
        &["get", "@t", "--edge", tail, "-o", "out"],
        &["get", "@t", "--edge", "::1", "-o", VECTOR],
        &["get", "@t", "--edge", "::1", &equals],
        &["get", "@t", "--edge", "::1", "-o", &format!("none/{tail}")],
        &[VECTOR],
        &["ping", VECTOR],
        &["ping", "::1", "--count", VECTOR],
        &["stat", "--socket", VECTOR],
        &["stat", "--socket", tail],
        &["inspect", &format!("@{tail}")],
        &["inspect", &VECTOR.replacen('O', "!", 1)],
        &["seal", VECTOR, origin[0], origin[1], origin[2], "u"],
        &["seal", tail, origin[0], origin[1], origin[2], "u"],
        &["seal", "file", origin[0], VECTOR, origin[2], "u"],
        &["seal", "file", origin[0], tail, origin[2], "u"],
        &["seal", "file", origin[0], origin[1], origin[2], VECTOR],
    ] {
        let output = place.edge(arguments);
        let printed = [output.stdout, output.stderr].concat();
        let printed = String::from_utf8(printed).unwrap();
        assert!(
            !output.status.success() && !printed.is_empty(),
            "{arguments:?}"
        );
        for at in 6..VECTOR.len() - 20 {
            let piece = &VECTOR[at..at + 20];
            assert!(!printed.contains(piece), "{arguments:?}: {printed}");
        }
    }
    assert_eq!(fs::read_dir(place.path()).unwrap().count(), 3);
}

#[test]
fn a_path_of_words_is_named_in_an_error() {
    let place = Place::new(10);
    let name = "MyHolidayPicturesFromRome/BackupOfEverythingIHave2026.ticket";
    let stderr = refusal(&place.edge(&["inspect", &format!("@{name}")]), 1);
    assert!(stderr.contains(name), "{stderr}");
}

#[test]
fn what_was_typed_does_nothing_to_the_terminal() {
    let place = Place::new(10);
    fs::write(place.path().join("a\u{1b}[2Jb\u{9b}\u{202e}"), "x").unwrap();
    let name = "a\u{1b}[2Jb\u{9b}\u{202e}";
    let seal = ["seal", name, "--origin", "origin", "--ticket-out"];
    let missing = format!("@{name}c");
    let outputs = [
        place.edge(&[&seal[..], &["t"]].concat()),
        place.edge(&[&seal[..], &["u", "--json"]].concat()),
        place.edge(&["inspect", &missing]),
        place.edge(&[name]),
        place.edge(&["stat", "--socket", name]),
    ];
    for output in &outputs {
        let printed = [&output.stdout[..], &output.stderr].concat();
        let printed = String::from_utf8(printed).unwrap();
        assert!(printed.contains("9b"), "{printed:?}");
        let acts = |char: char| char != '\n' && char.is_control() || char == '\u{202e}';
        assert!(!printed.contains(acts), "{printed:?}");
    }
    assert_eq!(json(&outputs[1])["name"], name);
}

#[test]
fn an_existing_ticket_is_not_overwritten_unless_forced() {
    let place = Place::new(10);
    let seal = ["seal", "file", "--origin", "origin", "--ticket-out", "t"];
    assert!(place.edge(&seal).status.success());
    let first = fs::read(place.path().join("t")).unwrap();
    assert!(refusal(&place.edge(&seal), 1).contains("--force"));
    assert_eq!(fs::read(place.path().join("t")).unwrap(), first);
    fs::set_permissions(place.path().join("t"), fs::Permissions::from_mode(0o644)).unwrap();
    assert!(
        place
            .edge(&[&seal[..], &["--force"]].concat())
            .status
            .success()
    );
    assert_ne!(fs::read(place.path().join("t")).unwrap(), first);
    let mode = fs::metadata(place.path().join("t"))
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
}

#[test]
fn a_forced_ticket_takes_the_place_of_the_old_one_and_never_spoils_it() {
    let place = Place::new(10);
    let path = place.path();
    place.seal();
    let old = fs::read_to_string(path.join("t")).unwrap();
    let mut held = fs::File::open(path.join("t")).unwrap();
    symlink("t", path.join("link")).unwrap();
    let seal = |ticket: &str, public: &str| {
        let mut arguments = vec!["seal", "file", "--origin", "origin", "--force"];
        arguments.extend(["--ticket-out", ticket]);
        if !public.is_empty() {
            arguments.extend(["--public-ticket-out", public]);
        }
        place.edge(&arguments)
    };
    assert!(seal("link", "p").status.success());
    let new = fs::read_to_string(path.join("t")).unwrap();
    assert!(new != old && new.len() == old.len() && path.join("link").is_symlink());
    // Whoever has the old file open still has all of it: nothing was written into it.
    let mut still = String::new();
    held.read_to_string(&mut still).unwrap();
    assert_eq!(still, old);

    for (ticket, public) in [("t", "./t"), ("t", "link"), ("u", "u"), ("u", "./u")] {
        assert!(refusal(&seal(ticket, public), 2).contains("the key would be lost"));
    }
    for (ticket, public) in [("file", ""), ("./file", "p"), ("t", "./file")] {
        assert!(refusal(&seal(ticket, public), 2).contains("the file to seal"));
    }
    assert_eq!(fs::read_to_string(path.join("t")).unwrap(), new);
    assert_eq!(fs::read(path.join("file")).unwrap(), plaintext(10));
    let mut left: Vec<_> = fs::read_dir(path)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["file", "link", "origin", "p", "t"]);
}

#[test]
fn a_missing_origin_is_named_with_its_remedy_and_leaves_no_ticket() {
    let place = Place::new(10);
    let output = place.edge(&["seal", "file", "--origin", "nowhere", "--ticket-out", "t"]);
    assert!(refusal(&output, 1).contains("mkdir -p nowhere"));
    assert!(!place.path().join("t").exists() && !place.path().join("nowhere").exists());
    let output = place.edge(&["seal", "none", "--origin", "origin", "--ticket-out", "t"]);
    assert!(refusal(&output, 1).contains("none"));
}

#[test]
fn tickets_come_from_a_file_from_standard_input_or_bare_with_a_warning() {
    let place = Place::new(10);
    fs::write(place.path().join("t"), format!("  {VECTOR}\r\n")).unwrap();
    let facts = json(&place.edge(&["inspect", "@t", "--json"]));
    assert_eq!(
        (&facts["size"], &facts["chunks"]),
        (&405_561.into(), &4.into())
    );
    let mut child = Command::new(env!("CARGO_BIN_EXE_edge"))
        .args(["inspect", "-", "--json"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(VECTOR.as_bytes())
        .unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(
        serde_json::from_slice::<Value>(&output.stdout).unwrap(),
        facts
    );
    let bare = place.edge(&["inspect", VECTOR, "--json"]);
    assert_eq!(
        serde_json::from_slice::<Value>(&bare.stdout).unwrap(),
        facts
    );
    assert!(String::from_utf8_lossy(&bare.stderr).contains("`ps`"));
    assert!(refusal(&place.edge(&["inspect", "t"]), 2).contains("@t"));
}

#[test]
fn a_wrong_character_is_called_a_typo_before_anything_is_asked_of_the_network() {
    let place = Place::new(10);
    fs::write(place.path().join("u"), VECTOR.replacen("YwOW", "YwOX", 1)).unwrap();
    let output = place.edge(&["get", "@u", "--edge", "192.0.2.1", "-o", "out"]);
    assert!(refusal(&output, 1).contains("ticket typo"));
}

#[test]
fn temporary_trouble_ends_with_75_and_leaves_no_file() {
    let place = Place::new(1000);
    place.seal();
    let faults = Faults {
        refusals: u32::MAX,
        refusal: NackCode::Origin,
        retry_ms: 0,
        ..Faults::default()
    };
    let serving = place.serve(faults);
    let address = serving.address.to_string();
    let output = place.edge(&["get", "@t", "--edge", &address, "-o", "out"]);
    let error = refusal(&output, 75);
    assert!(
        error.contains("origin") && error.contains(&address),
        "{error}"
    );
    let left = fs::read_dir(place.path()).unwrap();
    let mut left: Vec<_> = left.map(|entry| entry.unwrap().file_name()).collect();
    left.sort();
    assert_eq!(left, ["file", "origin", "t"]);
}

#[test]
fn an_interrupted_get_leaves_no_file() {
    let place = Place::new(1000);
    place.seal();
    let serving = place.serve(Faults {
        dropped_gets: u32::MAX,
        ..Faults::default()
    });
    let child = Command::new(env!("CARGO_BIN_EXE_edge"))
        .args(["get", "@t", "-o", "out", "--edge"])
        .arg(serving.address.to_string())
        .current_dir(place.path())
        .stderr(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let count = || fs::read_dir(place.path()).unwrap().count();
    until_it_listens(&child);
    kill_process(Pid::from_child(&child), Signal::INT).unwrap();
    assert!(refusal(&child.wait_with_output().unwrap(), 1).contains("interrupted"));
    assert_eq!(count(), 3);
}

#[test]
fn signals_that_were_ignored_stay_ignored() {
    let place = Place::new(1000);
    place.seal();
    let serving = place.serve(Faults {
        dropped_gets: u32::MAX,
        ..Faults::default()
    });
    let mut child = Command::new("env")
        .args(["--ignore-signal=HUP", env!("CARGO_BIN_EXE_edge")])
        .args(["get", "@t", "-o", "out", "--edge"])
        .arg(serving.address.to_string())
        .current_dir(place.path())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    until_it_listens(&child);
    assert!(signals(&child, "SigIgn:", Signal::HUP));
    // Now and then all are blocked, while a thread is started.
    assert!((0..1000).any(|_| !signals(&child, "SigBlk:", Signal::HUP)));
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn an_object_does_not_overwrite_its_ticket() {
    let place = Place::new(10);
    place.seal();
    let ticket = fs::read(place.path().join("t")).unwrap();
    let output = place.edge(&["get", "@t", "--edge", "192.0.2.1", "-o", "./t"]);
    assert!(refusal(&output, 2).contains("overwrite the ticket"));
    assert_eq!(fs::read(place.path().join("t")).unwrap(), ticket);
}

#[test]
fn a_second_signal_ends_a_command_whose_output_blocks() {
    let place = Place::new(1000);
    place.seal();
    let serving = place.serve(Faults::default());
    for (signal, code) in [(Signal::INT, 130), (Signal::TERM, 143)] {
        let (stuck, full) = std::io::pipe().unwrap();
        ioctl_fionbio(&full, true).unwrap();
        while (&full).write(&[b'x'; 4096]).is_ok() {}
        ioctl_fionbio(&full, false).unwrap();
        let out = format!("out{code}");
        let mut child = Command::new(env!("CARGO_BIN_EXE_edge"))
            .args(["get", "@t", "--json", "-o", &out, "--edge"])
            .arg(serving.address.to_string())
            .current_dir(place.path())
            .stdout(full)
            .spawn()
            .unwrap();
        // Once the file is there, there is only the line left to print.
        while !place.path().join(&out).exists() {
            thread::yield_now();
        }
        let (_open, never) = channel::<()>();
        let mut ended = None;
        for _ in 0..2000 {
            ended = child.try_wait().unwrap();
            if ended.is_some() {
                break;
            }
            kill_process(Pid::from_child(&child), signal).unwrap();
            never.recv_timeout(Duration::from_millis(10)).unwrap_err();
        }
        child.kill().unwrap();
        assert_eq!(ended.and_then(|status| status.code()), Some(code));
        drop(stuck);
    }
}

#[test]
fn a_public_ticket_cannot_be_fetched_with() {
    let place = Place::new(10);
    let public = place.seal()["public_ticket"].as_str().unwrap().to_owned();
    let output = place.edge(&["get", &public, "--edge", "192.0.2.1", "-o", "out"]);
    assert!(refusal(&output, 1).contains("without the key"));
    assert_eq!(
        json(&place.edge(&["inspect", &public, "--json"]))["kind"],
        "public"
    );
}

#[test]
fn wrong_usage_ends_with_2_and_version_names_the_commit() {
    let place = Place::new(0);
    assert_eq!(place.edge(&["get"]).status.code(), Some(2));
    assert_eq!(
        place.edge(&["ping", "::1", "--count", "0"]).status.code(),
        Some(2)
    );
    let version = place.edge(&["--version"]);
    let version = String::from_utf8_lossy(&version.stdout).into_owned();
    assert!(version.contains(edge_user::VERSION), "{version}");
}

#[test]
fn ping_prints_round_trip_times() {
    let place = Place::new(1);
    place.seal();
    let serving = place.serve(Faults::default());
    let address = serving.address.to_string();
    let pinged = json(&place.edge(&["ping", &address, "--count", "3", "--json"]));
    assert_eq!(pinged["rtt_ms"].as_array().unwrap().len(), 3);
    assert_eq!(pinged["segment_bytes"], 1216);
    let plain = place.edge(&["ping", &address, "--count", "2"]);
    assert_eq!(String::from_utf8_lossy(&plain.stdout).lines().count(), 4);
}

#[test]
fn a_network_that_is_down_is_waited_for_and_then_named() {
    let place = Place::new(10);
    place.seal();
    for arguments in [
        &["ping", "192.0.2.1"][..],
        &["get", "@t", "--edge", "192.0.2.1", "-o", "out"],
    ] {
        // A namespace of its own, where even the loopback interface is down. Root needs no user
        // namespace for it, which a machine may refuse.
        let mut unshare = Command::new("unshare");
        if !geteuid().is_root() {
            unshare.arg("--map-root-user");
        }
        let output = unshare
            .args(["--net", env!("CARGO_BIN_EXE_edge")])
            .args(arguments)
            .current_dir(place.path())
            .output()
            .unwrap();
        let error = refusal(&output, 1);
        assert!(error.contains("Network is unreachable"), "{error}");
        assert!(error.contains("ip route get"), "{error}");
    }
}

#[test]
fn stat_prints_the_counters_and_names_a_missing_socket() {
    let place = Place::new(0);
    let output = place.edge(&["stat", "--socket", "none.sock"]);
    assert!(refusal(&output, 1).contains("none.sock"));
    let snapshot = Snapshot {
        interfaces: vec![InterfaceCounts {
            name: "eth7".to_owned(),
            ..InterfaceCounts::default()
        }],
        ..Snapshot::default()
    };
    answer_with(&place, &snapshot);
    let stat = json(&place.edge(&["stat", "--socket", "admin.sock", "--json"]));
    assert_eq!(stat, serde_json::to_value(&snapshot).unwrap());
    let table = place.edge(&["stat", "--socket", "admin.sock"]);
    assert!(String::from_utf8_lossy(&table.stdout).contains("eth7"));
    let checked = place.edge(&["stat", "--socket", "admin.sock", "--check"]);
    assert!(checked.status.success(), "{checked:?}");
    let checked = String::from_utf8_lossy(&checked.stdout).into_owned();
    assert!(checked.contains("check     ok: "), "{checked}");
    assert!(!String::from_utf8_lossy(&table.stdout).contains("check"));
}

#[test]
fn stat_reports_that_edged_is_starting() {
    let place = Place::new(0);
    answer(&place, "503 Service Unavailable", "starting\n");
    let output = place.edge(&["stat", "--socket", "admin.sock"]);
    assert!(refusal(&output, 75).contains("edged is starting"));
}

#[test]
fn stat_reports_that_the_admin_socket_is_busy() {
    let place = Place::new(0);
    let path = place.path().join("admin.sock");
    let listener = UnixListener::bind(&path).unwrap();
    // Room for one who waits.
    rustix::net::listen(&listener, 0).unwrap();
    let _waits = UnixStream::connect(&path).unwrap();
    let output = place.edge(&["stat", "--socket", "admin.sock"]);
    assert!(refusal(&output, 75).contains("too many connections"));
}

#[test]
fn counters_that_do_not_add_up_fail_the_audit() {
    let place = Place::new(0);
    let mut snapshot = Snapshot::default();
    snapshot.socket.received = 1;
    answer_with(&place, &snapshot);
    let checked = place.edge(&["stat", "--socket", "admin.sock", "--check"]);
    let message = refusal(&checked, 1);
    assert!(message.contains("received by the socket"), "{message}");
}

/// An admin socket with these counters.
fn answer_with(place: &Place, snapshot: &Snapshot) {
    answer(place, "200 OK", &serde_json::to_string(snapshot).unwrap());
}

/// An admin socket that answers this to everybody.
fn answer(place: &Place, status: &str, body: &str) {
    let listener = UnixListener::bind(place.path().join("admin.sock")).unwrap();
    let answer = format!(
        "HTTP/1.1 {status}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 1024];
            let read = stream.read(&mut request).unwrap();
            assert!(request[..read].starts_with(b"GET /v1/stat HTTP/1.1\r\n"));
            stream.write_all(answer.as_bytes()).unwrap();
        }
    });
}

#[test]
fn a_full_standard_output_is_an_error_and_a_closed_one_is_not() {
    let public = "edgepub1:AQAAAAAAAAYwOW2hJZu7vomhtzFRjSlhbETPipadGU0ht9qoLNTOpKmQLY7aDQ";
    let inspect = |out: Stdio| {
        Command::new(env!("CARGO_BIN_EXE_edge"))
            .args(["inspect", public])
            .stdout(out)
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
            .wait_with_output()
            .unwrap()
    };
    let full = fs::OpenOptions::new()
        .write(true)
        .open("/dev/full")
        .unwrap();
    let message = refusal(&inspect(full.into()), 1);
    assert!(message.contains("standard output"), "{message}");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert!(inspect(writer.into()).status.success());
}
