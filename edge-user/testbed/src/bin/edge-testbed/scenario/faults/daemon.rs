//! What happens to `edged`: killed, stopped for a while, told nonsense, confused about the time,
//! started twice, and an interface that is taken.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_testbed::{clock, place, process};
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;
use rustix::io::ioctl_fionbio;
use rustix::process::Signal;

use super::play::{Play, WITHIN, run_within, wait};
use super::{Fault, NOTHING, UNREACHABLE};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "killed",
        done: "SIGKILL to edged while a reader is in the middle of an object; edged is started anew",
        expected: "no program stays attached; the restart finds the dead socket and serves; the \
                   reader greets anew and finishes",
        excuses: UNREACHABLE,
        play: killed,
    },
    Fault {
        name: "stopped",
        done: "SIGSTOP to edged for ten seconds, then SIGCONT",
        expected: "the program greets on and nobody answers; `edge stat` says that nobody answers; \
                   readers wait, or give up and say so; then it serves",
        excuses: UNREACHABLE,
        play: stopped,
    },
    Fault {
        name: "thread-held",
        done: "a worker, then the miss path, held as a debugger holds a thread",
        expected: "within ten seconds the log and `edge stat` name the thread; readers wait, or give \
                   up and say so; let go, it serves",
        excuses: UNREACHABLE,
        play: thread_held,
    },
    Fault {
        name: "log-fails",
        done: "edged with its log on a full device, and a damaged chunk fetched",
        expected: "lines are dropped and counted; nobody's reader notices",
        excuses: UNREACHABLE,
        play: log_fails,
    },
    Fault {
        name: "log-unread",
        done: "edged with its log in a full pipe that nobody reads, more lines than the queue \
               before it holds, and a damaged chunk fetched",
        expected: "lines are dropped and counted; misses are served; it stops when told",
        excuses: UNREACHABLE,
        play: log_unread,
    },
    Fault {
        name: "reload-nonsense",
        done: "nonsense in the configuration file, SIGHUP, `edged --check`, and a start with it",
        expected: "there is no reload: SIGHUP changes nothing and says so; --check and a start \
                   refuse with the line and exit code 78; nobody's reader notices",
        excuses: NOTHING,
        play: reload_nonsense,
    },
    Fault {
        name: "clock-set",
        done: "edged's clock (a test clock under it, not the machine's) an hour forth and back \
               again, each time with a reader in the middle of an object",
        expected: "the program refuses the reader's cookie (nack_cookie); it greets anew and \
                   finishes",
        excuses: UNREACHABLE,
        play: clock_set,
    },
    Fault {
        name: "second-edged",
        done: "a second edged: with the same configuration, with a socket of its own, with a \
               socket and an address of its own",
        expected: "each refuses with exit code 75 and names who is in the way; the first serves on",
        excuses: NOTHING,
        play: second_edged,
    },
    Fault {
        name: "foreign-program",
        done: "somebody else attaches a program while edged runs, and before it starts",
        expected: "the kernel refuses the one; edged refuses to start over the other, exit code \
                   75, and names the interface; when it is gone, edged serves",
        excuses: UNREACHABLE,
        play: foreign_program,
    },
];

/// Long enough to be in the middle of.
const LARGE_BYTES: u64 = 64 << 20;
/// For more lines than wait for the log.
const LINES_WITHIN: Duration = Duration::from_mins(1);
/// The issue's.
const STOPPED_FOR: Duration = Duration::from_secs(10);
/// The miss path looks at the clock once a second; a reader that was stopped for three greets anew
/// by itself.
const CLOCK_SEEN_WITHIN: Duration = Duration::from_secs(2);

fn killed(play: &mut Play<'_>) -> Result<String> {
    let large = play.publish(LARGE_BYTES)?;
    let mut child = play.reader_in_the_middle(&large)?;
    play.signal(Signal::KILL)?;
    process::signal(&child, Signal::CONT)?;
    play.take_edged()?.ended(WITHIN)?;
    // The kernel takes the program down when the last handle is gone, a moment later.
    let gone = clock::poll(Duration::from_secs(5), || {
        play.attached()
            .is_ok_and(|attached| !attached)
            .then_some(())
    });
    gone.context("the program is still attached after 5 s")?;
    if !play.stage.settings.socket.exists() {
        bail!("the dead socket that the restart is to find is not there");
    }
    let over = clock::now();
    play.start(&[])?;
    play.good_again(over)?;
    let status = clock::poll(WITHIN, || child.try_wait().transpose());
    let status = status.context("the reader hangs")??;
    if !status.success() {
        bail!("the reader in the middle ended with {status}");
    }
    large.is_whole()?;
    Ok("nothing stayed attached, the restart served, and the reader in the middle finished".into())
}

