//! What is wrong with an origin hurts one object only.

use std::fs;
use std::io::Read as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use edge_user::limits::ORIGIN_THREADS;

use crate::daemon::{Edged, Settings, settings};
use crate::objects::Object;
use crate::testbed::{Testbed, tell_skip};
use crate::wait::{self, pause};

/// What is done to a chunk's file, and whether the edge will then say that it is not there.
type Damage = (&'static str, fn(&Path), bool);

const DAMAGES: [Damage; 6] = [
    ("altered", |path| change(path, |bytes| bytes[7] ^= 1), false),
    (
        "cut",
        |path| change(path, |bytes| bytes.truncate(bytes.len() / 2)),
        false,
    ),
    ("grown", |path| change(path, |bytes| bytes.push(0)), false),
    (
        "huge",
        |path| change(path, |bytes| bytes.resize(3 << 20, 0)),
        false,
    ),
    ("empty", |path| change(path, Vec::clear), false),
    ("removed", |path| fs::remove_file(path).unwrap(), true),
];

fn change(path: &Path, act: impl FnOnce(&mut Vec<u8>)) {
    let mut bytes = fs::read(path).unwrap();
    act(&mut bytes);
    fs::write(path, bytes).unwrap();
}

with_each_sender!(a_damaged_chunk_is_refused_and_counted_and_everything_else_is_served);

fn a_damaged_chunk_is_refused_and_counted_and_everything_else_is_served(sender: &'static str) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let healthy = Object::seal(&testbed, "healthy", 3_000_000);
    let objects = DAMAGES.map(|(name, ..)| Object::seal(&testbed, name, 300_000));
    let edged = Edged::start(&testbed, &settings(&testbed, sender));
    let edge = testbed.service_v4();
    let mut saved = Vec::new();
    for (number, ((_, damage, _), object)) in DAMAGES.iter().zip(&objects).enumerate() {
        // Not the same chunk of each object: some are data, some are an index.
        let path = &object.chunks[number % object.chunks.len()];
        saved.push((path, fs::read(path).unwrap()));
        damage(path);
    }
    // Each of these takes its time, because the edge asks its origin again.
    thread::scope(|scope| {
        for ((_, _, absent), object) in DAMAGES.iter().zip(&objects) {
            let (code, words) = if *absent {
                (1, "no origin of the edge has chunk")
            } else {
                (75, "or the chunk is damaged")
            };
            let testbed = &testbed;
            scope.spawn(move || object.assert_not_to_be_had(testbed, edge, code, &[words]));
        }
        healthy.fetch(&testbed, edge);
    });
    healthy.fetch(&testbed, testbed.service_v6());
    let origin = edged.settled().origin;
    assert_eq!(origin.absent_total, 1);
    assert!(origin.corrupt_total >= 5, "{origin:?}");
    assert_eq!(origin.failed_total, 0);
    let log = edged.log();
    for ((name, _, absent), (path, _)) in DAMAGES.iter().zip(&saved) {
        let id = path.file_name().unwrap().to_str().unwrap();
        assert_eq!(log.contains(id), !absent, "{name}: {log}");
    }

    // Nothing of it is remembered for long once the origin is well again.
    for (path, bytes) in saved {
        fs::write(path, bytes).unwrap();
    }
    pause(Duration::from_secs(5));
    for object in &objects {
        object.fetch(&testbed, edge);
    }
    edged.stop();
}

/// Takes a lease on each file named: who opens one waits until the lease ends.
const LEASES: &str = "\
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
held = [open(path, 'r+b') for path in sys.argv[1:]]
for file in held:
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
signal.pause()
";

/// Files that nobody else can open as long as this lives.
struct Leases(Child);

impl Leases {
    fn on(files: &[PathBuf]) -> Option<Self> {
        let python = Command::new("/usr/bin/python3")
            .args(["-c", LEASES])
            .args(files)
            .stdout(Stdio::piped())
            .spawn();
        let Ok(mut python) = python else {
            tell_skip("there is no python3 to take leases with");
            return None;
        };
        let mut held = [0; 4];
        python.stdout.as_mut()?.read_exact(&mut held).unwrap();
        Some(Self(python))
    }
}

impl Drop for Leases {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

#[test]
fn a_file_that_hangs_is_read_once_and_hurts_no_other() {
    // I8
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let edge = testbed.service_v4();
    let hanging = Object::seal(&testbed, "hanging", 100_000);
    let healthy = Object::seal(&testbed, "healthy", 3_000_000);
    let Some(leases) = Leases::on(&hanging.chunks[..1]) else {
        return;
    };
    let edged = Edged::start(&testbed, &settings(&testbed, "gso"));
    let begun = |count: u64| {
        let hung = || (edged.stat().origin.failed_total >= count).then_some(());
        wait::until(Duration::from_secs(15), hung).expect("the fetch is given up after 10 s");
    };
    thread::scope(|scope| {
        scope.spawn(|| hanging.fetch(&testbed, edge));
        begun(1);
        healthy.fetch(&testbed, edge);
        // Its reader goes on to ask.
        pause(Duration::from_secs(3));
        let origin = edged.stat().origin;
        assert!(
            origin.fetches_total > origin.failed_total,
            "it has asked again"
        );
        assert_eq!(origin.hung_reads, [1], "and nothing was read again");
        drop(leases);
    });
    assert_eq!(edged.settled().origin.hung_reads, [0]);
    edged.stop();
}

#[test]
fn a_second_origin_serves_when_every_file_of_the_first_hangs() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "object", 6_000_000);
    assert!(object.chunks.len() > 2 * ORIGIN_THREADS);
    let setup = settings(&testbed, "gso");
    let second = testbed.folder().join("second");
    let mut copy = Command::new("cp");
    copy.arg("-r").arg(setup.origin()).arg(&second);
    assert!(copy.status().unwrap().success());
    let Some(leases) = Leases::on(&object.chunks) else {
        return;
    };
    let setup = Settings {
        origins: vec![setup.origin().to_owned(), second],
        ..setup
    };
    let edged = Edged::start(&testbed, &setup);
    object.fetch(&testbed, testbed.service_v4());
    // The index, then as many as there are threads, each for half of 10 s; no chunk after these.
    let origin = edged.settled().origin;
    assert_eq!(origin.hung_reads, [ORIGIN_THREADS as u64, 0]);
    assert_eq!(origin.failed_total, 0);
    // Nothing of that keeps it from ending.
    edged.stop();
    drop(leases);
}

