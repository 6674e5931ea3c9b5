//! Faults of `edged`: killed, stopped, a thread held, log blocked, invalid configuration, clock
//! changed, started twice, and an interface that is occupied.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use edge_testbed::{clock, paths, process};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::io::ioctl_fionbio;
use rustix::process::Signal;

use super::session::{Session, WITHIN, process_of, run_within, wait};
use super::{Fault, NOTHING, UNREACHABLE};

#[rustfmt::skip] // three lines a fault, as far as it goes
pub(super) const FAULTS: &[Fault] = &[
    Fault { name: "killed", excuses: UNREACHABLE, run: killed,
        done: "SIGKILL to edged while a reader is in the middle of an object; edged is started \
               anew",
        expected: "no program stays attached; the restart replaces the stale socket and serves; \
                   the reader gets a new cookie and finishes" },
    Fault { name: "stopped", excuses: UNREACHABLE, run: stopped,
        done: "SIGSTOP to edged for ten seconds, then SIGCONT",
        expected: "the program still answers HELLOs, but GETs get no reply; `edge stat` reports \
                   that; readers wait, or fail with a message; afterwards it serves" },
    Fault { name: "thread-held", excuses: UNREACHABLE, run: thread_held,
        done: "a worker, then the socket front, then the engine, stopped as by a debugger",
        expected: "within ten seconds the log and `edge stat` name the thread; readers wait, or \
                   fail with a message; afterwards it serves" },
    Fault { name: "log-fails", excuses: UNREACHABLE, run: log_fails,
        done: "edged with its log on a full device, and a corrupt chunk fetched",
        expected: "lines are dropped and counted; readers are not affected" },
    Fault { name: "log-unread", excuses: UNREACHABLE, run: log_unread,
        done: "edged with its log in a full pipe without a reader, more lines than the log's queue \
               holds, and a corrupt chunk fetched",
        expected: "lines are dropped and counted; misses are served; SIGTERM stops it" },
    Fault { name: "reload-nonsense", excuses: NOTHING, run: reload_nonsense,
        done: "invalid configuration file, SIGHUP, `edged --check`, and a start with it",
        expected: "there is no reload: SIGHUP changes nothing and logs that; --check and a start \
                   fail with the line and exit code 78; readers are not affected" },
    Fault { name: "clock-set", excuses: UNREACHABLE, run: clock_set,
        done: "edged's clock (a test clock, not the host's) an hour forward and back again, each \
               time with a reader in the middle of an object",
        expected: "the program refuses the reader's cookie (nack_cookie); the reader gets a new \
                   one and finishes" },
    Fault { name: "second-edged", excuses: NOTHING, run: second_edged,
        done: "a second edged: with the same configuration, with a socket of its own, with a \
               socket and an address of its own",
        expected: "each fails with exit code 75 and names the conflict; the first continues to \
                   serve" },
    Fault { name: "foreign-program", excuses: UNREACHABLE, run: foreign_program,
        done: "a foreign program is attached while edged runs, and before it starts",
        expected: "the kernel refuses the first; over the second edged fails to start with exit \
                   code 75 and names the interface; once it is removed, edged serves" },
];

/// Large enough that a reader can be stopped in the middle.
const LARGE_BYTES: usize = 64 << 20;
/// Exceeds the log's queue.
const LINES_WITHIN: Duration = Duration::from_mins(1);
/// As required.
const STOPPED_FOR: Duration = Duration::from_secs(10);
/// The socket front reads the clock once a second; a reader stopped for three sends a HELLO by
/// itself.
const CLOCK_SEEN_WITHIN: Duration = Duration::from_secs(2);

fn killed(session: &mut Session<'_>) -> Result<String> {
    let large = session.publish(LARGE_BYTES)?;
    let child = session.reader_in_the_middle(&large)?;
    session.signal(Signal::KILL)?;
    process::signal(&child, Signal::CONT)?;
    session.take_edged()?.ended(WITHIN)?;
    // The kernel removes the program shortly after the last handle is closed.
    let gone = clock::poll(Duration::from_secs(5), || {
        session
            .attached()
            .is_ok_and(|attached| !attached)
            .then_some(())
    });
    gone.context("the program is still attached after 5 s")?;
    if !session.testbed.settings.socket.exists() {
        bail!("there is no stale socket for the restart");
    }
    session.good_after(|session| session.start(&[]))?;
    large.finished_by(child)?;
    Ok("no program stayed attached, the restart served, and the reader finished".into())
}