fn stopped(play: &mut Play<'_>) -> Result<String> {
    let begin = clock::now();
    play.signal(Signal::STOP)?;
    let stat = play.stat()?;
    if stat.code != Some(1) || !stat.said.contains("no answer in 5 seconds") {
        bail!("`edge stat` ended with {:?}: {}", stat.code, stat.said);
    }
    let left = STOPPED_FOR.saturating_sub(begin.elapsed());
    wait(left);
    let over = clock::now();
    play.signal(Signal::CONT)?;
    play.good_again(over)?;
    Ok(format!("`edge stat`: {}", stat.said))
}

/// One thread of a process, held until this value goes.
struct Held(Pid);

impl Held {
    fn thread(process: u32, name: &str) -> Result<Self> {
        let mut tasks = fs::read_dir(format!("/proc/{process}/task"))?;
        let id = tasks.find_map(|task| {
            let path = task.ok()?.path();
            let is_it = fs::read_to_string(path.join("comm")).ok()?.trim_end() == name;
            is_it
                .then(|| path.file_name()?.to_str()?.parse().ok())
                .flatten()
        });
        let thread = Pid::from_raw(id.with_context(|| format!("edged has no thread {name}"))?);
        ptrace::seize(thread, ptrace::Options::empty())?;
        ptrace::interrupt(thread)?;
        waitpid(thread, Some(WaitPidFlag::__WALL))?;
        Ok(Self(thread))
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Err(error) = ptrace::detach(self.0, None) {
            eprintln!("a thread of edged stays held: {error}");
        }
    }
}

fn thread_held(play: &mut Play<'_>) -> Result<String> {
    let mut seen = Vec::new();
    for name in ["worker-0", "filler"] {
        let from = play.lines()?;
        let held = Held::thread(play.edged()?.id(), name)?;
        seen.push(play.hear(from, &format!("the thread {name} is stalled"))?);
        if !faulty(play, name)? {
            bail!("`edge stat` does not name {name}");
        }
        let over = clock::now();
        drop(held);
        play.hear(from, &format!("over: the thread {name}"))?;
        play.good_again(over)?;
    }
    Ok(seen.join("; "))
}

fn faulty(play: &Play<'_>, thread: &str) -> Result<bool> {
    let counts = play.counts()?;
    let subject = counts.all().pointer("/faults/0/subject");
    Ok(subject.is_some_and(|subject| subject == thread))
}

fn log_fails(play: &mut Play<'_>) -> Result<String> {
    let full = File::options().write(true).open("/dev/full")?;
    play.restart_with_log(full.into())?;
    serves_without_log(play)
}

fn log_unread(play: &mut Play<'_>) -> Result<String> {
    let (reader, mut writer) = io::pipe()?;
    ioctl_fionbio(&writer, true)?;
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    ioctl_fionbio(&writer, false)?;
    play.restart_with_log(writer.into())?;
    let seen = serves_without_log(play);
    drop(reader);
    seen
}

/// Has lines dropped, and is served from the origin all the same; then puts the log right.
fn serves_without_log(play: &mut Play<'_>) -> Result<String> {
    let dropped = clock::poll(LINES_WITHIN, || {
        for _signal in 0..100 {
            play.signal(Signal::HUP).ok()?;
            play.counts().ok()?;
        }
        play.count("/log_lines_dropped")
            .ok()
            .filter(|count| *count > 0)
    });
    dropped.context("no line of the log was dropped")?;
    let damaged = play.fresh()?;
    fs::write(damaged.data_chunk()?, "not what the name says")?;
    play.reads_not(&damaged, 75, "cannot get chunk")?;
    let dropped = play.count("/log_lines_dropped")?;
    let fresh = play.fresh()?;
    play.reads_whole(&fresh)?;
    let over = clock::now();
    play.take_edged()?.stop()?;
    play.start(&[])?;
    play.good_again(over)?;
    Ok(format!("{dropped} lines dropped, misses served"))
}

