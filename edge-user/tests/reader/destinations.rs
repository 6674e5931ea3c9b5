//! Where `edge` writes to: files of others, streams, links and places that take nothing.

use std::fs::{self, File, OpenOptions};
use std::io::pipe;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, chown, lchown, symlink};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::thread;

use rustix::fs::{CWD, Mode, mkfifoat};
use rustix::process::geteuid;

use crate::edge::Faults;
use crate::object::plaintext;
use crate::program::{Place, refusal, until_it_listens};
use crate::sockets::Serving;

const SIZE: usize = 1_000_000;
/// Somebody else.
const OTHER: u32 = 12_345;

/// A sealed object, and an edge that has it.
struct Sealed {
    place: Place,
    serving: Serving,
}

impl Sealed {
    fn new(faults: Faults) -> Self {
        let place = Place::new(SIZE);
        place.seal();
        let serving = place.serve(faults);
        Self { place, serving }
    }

    fn path(&self) -> &Path {
        self.place.path()
    }

    /// Behind another program and its arguments, or none.
    fn get(&self, before: &[&str], output: &str) -> Command {
        let program = env!("CARGO_BIN_EXE_edge");
        let mut words = before.to_vec();
        words.extend([program, "get", "@t", "-o", output, "--edge"]);
        let mut command = Command::new(words[0]);
        command
            .args(&words[1..])
            .arg(self.serving.address.to_string())
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stderr(Stdio::piped());
        command
    }

    /// As somebody else, who may read the ticket and run the program.
    fn get_as_other(&self, output: &str) -> Output {
        let copy = self.path().join("edge");
        fs::copy(env!("CARGO_BIN_EXE_edge"), &copy).unwrap();
        mode(self.path(), 0o755);
        mode(&self.path().join("t"), 0o644);
        let other = format!("--reuid={OTHER}");
        Command::new("setpriv")
            .args([&other, "--clear-groups"])
            .arg(copy)
            .args(["get", "@t", "-o", output, "--edge"])
            .arg(self.serving.address.to_string())
            .current_dir(self.path())
            .output()
            .unwrap()
    }

    /// What is in the folder, but for what was sealed.
    fn left(&self) -> Vec<String> {
        names(self.path())
            .into_iter()
            .filter(|name| !["file", "origin", "t", "edge"].contains(&name.as_str()))
            .collect()
    }
}

fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).unwrap();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

fn succeeded(output: &Output) {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{stderr}");
}