#[test]
fn a_link_to_the_origin_may_be_switched_and_one_that_leads_nowhere_is_a_failure() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let edge = testbed.service_v4();
    let setup = settings(&testbed, "gso");
    let old = Object::seal(&testbed, "old", 100_000);
    let releases = [1, 2].map(|number| testbed.folder().join(format!("release-{number}")));
    fs::rename(setup.origin(), &releases[0]).unwrap();
    let new = Object::seal(&testbed, "new", 100_000);
    let newer = Object::seal(&testbed, "newer", 100_000);
    fs::rename(setup.origin(), &releases[1]).unwrap();
    symlink(&releases[0], setup.origin()).unwrap();
    let edged = Edged::start(&testbed, &setup);
    old.fetch(&testbed, edge);
    let aside = testbed.folder().join("aside");
    symlink(&releases[1], &aside).unwrap();
    fs::rename(&aside, setup.origin()).unwrap();
    new.fetch(&testbed, edge);
    fs::remove_file(setup.origin()).unwrap();
    newer.assert_not_to_be_had(&testbed, edge, 75, &["cannot get chunk"]);
    assert!(
        edged.log().contains("the directory itself: No such file"),
        "{}",
        edged.log()
    );
    assert_eq!(edged.settled().origin.absent_total, 0);
    symlink(&releases[1], setup.origin()).unwrap();
    newer.fetch(&testbed, edge);
    edged.stop();
}