fn reload_nonsense(play: &mut Play<'_>) -> Result<String> {
    let file = &play.stage.config;
    let good = fs::read(file)?;
    fs::write(
        file,
        "[service]\ninterfaces = [\"edge0\"]\nsender = \"pigeon\"\n",
    )?;
    let from = play.lines()?;
    play.signal(Signal::HUP)?;
    let heard = play.hear(from, "nothing changed")?;
    let words = ["edged.toml:3: service.sender", "pigeon"];
    let checked = play.refused(&words, &["--check"], &[], 78)?;
    play.refused(&words, &[], &[], 78)?;
    fs::write(file, good)?;
    play.good_again(clock::now())?;
    Ok(format!("log: {heard}; check: {checked}"))
}

/// A library that stands between edged and the clock: what the file says is added to it.
const TEST_CLOCK: &str = include_str!("clock.c");

fn clock_set(play: &mut Play<'_>) -> Result<String> {
    let folder = &play.stage.folder;
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
    play.take_edged()?.stop()?;
    play.start(&[("LD_PRELOAD", &library), ("SEALEDGE_CLOCK_AHEAD", &ahead)])?;

    let mut seen = Vec::new();
    for (seconds, words) in [("3600", "an hour forth"), ("0", "back again")] {
        let large = play.publish(LARGE_BYTES)?;
        let mut child = play.reader_in_the_middle(&large)?;
        let before = nack_cookie(play)?;
        fs::write(&ahead, seconds)?;
        wait(CLOCK_SEEN_WITHIN);
        let over = clock::now();
        process::signal(&child, Signal::CONT)?;
        let status = clock::poll(WITHIN, || child.try_wait().transpose());
        let status = status.context("the reader hangs")??;
        let refused = nack_cookie(play)? - before;
        if !status.success() || refused == 0 {
            bail!("{words}: the reader ended with {status}, nack_cookie rose by {refused}");
        }
        large.is_whole()?;
        play.good_again(over)?;
        seen.push(format!(
            "{words}: nack_cookie +{refused}, the reader finished"
        ));
    }
    play.take_edged()?.stop()?;
    play.start(&[])?;
    Ok(seen.join("; "))
}

fn nack_cookie(play: &Play<'_>) -> Result<u64> {
    Ok(play.counts()?.xdp_packets(&["nack_cookie"]))
}

fn second_edged(play: &mut Play<'_>) -> Result<String> {
    const OTHER: &str = "10.71.0.3";
    let socket = play.stage.folder.join("second.sock");
    let socket = socket.to_str().context("a path of ours")?;
    let (listen, edge) = (format!("{OTHER}:7347"), play.stage.bed.edge.link);
    let mut seen = vec![play.refused(&["another edged answers"], &[], &[], 75)?];
    let own_socket = [
        ("SEALEDGE_ADMIN__SOCKET", socket),
        ("SEALEDGE_ADMIN__METRICS", ""),
    ];
    seen.push(play.refused(&["is taken", "ss -lunp"], &[], &own_socket, 75)?);
    play.ip(&format!("address add {OTHER}/24 dev {edge}"))?;
    let own_address = [
        &own_socket[..],
        &[("SEALEDGE_SERVICE__LISTEN", listen.as_str())],
    ]
    .concat();
    seen.push(play.refused(&["already attached to edge0"], &[], &own_address, 75)?);
    play.ip(&format!("address delete {OTHER}/24 dev {edge}"))?;
    if Path::new(socket).exists() {
        bail!("the second edged left its socket");
    }
    play.good_again(clock::now())?;
    Ok(seen.join("; "))
}

fn foreign_program(play: &mut Play<'_>) -> Result<String> {
    let edge = play.stage.bed.edge.link;
    let pass = place::xdp().join("edge-pass");
    let attach = |play: &Play<'_>, more: &[&str]| {
        let mut command = play.stage.bed.edge.ip_command();
        command
            .args(more)
            .args(["link", "set", "dev", edge, "xdpdrv", "obj"]);
        run_within(command.arg(&pass).args(["sec", "xdp"]), WITHIN)
    };
    for more in [&[][..], &["-force"]] {
        if attach(play, more)?.code == Some(0) {
            bail!("the kernel let somebody else attach a program over the edge's ({more:?})");
        }
    }
    play.good_again(clock::now())?;
    play.take_edged()?.stop()?;
    let attached = attach(play, &[])?;
    if attached.code != Some(0) {
        bail!("the foreign program cannot be attached: {}", attached.said);
    }
    let words = [
        "already attached to edge0",
        "ip link show edge0",
        "stop its owner",
    ];
    let refused = play.refused(&words, &[], &[], 75)?;
    let over = clock::now();
    play.ip(&format!("link set dev {edge} xdpdrv off"))?;
    play.start(&[])?;
    play.good_again(over)?;
    Ok(refused)
}
