//! The tools of every row: the edge, objects not yet fetched, single readers, counters.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use edge_testbed::{
    client::Client,
    clock,
    daemon::{Counts, Daemon, METRICS},
    objects::{self, Sealed, files},
    paths,
    process::{self, Ended},
    stop::{self, Stop},
};
use procfs::ProcResult;
use procfs::process::{Process, Task};
use rand::rngs::SmallRng;
use rustix::process::Signal;

use super::pressure::{self, RX_FRAMES};
use super::report::in_seconds;
use crate::reader::{End, HANGS_AFTER, fetch};
use crate::scenario::load::Load;
use crate::scenario::{http, random_files};
use crate::testbed::Testbed;

/// The promise: every fault is reported, and every recovery complete, within this time.
pub(super) const WITHIN: Duration = Duration::from_secs(10);
/// What keeps the edge from serving is in `/ready` within this time.
const NAMED_WITHIN: Duration = Duration::from_secs(2);
/// A link without packets for this time is idle; and how often that is checked.
const REST: Duration = Duration::from_millis(200);
const LOOKS: u32 = 20;
/// Attempts to stop a reader in the middle of an object.
const TRIES: u32 = 5;
/// An object of three data chunks and an index.
const SMALL_BYTES: usize = 300_000;
/// Root without the capability to read any file, so that file modes apply.
const WITHOUT_OVERRIDE: [&str; 2] = ["--bounding-set", "-dac_override,-dac_read_search"];

/// An object and the files of its chunks at the origin.
pub(super) struct Fresh {
    pub(super) sealed: Sealed,
    pub(super) chunks: Vec<PathBuf>,
}

impl Fresh {
    /// Checks that a reader received it intact, and removes the file.
    fn is_whole(&self) -> Result<()> {
        let out = self.out();
        if files::sha256(&out)? != self.sealed.object.sha256 {
            bail!("{} is corrupt", out.display());
        }
        Ok(fs::remove_file(&out)?)
    }

    /// Resumes a stopped reader, which must finish.
    pub(super) fn finished_by(&self, mut child: Child) -> Result<()> {
        process::signal(&child, Signal::CONT)?;
        let status = clock::poll(WITHIN, || child.try_wait().transpose());
        let status = status.context("the reader hangs")??;
        ensure!(status.success(), "the stopped reader ended with {status}");
        self.is_whole()
    }

    /// Removes the readers' output.
    fn forget(&self) -> Result<()> {
        let folder = self.out().parent().context("a folder of ours")?.to_owned();
        for path in half_files(&folder)? {
            fs::remove_file(path)?;
        }
        match fs::remove_file(self.out()) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// The largest is a full data chunk, not the short last one.
    pub(super) fn data_chunk(&self) -> Result<&Path> {
        let size = |chunk: &&PathBuf| chunk.metadata().map_or(0, |meta| meta.len());
        let largest = self.chunks.iter().max_by_key(size);
        Ok(largest.context("an object has chunks")?)
    }

    pub(super) fn out(&self) -> PathBuf {
        self.sealed.object.path.with_extension("out")
    }
}

pub(super) struct Session<'a> {
    pub(super) testbed: &'a Testbed<'a>,
    edged: Option<Daemon>,
    /// Objects published so far.
    published: u32,
    /// Generates their content.
    rng: SmallRng,
    /// Time until the service recovered.
    pub(super) took: Option<Duration>,
}

impl<'a> Session<'a> {
    pub(super) fn begin(testbed: &'a Testbed<'a>, rng: SmallRng) -> Result<Self> {
        let mut session = Self {
            testbed,
            edged: None,
            published: 0,
            rng,
            took: None,
        };
        session.start(&[])?;
        Ok(session)
    }

    // --- the edge

    /// Starts the edge with its settings and these variables.
    pub(super) fn start(&mut self, variables: &[(&str, &Path)]) -> Result<()> {
        self.testbed.settings.write(&self.testbed.config)?;
        let mut command = self.edged_command();
        command.envs(variables.iter().copied());
        self.edged = Some(Daemon::start(&mut command)?);
        Ok(())
    }