fn stopped(session: &mut Session<'_>) -> Result<String> {
    let begin = clock::now();
    session.signal(Signal::STOP)?;
    let stat = session.stat()?;
    if stat.code != Some(1) || !stat.stderr.contains("no answer in 5 seconds") {
        bail!("`edge stat` ended with {:?}: {}", stat.code, stat.stderr);
    }
    let left = STOPPED_FOR.saturating_sub(begin.elapsed());
    wait(left);
    session.good_after(|session| session.signal(Signal::CONT))?;
    Ok(format!("`edge stat`: {}", stat.stderr))
}

/// A stopped thread of a process, resumed on drop.
struct Held(Pid);

impl Held {
    fn thread(process: u32, name: &str) -> Result<Self> {
        let mut stats = process_of(process)?
            .tasks()?
            .filter_map(|task| task.ok()?.stat().ok());
        let found = stats.find(|stat| stat.comm == name);
        let found = found.with_context(|| format!("edged has no thread {name}"))?;
        let thread = Pid::from_raw(found.pid);
        ptrace::seize(thread, ptrace::Options::empty())?;
        ptrace::interrupt(thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        Ok(Self(thread))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = ptrace::detach(self.0, None) {
            eprintln!("a thread of edged stays stopped: {error}");
        }
    }
}

fn thread_held(session: &mut Session<'_>) -> Result<String> {
    let mut seen = Vec::new();
    for name in ["worker-0", "socket", "engine"] {
        let from = session.lines()?;
        let held = Held::thread(session.edged()?.id(), name)?;
        seen.push(session.logged(from, &format!("the thread {name} is stalled"))?);
        if !faulty(session, name)? {
            bail!("`edge stat` does not name {name}");
        }
        session.good_after(|session| {
            drop(held);
            session
                .logged(from, &format!("over: the thread {name}"))
                .map(drop)
        })?;
    }
    Ok(seen.join("; "))
}

fn faulty(session: &Session<'_>, thread: &str) -> Result<bool> {
    let counts = session.counts()?;
    let subject = counts.all().pointer("/faults/0/subject");
    Ok(subject.is_some_and(|subject| subject == thread))
}

fn log_fails(session: &mut Session<'_>) -> Result<String> {
    let full = File::options().write(true).open("/dev/full")?;
    session.restart_with_log(full.into())?;
    serves_without_log(session)
}

fn log_unread(session: &mut Session<'_>) -> Result<String> {
    let (reader, mut writer) = io::pipe()?;
    ioctl_fionbio(&writer, true)?;
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    ioctl_fionbio(&writer, false)?;
    session.restart_with_log(writer.into())?;
    let seen = serves_without_log(session);
    drop(reader);
    seen
}

/// Has log lines dropped while misses are served from the origin; then restores the log.
fn serves_without_log(session: &mut Session<'_>) -> Result<String> {
    let dropped = clock::poll(LINES_WITHIN, || {
        for _signal in 0..100 {
            session.signal(Signal::HUP).ok()?;
            session.counts().ok()?;
        }
        session
            .count("/log_lines_dropped")
            .ok()
            .filter(|count| *count > 0)
    });
    dropped.context("no line of the log was dropped")?;
    let damaged = session.fresh()?;
    fs::write(damaged.data_chunk()?, "not what the name says")?;
    session.reads_not(&damaged, 75, "cannot get chunk")?;
    let dropped = session.count("/log_lines_dropped")?;
    let fresh = session.fresh()?;
    session.reads_whole(&fresh)?;
    session.good_after(|session| session.restart(&[]))?;
    Ok(format!("{dropped} lines dropped, misses served"))
}

fn reload_nonsense(session: &mut Session<'_>) -> Result<String> {
    let file = &session.testbed.config;
    let good = fs::read(file)?;
    fs::write(
        file,
        "[service]\ninterfaces = [\"edge0\"]\nsender = \"pigeon\"\n",
    )?;
    let from = session.lines()?;
    session.signal(Signal::HUP)?;
    let line = session.logged(from, "reloading is not supported")?;
    let words = ["edged.toml:3: service.sender", "pigeon"];
    let checked = session.refused(&words, &["--check"], &[], 78)?;
    session.refused(&words, &[], &[], 78)?;
    fs::write(file, good)?;
    session.good_again()?;
    Ok(format!("log: {line}; check: {checked}"))
}

/// A library between edged and the clock: adds the offset in the file.
const TEST_CLOCK: &str = include_str!("clock.c");

fn clock_set(session: &mut Session<'_>) -> Result<String> {
    let folder = &session.testbed.folder;
    let (source, library) = (folder.join("clock.c"), folder.join("clock.so"));
    let ahead = folder.join("clock.ahead");
    fs::write(&source, TEST_CLOCK)?;
    fs::write(&ahead, "0")?;
    let mut compile = Command::new("cc");
    compile
        .args(["-shared", "-fPIC", "-O1", "-o"])
        .arg(&library)
        .arg(&source);
    process::run(&mut compile)?;
    session.restart(&[("LD_PRELOAD", &library), ("SEALEDGE_CLOCK_AHEAD", &ahead)])?;

    let mut seen = Vec::new();
    for (seconds, words) in [("3600", "an hour forward"), ("0", "back again")] {
        let large = session.publish(LARGE_BYTES)?;
        let child = session.reader_in_the_middle(&large)?;
        let before = nack_cookie(session)?;
        fs::write(&ahead, seconds)?;
        wait(CLOCK_SEEN_WITHIN);
        session.good_after(|_| large.finished_by(child))?;
        let refused = nack_cookie(session)? - before;
        ensure!(refused > 0, "{words}: nack_cookie does not rise");
        seen.push(format!(
            "{words}: nack_cookie +{refused}, the reader finished"
        ));
    }
    session.restart(&[])?;
    Ok(seen.join("; "))
}

fn nack_cookie(session: &Session<'_>) -> Result<u64> {
    Ok(session.counts()?.xdp_packets(&["nack_cookie"]))
}

fn second_edged(session: &mut Session<'_>) -> Result<String> {
    const OTHER: &str = "10.71.0.3";
    let socket = session.testbed.folder.join("second.sock");
    let socket = socket.to_str().context("a path of ours")?;
    let (listen, edge) = (format!("{OTHER}:7347"), session.testbed.bed.edge.link);
    let mut seen = vec![session.refused(&["another edged answers"], &[], &[], 75)?];
    let own_socket = [
        ("SEALEDGE_ADMIN__SOCKET", socket),
        ("SEALEDGE_ADMIN__METRICS", ""),
    ];
    seen.push(session.refused(&["is taken", "ss -lunp"], &[], &own_socket, 75)?);
    session.ip(&format!("address add {OTHER}/24 dev {edge}"))?;
    let own_address = [
        &own_socket[..],
        &[("SEALEDGE_SERVICE__LISTEN", listen.as_str())],
    ]
    .concat();
    seen.push(session.refused(&["already attached to edge0"], &[], &own_address, 75)?);
    session.ip(&format!("address delete {OTHER}/24 dev {edge}"))?;
    if Path::new(socket).exists() {
        bail!("the second edged left its socket");
    }
    session.good_again()?;
    Ok(seen.join("; "))
}

fn foreign_program(session: &mut Session<'_>) -> Result<String> {
    let edge = session.testbed.bed.edge.link;
    let pass = paths::xdp().join("edge-pass");
    let attach = |session: &Session<'_>, more: &[&str]| {
        let mut command = session.testbed.bed.edge.ip_command();
        command
            .args(more)
            .args(["link", "set", "dev", edge, "xdpdrv", "obj"]);
        run_within(command.arg(&pass).args(["sec", "xdp"]), WITHIN)
    };
    for more in [&[][..], &["-force"]] {
        if attach(session, more)?.code == Some(0) {
            bail!("the kernel allowed a foreign program over the edge's ({more:?})");
        }
    }
    session.good_again()?;
    session.take_edged()?.stop()?;
    let attached = attach(session, &[])?;
    if attached.code != Some(0) {
        bail!(
            "the foreign program cannot be attached: {}",
            attached.stderr
        );
    }
    let words = [
        "already attached to edge0",
        "ip link show edge0",
        "stop its owner",
    ];
    let refused = session.refused(&words, &[], &[], 75)?;
    session.good_after(|session| {
        session.ip(&format!("link set dev {edge} xdpdrv off"))?;
        session.start(&[])
    })?;
    Ok(refused)
}