fn killed(mut child: Child) {
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn standard_output_gets_the_object_and_nothing_else_and_no_file_is_made() {
    let sealed = Sealed::new(Faults::default());
    for name in ["-", "/dev/stdout", "/dev/fd/1", "/proc/self/fd/1"] {
        let output = sealed.get(&[], name).output().unwrap();
        succeeded(&output);
        assert!(output.stdout == plaintext(SIZE), "{name}");
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert!(stderr.contains("verified"), "{stderr}");
        assert!(sealed.left().is_empty(), "{name}: {:?}", sealed.left());
    }
    let output = sealed.get(&[], "-").arg("--json").output().unwrap();
    assert!(refusal(&output, 2).contains("--json"));
    succeeded(&sealed.get(&[], "./-").output().unwrap());
    assert_eq!(sealed.left(), ["-"]);
}

#[test]
fn what_is_appended_to_keeps_what_was_there() {
    let sealed = Sealed::new(Faults::default());
    let all = sealed.path().join("all");
    for name in ["-", "/dev/stdout"] {
        fs::write(&all, "before").unwrap();
        let stdout = OpenOptions::new().append(true).open(&all).unwrap();
        succeeded(&sealed.get(&[], name).stdout(stdout).output().unwrap());
        assert!(fs::read(&all).unwrap() == [&b"before"[..], &plaintext(SIZE)].concat());
    }
    // As a shell's 3>>all does it.
    fs::write(&all, "before").unwrap();
    let append = r#"exec "$@" 3>>all"#;
    let output = sealed
        .get(&["sh", "-c", append, "sh"], "/dev/fd/3")
        .output();
    succeeded(&output.unwrap());
    assert!(fs::read(&all).unwrap() == [&b"before"[..], &plaintext(SIZE)].concat());
    assert_eq!(sealed.left(), ["all"]);
}

#[test]
fn pipes_and_devices_are_written_to_and_stay_what_they_are() {
    let sealed = Sealed::new(Faults::default());
    let fifo = sealed.path().join("fifo");
    mkfifoat(CWD, &fifo, Mode::RUSR | Mode::WUSR).unwrap();
    let reader = thread::spawn({
        let fifo = fifo.clone();
        move || fs::read(fifo).unwrap()
    });
    succeeded(&sealed.get(&[], "fifo").output().unwrap());
    assert!(reader.join().unwrap() == plaintext(SIZE));
    assert!(fs::metadata(&fifo).unwrap().file_type().is_fifo());
    succeeded(&sealed.get(&[], "/dev/null").output().unwrap());
    assert!(
        fs::metadata("/dev/null")
            .unwrap()
            .file_type()
            .is_char_device()
    );
    assert!(refusal(&sealed.get(&[], "/dev/full").output().unwrap(), 1).contains("No space"));
    assert_eq!(sealed.left(), ["fifo"]);
}

#[test]
fn a_reader_that_closed_standard_output_ends_a_get_without_a_word_and_not_with_0() {
    let sealed = Sealed::new(Faults::default());
    let (reader, writer) = pipe().unwrap();
    drop(reader);
    let output = sealed.get(&[], "-").stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert!(output.stderr.is_empty());
}

#[test]
fn a_place_that_takes_no_file_is_refused_before_anything_is_fetched() {
    let sealed = Sealed::new(Faults::default());
    symlink("nothing", sealed.path().join("dangling")).unwrap();
    symlink("loop", sealed.path().join("loop")).unwrap();
    fs::create_dir(sealed.path().join("folder")).unwrap();
    let long = "x".repeat(256);
    for (name, says) in [
        (long.as_str(), "too long"),
        ("dangling", "dangling symbolic link"),
        ("loop", "symbolic links"),
        ("folder", "directory"),
        ("folder/", "directory"),
        ("none/out", "No such file"),
        ("file/out", "Not a directory"),
        ("/proc/out", "cannot write"),
    ] {
        let stderr = refusal(
            &sealed
                .get(&[], name)
                .stdout(Stdio::piped())
                .output()
                .unwrap(),
            1,
        );
        assert!(stderr.contains(says), "{name}: {stderr}");
    }
    assert_eq!(sealed.left(), ["dangling", "folder", "loop"]);
    // The longest name there is.
    let longest = &long[1..];
    succeeded(&sealed.get(&[], longest).output().unwrap());
    assert_eq!(sealed.left().len(), 4);
    assert!(sealed.serving.stop().hellos.len() == 1);
}

/// The kernel's rule for links in folders that many share, until it is dropped.
struct Protected(String);

impl Protected {
    const PATH: &str = "/proc/sys/fs/protected_symlinks";

    fn on() -> Self {
        let before = fs::read_to_string(Self::PATH).unwrap();
        fs::write(Self::PATH, "1").unwrap();
        Self(before)
    }
}

impl Drop for Protected {
    fn drop(&mut self) {
        fs::write(Self::PATH, &self.0).unwrap();
    }
}

#[test]
fn a_link_is_followed_where_the_kernel_follows_it() {
    let sealed = Sealed::new(Faults::default());
    let (shared, own) = (sealed.path().join("shared"), sealed.path().join("own"));
    fs::create_dir(&shared).unwrap();
    fs::write(&own, "own").unwrap();
    symlink("../own", shared.join("link")).unwrap();
    succeeded(&sealed.get(&[], "shared/link").output().unwrap());
    assert!(fs::read(&own).unwrap() == plaintext(SIZE));
    assert!(shared.join("link").is_symlink());

    if !geteuid().is_root() {
        return;
    }
    let _protected = Protected::on();
    fs::write(&own, "own").unwrap();
    mode(&shared, 0o1777);
    lchown(shared.join("link"), Some(OTHER), Some(OTHER)).unwrap();
    chown(&shared, Some(OTHER + 1), None).unwrap();
    let output = sealed.get(&[], "shared/link").output().unwrap();
    assert!(refusal(&output, 1).contains("protected_symlinks"));
    assert_eq!(fs::read(&own).unwrap(), b"own");
    let seal = [
        "seal",
        "file",
        "--origin",
        "origin",
        "--force",
        "--ticket-out",
    ];
    let output = sealed.place.edge(&[&seal[..], &["shared/link"]].concat());
    assert!(refusal(&output, 1).contains("protected_symlinks"));
    assert_eq!(fs::read(&own).unwrap(), b"own");
}

#[test]
fn a_replaced_file_keeps_its_owner_and_mode_and_a_new_one_gets_what_the_umask_leaves() {
    let sealed = Sealed::new(Faults::default());
    let out = sealed.path().join("out");
    let with_umask = r#"umask 027; exec "$@""#;
    let output = sealed.get(&["sh", "-c", with_umask, "sh"], "out").output();
    succeeded(&output.unwrap());
    assert_eq!(fs::metadata(&out).unwrap().mode() & 0o7777, 0o640);
    mode(&out, 0o604);
    if geteuid().is_root() {
        chown(&out, Some(OTHER), Some(OTHER)).unwrap();
    }
    let before = fs::metadata(&out).unwrap();
    succeeded(&sealed.get(&[], "out").output().unwrap());
    let after = fs::metadata(&out).unwrap();
    assert_ne!(before.ino(), after.ino());
    assert_eq!(
        (before.uid(), before.gid(), before.mode()),
        (after.uid(), after.gid(), after.mode())
    );
}

#[test]
fn a_file_that_nothing_can_be_renamed_over_is_copied_into() {
    if !geteuid().is_root() {
        return;
    }
    let sealed = Sealed::new(Faults::default());
    fs::write(sealed.path().join("mounted"), "longer".repeat(SIZE)).unwrap();
    fs::write(sealed.path().join("on"), "").unwrap();
    let mount = r#"mount --bind mounted on && exec "$@""#;
    let before = ["unshare", "--mount", "sh", "-c", mount, "sh"];
    succeeded(&sealed.get(&before, "on").output().unwrap());
    assert!(fs::read(sealed.path().join("mounted")).unwrap() == plaintext(SIZE));

    // In a sticky folder the file of another, and in a folder of others a file that is open to all.
    for (folder, mode_of_folder) in [("sticky", 0o1777), ("closed", 0o755)] {
        let folder = sealed.path().join(folder);
        fs::create_dir(&folder).unwrap();
        mode(&folder, mode_of_folder);
        fs::write(folder.join("out"), "old").unwrap();
        mode(&folder.join("out"), 0o666);
        let before = fs::metadata(folder.join("out")).unwrap();
        // Not the kernel's rule for files that others made in sticky folders.
        if mode_of_folder == 0o1777 {
            chown(&folder, Some(OTHER + 1), None).unwrap();
        }
        succeeded(&sealed.get_as_other(folder.join("out").to_str().unwrap()));
        assert!(fs::read(folder.join("out")).unwrap() == plaintext(SIZE));
        let after = fs::metadata(folder.join("out")).unwrap();
        assert_eq!((before.ino(), before.uid()), (after.ino(), after.uid()));
        assert_eq!(names(&folder), ["out"]);
        // What it may not write to is refused at the start.
        mode(&folder.join("out"), 0o644);
        let output = sealed.get_as_other(folder.join("out").to_str().unwrap());
        assert!(refusal(&output, 1).contains("ermission denied"));
    }
    assert!(sealed.serving.stop().hellos.len() == 3);
}

#[test]
fn a_killed_command_leaves_nothing_and_an_incomplete_file_is_private() {
    let sealed = Sealed::new(Faults {
        dropped_gets: u32::MAX,
        ..Faults::default()
    });
    let child = sealed.get(&[], "out").spawn().unwrap();
    until_it_listens(&child);
    let open = |is_wanted: &dyn Fn(&str) -> bool| {
        let links = fs::read_dir(format!("/proc/{}/fd", child.id())).unwrap();
        links.flatten().map(|link| link.path()).find(|path| {
            path.read_link()
                .is_ok_and(|to| is_wanted(&to.to_string_lossy()))
        })
    };
    // It asks the edge, so it has tried what the folder takes.
    while open(&|to| to.starts_with("socket:")).is_none() {
        thread::yield_now();
    }
    // Its file is open, and nowhere to be found.
    let folder = sealed.path().to_string_lossy().into_owned();
    let file = open(&|to| to.starts_with(&folder) && to.contains("(deleted)")).unwrap();
    assert_eq!(fs::metadata(file).unwrap().mode() & 0o777, 0o600);
    assert!(sealed.left().is_empty());
    killed(child);
    assert!(sealed.left().is_empty());

    // A file that takes long to seal.
    fs::write(sealed.path().join("file"), plaintext(64 << 20)).unwrap();
    let chunks = sealed.path().join("origin/chunks");
    let sealed_already = names(&chunks).len();
    let child = Command::new(env!("CARGO_BIN_EXE_edge"))
        .args(["seal", "file", "--origin", "origin", "--ticket-out", "new"])
        .args(["--public-ticket-out", "public"])
        .current_dir(sealed.path())
        .spawn()
        .unwrap();
    while names(&chunks).len() == sealed_already {
        thread::yield_now();
    }
    killed(child);
    assert!(sealed.left().is_empty(), "{:?}", sealed.left());
}

#[test]
fn a_limit_for_files_ends_a_get_with_a_line_and_leaves_nothing() {
    let sealed = Sealed::new(Faults::default());
    let output = sealed.get(&["prlimit", "--fsize=300000"], "out").output();
    let stderr = refusal(&output.unwrap(), 1);
    assert!(stderr.contains("File too large"), "{stderr}");
    assert!(sealed.left().is_empty());
}

#[test]
fn a_ticket_goes_to_a_standard_output_that_is_no_terminal() {
    let place = Place::new(10);
    let seal = ["seal", "file", "--origin", "origin", "--ticket-out", "-"];
    let output = place.edge(&seal);
    succeeded(&output);
    let ticket = String::from_utf8(output.stdout).unwrap();
    assert!(ticket.starts_with("edge1:") && ticket.lines().count() == 1);
    let stderr = String::from_utf8(output.stderr).unwrap();
    assert!(stderr.starts_with("sealed file") && !stderr.contains(&ticket[60..90]));
    let refused = place.edge(&[&seal[..], &["--json"]].concat());
    assert!(refusal(&refused, 2).contains("--json"));
    let both = place.edge(&[&seal[..], &["--public-ticket-out", "/dev/stdout"]].concat());
    assert!(refusal(&both, 2).contains("the key would be lost"));
    let on_terminal = Command::new("script")
        .args(["--quiet", "--return", "--command"])
        .arg(format!("{} {}", env!("CARGO_BIN_EXE_edge"), seal.join(" ")))
        .arg("/dev/null")
        .current_dir(place.path())
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let stderr = String::from_utf8(on_terminal.stdout).unwrap();
    assert!(stderr.contains("not printed to a terminal") && !stderr.contains("edge1:"));
    assert_eq!(on_terminal.status.code(), Some(2));
    assert_eq!(names(place.path()), ["file", "origin"]);
}

#[test]
fn an_empty_file_holds_no_key_and_anything_else_may() {
    let place = Place::new(10);
    let seal = ["seal", "file", "--origin", "origin", "--ticket-out", "t"];
    File::create(place.path().join("t")).unwrap();
    succeeded(&place.edge(&seal));
    let ticket = fs::read(place.path().join("t")).unwrap();
    assert!(ticket.starts_with(b"edge1:"));
    assert!(refusal(&place.edge(&seal), 1).contains("--force"));
    assert_eq!(fs::read(place.path().join("t")).unwrap(), ticket);
}