    /// Restarts the edge with these variables.
    pub(super) fn restart(&mut self, variables: &[(&str, &Path)]) -> Result<()> {
        self.take_edged()?.stop()?;
        self.start(variables)
    }

    /// The same, with its log elsewhere.
    pub(super) fn restart_with_log(&mut self, log: Stdio) -> Result<()> {
        self.take_edged()?.stop()?;
        let socket = &self.testbed.settings.socket;
        self.edged = Some(Daemon::start_with_log(
            &mut self.edged_command(),
            log,
            socket,
        )?);
        Ok(())
    }

    fn edged_command(&self) -> Command {
        let mut command = self.testbed.bed.edge.inside("setpriv");
        command
            .args(WITHOUT_OVERRIDE)
            .arg(paths::release("edged"))
            .arg("--config")
            .arg(&self.testbed.config);
        command
    }

    pub(super) fn edged(&mut self) -> Result<&mut Daemon> {
        self.edged.as_mut().context("edged does not run")
    }

    /// Takes the edge, to end it.
    pub(super) fn take_edged(&mut self) -> Result<Daemon> {
        self.edged.take().context("edged does not run")
    }

    pub(super) fn signal(&mut self, signal: Signal) -> Result<()> {
        self.edged()?.signal(signal)
    }

    /// Stops the edge, and waits until all its threads are stopped.
    pub(super) fn stop(&mut self) -> Result<()> {
        self.signal(Signal::STOP)?;
        let edged = process_of(self.edged()?.id())?;
        let stands = |task: ProcResult<Task>| task.and_then(|task| task.stat());
        let all_stand = || {
            let mut tasks = edged.tasks().ok()?;
            let all = tasks.all(|task| stands(task).is_ok_and(|stat| stat.state == 'T'));
            all.then_some(())
        };
        clock::poll(WITHIN, all_stand).context("edged does not stand still after SIGSTOP")
    }

    /// Waits until no more packets arrive at the edge's interface.
    pub(super) fn link_rests(&self) -> Result<()> {
        let received = || -> Result<u64> {
            let packets = self.testbed.bed.edge.facts()?["stats64"]["rx"]["packets"].as_u64();
            packets.context("`ip` does not report the received packets")
        };
        let mut last = received()?;
        for _look in 0..LOOKS {
            wait(REST);
            let now = received()?;
            if now == last {
                return Ok(());
            }
            last = now;
        }
        bail!("packets keep arriving")
    }

    /// Starts another `edged` with these variables, which must fail with this exit code and words.
    pub(super) fn refused(
        &self,
        words: &[&str],
        more: &[&str],
        variables: &[(&str, &str)],
        code: i32,
    ) -> Result<String> {
        let mut command = self.edged_command();
        command.args(more).envs(variables.iter().copied());
        refuses(&mut command, words, code)
    }

    /// Starts another `edged` in this control group, which must fail likewise.
    pub(super) fn refused_in(&self, group: &Path, words: &[&str], code: i32) -> Result<String> {
        let edged = self.edged_command();
        let mut command = Command::new("sh");
        command
            .args(["-c", "echo $$ >\"$0\" && exec \"$@\""])
            .arg(group.join("cgroup.procs"))
            .arg(edged.get_program())
            .args(edged.get_args());
        refuses(&mut command, words, code)
    }

    /// Waits until the edge logs a line with these words, after the first `from` lines.
    pub(super) fn logged(&mut self, from: usize, words: &str) -> Result<String> {
        let edged = self.edged()?;
        let line = clock::poll(WITHIN, || {
            let line = edged
                .log()
                .iter()
                .skip(from)
                .find(|line| line.contains(words));
            line.map(|line| sentence(line))
        });
        line.with_context(|| format!("edged does not log \"{words}\" within 10 s"))
    }

