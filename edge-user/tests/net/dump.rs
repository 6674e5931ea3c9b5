//! What a copy of the daemon's memory would give away.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::process::Signal;

use crate::daemon::{Edged, command, settings};
use crate::testbed::{Testbed, tell_skip};
use crate::wait;

/// A command that may leave a core dump, in a folder.
fn with_cores(command: &Command, folder: &Path) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", r#"ulimit -c unlimited && cd "$0" && exec "$@""#])
        .arg(folder)
        .arg(command.get_program())
        .args(command.get_args())
        .env_remove("NOTIFY_SOCKET");
    shell
}

#[test]
fn edged_leaves_no_core_dump() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let mut aborts = Command::new("sh");
    aborts.args(["-c", "kill -ABRT $$"]);
    let mut control = with_cores(&aborts, testbed.folder());
    if !control
        .stderr(Stdio::null())
        .status()
        .unwrap()
        .core_dumped()
    {
        tell_skip("this machine keeps no core dumps (kernel.core_pattern)");
        return;
    }
    let setup = settings(&testbed, "gso");
    let command = with_cores(&command(&testbed, &setup), testbed.folder());
    let edged = Edged::start_command(&setup, command);
    edged.signal(Signal::ABORT);
    let status = edged.end(wait::ANSWER_TIME_MAX);
    assert_eq!(status.signal(), Some(Signal::ABORT.as_raw()));
    assert!(!status.core_dumped());
}

const PIECE_BYTES: usize = 4096;

/// All that a tool which heeds the marks of mappings copies of a process.
fn dumpable_memory(process: u32) -> Vec<u8> {
    let smaps = fs::read_to_string(format!("/proc/{process}/smaps")).unwrap();
    let memory = File::open(format!("/proc/{process}/mem")).unwrap();
    let mut copy = Vec::new();
    let mut range = None;
    for line in smaps.lines() {
        let Some(flags) = line.strip_prefix("VmFlags:") else {
            let ends = line.split(' ').next().and_then(|word| word.split_once('-'));
            let parse = |text| u64::from_str_radix(text, 16).ok();
            if let Some((Some(start), Some(end))) = ends.map(|(a, b)| (parse(a), parse(b))) {
                range = Some((start, end));
            }
            continue;
        };
        let (start, end) = range.take().unwrap();
        if flags
            .split(' ')
            .any(|flag| matches!(flag, "dd" | "io" | "pf"))
            || !flags.contains("wr")
        {
            continue;
        }
        for at in (start..end).step_by(PIECE_BYTES) {
            let mut block = [0; PIECE_BYTES];
            let len = usize::try_from(end - at).unwrap().min(PIECE_BYTES);
            // Most of what an allocator holds in reserve was never touched.
            let read = memory.read_exact_at(&mut block[..len], at).is_ok();
            if read && block != [0; PIECE_BYTES] {
                copy.extend_from_slice(&block[..len]);
            }
        }
    }
    copy
}

#[test]
fn a_copy_of_the_memory_holds_no_cookie_secret() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let secret_file = testbed.folder().join("secret");
    let secret: [u8; 32] = std::array::from_fn(|at| u8::try_from(at * 7 + 3).unwrap());
    fs::write(&secret_file, secret).unwrap();
    fs::set_permissions(&secret_file, Permissions::from_mode(0o600)).unwrap();
    let setup = settings(&testbed, "gso");
    let mut command = command(&testbed, &setup);
    command.env("SEALEDGE_COOKIE__SECRET_FILE", &secret_file);
    let edged = Edged::start_command(&setup, command);
    let copy = dumpable_memory(edged.pid());
    assert!(copy.len() > 100_000, "the stacks and the heap at least");
    let held = copy.windows(secret.len()).filter(|bytes| *bytes == secret);
    assert_eq!(held.count(), 0);
    edged.stop();
}