    /// Number of log lines so far.
    pub(super) fn lines(&mut self) -> Result<usize> {
        Ok(self.edged()?.log().len())
    }

    /// Whether an XDP program is on the edge's interface.
    pub(super) fn attached(&self) -> Result<bool> {
        Ok(self.testbed.bed.edge.program()?.is_some())
    }

    /// `ip` on the edge's side.
    pub(super) fn ip(&self, words: &str) -> Result<()> {
        self.testbed.bed.edge.ip(words).map(drop)
    }

    /// The response of `/ready`.
    fn ready(&self) -> Result<String> {
        let answer = self.testbed.bed.edge.enter(|| {
            let stream = TcpStream::connect(METRICS)?;
            stream.set_read_timeout(Some(NAMED_WITHIN))?;
            http::ask(stream, "/ready")
        })??;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// Waits until `/ready` reports a fault with these words, and returns the line.
    pub(super) fn is_not_ready(&self, words: &str) -> Result<String> {
        self.ready_says("HTTP/1.1 503 ", words)
    }

    /// Waits until `/ready` reports that the edge is ready.
    pub(super) fn is_ready(&self) -> Result<()> {
        self.ready_says("HTTP/1.1 200 ", "").map(drop)
    }

    fn ready_says(&self, status: &str, words: &str) -> Result<String> {
        let mut last = String::new();
        let said = clock::poll(NAMED_WITHIN, || {
            last = self.ready().unwrap_or_else(|error| format!("{error:#}"));
            let line = last.lines().find(|line| line.contains(words))?;
            last.starts_with(status).then(|| line.to_owned())
        });
        said.with_context(|| {
            format!("/ready does not return \"{status}{words}\" within 2 s, but: {last}")
        })
    }

    // --- its counters

    /// `edge stat`, as an operator runs it.
    pub(super) fn stat(&self) -> Result<Ended> {
        let mut stat = Command::new(paths::release("edge"));
        stat.args(["stat", "--socket"])
            .arg(&self.testbed.settings.socket);
        run_within(&mut stat, WITHIN)
    }

    pub(super) fn counts(&self) -> Result<Counts> {
        Counts::read(&self.testbed.settings.socket)
    }

    /// One of its counters, by its path.
    pub(super) fn count(&self, pointer: &str) -> Result<u64> {
        let counts = self.counts()?;
        let value = counts.all().pointer(pointer);
        Ok(value.and_then(serde_json::Value::as_u64).unwrap_or(0))
    }

    /// Checks that all sums match, nothing is in flight, and no thread panicked.
    pub(super) fn audit(&mut self) -> Result<()> {
        let socket = &self.testbed.settings.socket;
        let at_rest = clock::poll(WITHIN, || {
            self.count("/origin/in_flight")
                .is_ok_and(|count| count == 0)
                .then_some(())
        });
        if at_rest.is_none() {
            bail!("fetches from the origin are still under way");
        }
        Counts::audited(socket).context("the audit")?;
        let said = self.edged()?.log();
        if let Some(line) = said.iter().find(|line| line.contains("panicked")) {
            bail!("edged panicked: {line}");
        }
        let parts: Vec<PathBuf> = half_files(&self.testbed.folder)?;
        if !parts.is_empty() {
            bail!("readers left {parts:?}");
        }
        Ok(())
    }

    // --- readers

    pub(super) fn address(&self) -> SocketAddr {
        self.testbed.bed.services()[0]
    }

    /// A client with a cookie.
    pub(super) fn greet(&self) -> Result<Client> {
        Client::greet(
            &self.testbed.bed.reader,
            Ipv4Addr::UNSPECIFIED,
            self.address(),
        )
    }

    /// Waits until the background reader has fetched this often, and the edge runs.
    pub(super) fn while_read(&mut self, load: &Load<'_>, fetches: u64) -> Result<()> {
        load.wait_for_fetches(fetches, self.edged()?)
    }

    /// A small object that no reader has requested.
    pub(super) fn fresh(&mut self) -> Result<Fresh> {
        self.publish(SMALL_BYTES)
    }

    pub(super) fn publish(&mut self, bytes: usize) -> Result<Fresh> {
        self.published += 1;
        let folder = self
            .testbed
            .folder
            .join(format!("object-{}", self.published));
        fs::create_dir(&folder)?;
        let files = random_files(&folder, "plain", bytes, 1, &mut self.rng)?;
        let origin = self.testbed.settings.origin();
        let chunks = origin.join("chunks");
        let before: BTreeSet<PathBuf> = files::under(&chunks)?.into_iter().collect();
        let mut sealed = objects::seal(files, &folder, origin)?;
        let mut new = files::under(&chunks)?;
        new.retain(|chunk| !before.contains(chunk));
        let sealed = sealed.pop().context("one object was sealed")?;
        Ok(Fresh {
            sealed,
            chunks: new,
        })
    }

    /// Runs one reader to its end; returns the end and the time.
    pub(super) fn read(&self, fresh: &Fresh) -> Result<(Duration, End)> {
        let (reader, out) = (&self.testbed.bed.reader, fresh.out());
        let ended = fetch(
            reader,
            &fresh.sealed,
            self.address(),
            &out,
            HANGS_AFTER,
            || false,
        )?;
        let (took, end) = ended.context("a reader was not waited for")?;
        if !end.is_fair() {
            bail!("a reader {end}");
        }
        Ok((took, end))
    }

    pub(super) fn reads_whole(&self, fresh: &Fresh) -> Result<Duration> {
        match self.read(fresh)? {
            (time, End::Whole) => Ok(time),
            (_, end) => bail!("the reader {end}"),
        }
    }

    /// Runs a reader that must fail with this exit code and words.
    pub(super) fn reads_not(&self, fresh: &Fresh, code: i32, words: &str) -> Result<String> {
        match self.read(fresh)? {
            (time, End::Failed(got, said)) if got == code && said.contains(words) => {
                let time = in_seconds(time);
                Ok(format!(
                    "the reader gave up after {time} with exit code {code}: {said}"
                ))
            }
            (_, end) => bail!("the reader {end:?}"),
        }
    }

    /// A reader stopped in the middle of an object.
    pub(super) fn reader_in_the_middle(&self, fresh: &Fresh) -> Result<Child> {
        let reader = &self.testbed.bed.reader;
        let half = fresh.sealed.object.size / 2;
        let mut get = objects::get(reader, &fresh.sealed.ticket, self.address(), &fresh.out());
        get.stdout(Stdio::null()).stderr(Stdio::piped());
        for _try in 0..TRIES {
            let mut child = process::spawn(&mut get)?;
            let begun = clock::poll(WITHIN, || match child.try_wait() {
                Ok(None) => (written(child.id()) > 1 << 20).then_some(true),
                Ok(Some(_)) | Err(_) => Some(false),
            });
            if begun == Some(true) {
                process::signal(&child, Signal::STOP)?;
                if written(child.id()) < half {
                    return Ok(child);
                }
                process::signal(&child, Signal::KILL)?;
            }
            let ended = process::watch(child, || begun.is_none())?;
            let ended = ended.context("the reader does not start")?;
            match ended.code {
                // Too fast: try again.
                None | Some(0) => fresh.forget()?,
                Some(code) => bail!("the reader failed with {code}: {}", ended.stderr),
            }
        }
        bail!("no reader could be stopped in the middle")
    }

    /// The fault is over: requests a cold object until it succeeds.
    pub(super) fn good_again(&mut self) -> Result<()> {
        self.good_after(|_| Ok(()))
    }

    /// The same, after the fault was undone.
    pub(super) fn good_after(&mut self, undo: impl FnOnce(&mut Self) -> Result<()>) -> Result<()> {
        let over = clock::now();
        undo(self)?;
        let fresh = self.fresh()?;
        self.comes(&fresh, over)
    }

    /// The same, with an object of the row's own.
    pub(super) fn comes(&mut self, fresh: &Fresh, since: Instant) -> Result<()> {
        loop {
            let (_, end) = self.read(fresh)?;
            if end == End::Whole {
                return self.good_since(since);
            }
            if since.elapsed() > WITHIN {
                bail!("no recovery within 10 s: the reader {end}");
            }
        }
    }

    /// The service has recovered now.
    pub(super) fn good_since(&mut self, since: Instant) -> Result<()> {
        let took = since.elapsed();
        ensure!(took <= WITHIN, "recovered only after {took:.1?}");
        self.took = self.took.max(Some(took));
        Ok(())
    }

    // --- the end

    /// After a failed row: a new link and a new edge.
    pub(super) fn start_over(&mut self) -> Result<()> {
        if let Some(edged) = self.edged.take() {
            // A stopped process would not handle SIGTERM.
            edged.signal(Signal::CONT)?;
            drop(edged);
        }
        let bed = self.testbed.bed;
        if let Err(error) = bed.reader.ip(&format!("link delete {}", bed.reader.link)) {
            eprintln!("the link was removed already: {error:#}");
        }
        bed.link()?;
        self.start(&[])
    }

    /// Stops the edge; returns what is wrong then.
    pub(super) fn end(&mut self) -> Result<Vec<String>> {
        let mut wrong = Vec::new();
        let frames = pressure::frames_left(self)?;
        if frames != RX_FRAMES {
            wrong.push(format!(
                "of {RX_FRAMES} frames the kernel has {frames} left (I2)"
            ));
        }
        if let Err(error) = self.take_edged()?.stop() {
            wrong.push(format!("{error:#}"));
        }
        if self.attached()? {
            wrong.push("a program is left on the interface".to_owned());
        }
        if self.testbed.settings.socket.exists() {
            wrong.push("the admin socket is left behind".to_owned());
        }
        Ok(wrong)
    }
}

/// Runs an `edged` that must fail with this exit code and words, in its last line.
fn refuses(command: &mut Command, words: &[&str], code: i32) -> Result<String> {
    let ended = run_within(command, WITHIN)?;
    let said = ended.stderr.lines().last().unwrap_or_default().to_owned();
    let as_expected = ended.code == Some(code) && words.iter().all(|word| said.contains(word));
    if !as_expected {
        bail!("edged ended with {:?}: {}", ended.code, ended.stderr);
    }
    Ok(sentence(&said))
}

/// Runs a program that must end by itself within this time, in any way.
pub(super) fn run_within(command: &mut Command, within: Duration) -> Result<Ended> {
    let begin = clock::now();
    let child = process::spawn(command.stdout(Stdio::null()).stderr(Stdio::piped()))?;
    match process::watch(child, || begin.elapsed() > within)? {
        Some(ended) => Ok(ended),
        None if stop::came() => Err(Stop::interrupted()),
        None => bail!("does not end within {within:?}: {}", process::line(command)),
    }
}

/// Waits, unless the command is interrupted.
pub(super) fn wait(time: Duration) {
    clock::poll(time, || stop::came().then_some(()));
}

/// Files that readers did not finish.
pub(super) fn half_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut found = files::under(folder)?;
    found.retain(|path| {
        path.extension()
            .is_some_and(|extension| extension == "part")
    });
    Ok(found)
}

/// The message of a log line, without time and level.
pub(super) fn sentence(line: &str) -> String {
    let words = line.split_once(": ").map_or(line, |(_, words)| words);
    words.to_owned()
}

/// Bytes a process has written so far.
fn written(pid: u32) -> u64 {
    let io = process_of(pid).and_then(|process| Ok(process.io()?));
    io.map_or(0, |io| io.wchar)
}

pub(super) fn process_of(pid: u32) -> Result<Process> {
    Ok(Process::new(pid.try_into()?)?)
}
