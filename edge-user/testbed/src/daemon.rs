//! An `edged` process: settings, start, counters, end.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::bed::Bed;
use crate::clock;
use crate::paths;
use crate::process;
use crate::stop::{self, Stop};

/// Metrics and health.
pub const METRICS: &str = "127.0.0.1:9347";
/// Limit for a start: mostly loading the program through the verifier and clearing the arena's
/// pages.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// Limit for the last log lines of a daemon that ended.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);
/// Umem and rings of one receive queue.
const QUEUE_BYTES: u64 = 16 << 20;
/// Other hugepages of the daemon, with a margin.
const BESIDE_ARENA_BYTES: u64 = 48 << 20;

/// How the daemon can send its replies.
pub const SENDERS: [&str; 2] = ["gso", "xsk"];

/// The daemon's settings that a run chooses.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The folder of `edged`, and of the `edge` that reads its counters.
    pub programs: PathBuf,
    pub interfaces: Vec<String>,
    pub listen: Vec<SocketAddr>,
    /// Folders; the second is used if the first cannot help.
    pub origins: Vec<PathBuf>,
    pub socket: PathBuf,
    pub metrics: &'static str,
    pub arena_bytes: u64,
    pub hugepages: &'static str,
    pub sender: String,
    pub xdp: String,
    pub bind: String,
    pub vlans: &'static [&'static str],
}

impl Settings {
    /// An edge on its side of a bed, over IPv4 and IPv6, with its files in this folder.
    pub fn on(bed: &Bed, folder: &Path) -> Self {
        Self {
            interfaces: vec![bed.edge.link.into()],
            listen: bed.services().to_vec(),
            ..Self::in_folder(folder)
        }
    }

    /// Native XDP, and files in this folder; interface and addresses are still to be set.
    pub fn in_folder(folder: &Path) -> Self {
        Self {
            programs: paths::programs(),
            interfaces: Vec::new(),
            listen: Vec::new(),
            origins: vec![folder.join("origin")],
            socket: folder.join("admin.sock"),
            metrics: METRICS,
            arena_bytes: 64 << 20,
            hugepages: "require",
            sender: "gso".into(),
            xdp: "native".into(),
            bind: "copy".into(),
            vlans: &[],
        }
    }

    pub fn origin(&self) -> &Path {
        &self.origins[0]
    }

    pub fn to_toml(&self) -> String {
        let url = |origin: &PathBuf| json!({"url": format!("file://{}", origin.display())});
        let origins: Vec<Value> = self.origins.iter().map(url).collect();
        let file = json!({
            "service": {
                "interfaces": self.interfaces,
                "listen": self.listen,
                "sender": self.sender,
            },
            "xdp": {"mode": self.xdp, "bind": self.bind, "vlans": self.vlans},
            "store": {
                "arena": "memory",
                "size": format!("{}KiB", self.arena_bytes >> 10),
                "hugepages": self.hugepages,
            },
            "origin": origins,
            "admin": {"socket": self.socket, "metrics": self.metrics},
        });
        toml::to_string(&file).expect("a tree of tables and texts")
    }

    /// Writes the settings to the daemon's configuration file.
    pub fn write(&self, file: &Path) -> Result<()> {
        let written = fs::write(file, self.to_toml());
        written.with_context(|| format!("cannot write {}", file.display()))
    }

    /// `edged` with these settings in this file, on the edge's side of a bed.
    pub fn command(&self, bed: &Bed, file: &Path) -> Result<Command> {
        self.write(file)?;
        let mut command = bed.edge.inside(self.programs.join("edged"));
        command.arg("--config").arg(file);
        Ok(command)
    }

    /// The counters of a daemon with these settings.
    pub fn counts(&self) -> Result<Counts> {
        stat_by(&self.programs.join("edge"), &self.socket, &[]).map(Counts)
    }
}

/// Hugepages to reserve for a daemon with this arena and this number of receive queues.
pub fn hugepage_bytes(arena_bytes: u64, queues: u64) -> u64 {
    arena_bytes + queues * QUEUE_BYTES + BESIDE_ARENA_BYTES
}

/// A running daemon; ended on drop.
pub struct Daemon {
    child: Child,
    stderr: Receiver<String>,
    /// All its log lines: a few at the start and the end, at most one a minute between.
    log: Vec<String>,
    line: String,
}

impl Daemon {
    /// Starts it and waits until it is ready.
    pub fn start(command: &mut Command) -> Result<Self> {
        command.stdout(std::io::stderr()).stderr(Stdio::piped());
        let mut child = process::spawn(command)?;
        let stderr = process::line_by_line(child.stderr.take());
        let mut daemon = Self {
            child,
            stderr,
            log: Vec::new(),
            line: process::line(command),
        };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Starts it with its log elsewhere, and waits until its counters can be read.
    pub fn start_with_log(command: &mut Command, log: Stdio, socket: &Path) -> Result<Self> {
        let mut child = process::spawn(command.stdout(std::io::stderr()).stderr(log))?;
        let daemon = Self {
            stderr: process::line_by_line(child.stderr.take()),
            child,
            log: Vec::new(),
            line: process::line(command),
        };
        let ready = clock::poll(READY_WITHIN, || Counts::read(socket).ok());
        ready.with_context(|| format!("not ready: {}", daemon.line))?;
        Ok(daemon)
    }

    fn wait_until_ready(&mut self) -> Result<()> {
        let deadline = clock::now() + READY_WITHIN;
        loop {
            match self.stderr.recv_timeout(Duration::from_millis(50)) {
                Ok(line) => {
                    let ready = is_ready(&line);
                    self.keep(line);
                    if ready {
                        return Ok(());
                    }
                }
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => {
                    let status = self.child.wait()?;
                    bail!(
                        "ended before it was ready ({status}): {}{}",
                        self.line,
                        quoted(&self.log)
                    );
                }
            }
            if stop::came() {
                return Err(Stop::interrupted());
            }
            if clock::now() >= deadline {
                let seconds = READY_WITHIN.as_secs();
                bail!(
                    "not ready within {seconds} s: {}{}",
                    self.line,
                    quoted(&self.log)
                );
            }
        }
    }

    /// Prints a line and keeps it.
    fn keep(&mut self, line: String) {
        eprintln!("edged: {line}");
        self.log.push(line);
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Checks that it still runs; prints its log meanwhile.
    pub fn runs(&mut self) -> Result<()> {
        self.log();
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("ended by itself ({status}): {}", self.line),
        }
    }

    /// All log lines so far.
    pub fn log(&mut self) -> &[String] {
        while let Ok(line) = self.stderr.try_recv() {
            self.keep(line);
        }
        &self.log
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(&self.child, signal)
    }

    /// Waits for it to end by itself, and reads the rest of its log.
    pub fn ended(&mut self, within: Duration) -> Result<ExitStatus> {
        let child = &mut self.child;
        let status = clock::poll(within, || child.try_wait().transpose());
        let Some(status) = status else {
            let seconds = within.as_secs();
            bail!("still runs after {seconds} s: {}", self.line);
        };
        while let Ok(line) = self.stderr.recv_timeout(LAST_WORDS_WITHIN) {
            self.keep(line);
        }
        Ok(status?)
    }

    /// Stops it, checks that it ends cleanly, and returns its log.
    pub fn stop(mut self) -> Result<Vec<String>> {
        self.runs()?;
        process::end(&mut self.child);
        while let Ok(line) = self.stderr.recv_timeout(LAST_WORDS_WITHIN) {
            self.keep(line);
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("did not stop cleanly on SIGTERM ({status}): {}", self.line);
        }
        Ok(std::mem::take(&mut self.log))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            process::end(&mut self.child);
        }
    }
}

/// The output of `edge stat --json`.
pub fn stat<T: DeserializeOwned>(socket: &Path, more: &[&str]) -> Result<T> {
    stat_by(&paths::release("edge"), socket, more)
}

fn stat_by<T: DeserializeOwned>(edge: &Path, socket: &Path, more: &[&str]) -> Result<T> {
    let mut command = Command::new(edge);
    command.args(["stat", "--json", "--socket"]).arg(socket);
    let text = process::output(command.args(more))?;
    serde_json::from_str(&text).context("invalid output of `edge stat --json`")
}

/// The daemon's counters, from `edge stat --json`.
#[derive(Clone, Debug)]
pub struct Counts(Value);

impl Counts {
    pub fn read(socket: &Path) -> Result<Self> {
        stat(socket, &[]).map(Self)
    }

    /// The counters of an idle edge, whose sums must match (I2, I10).
    pub fn audited(socket: &Path) -> Result<Self> {
        stat(socket, &["--check"]).map(Self)
    }

    /// All of them, as the edge reports them.
    pub fn all(&self) -> &Value {
        &self.0
    }

    /// Fetches from the origin.
    pub fn origin_fetches(&self) -> u64 {
        self.0["origin"]["fetches_total"].as_u64().unwrap_or(0)
    }

    /// Packets that the XDP program ended for one of these reasons, on all queues of all
    /// interfaces.
    pub fn xdp_packets(&self, reasons: &[&str]) -> u64 {
        let interfaces = self.0["interfaces"].as_array().into_iter().flatten();
        interfaces
            .filter_map(|interface| interface["xdp"].as_object())
            .flat_map(|queues| queues.values())
            .flat_map(|queue| reasons.iter().map(|reason| &queue[*reason]["packets"]))
            .filter_map(Value::as_u64)
            .sum()
    }

    /// The mode in use: `xdp`, `bind`, `hugepages`, `sender`.
    pub fn mode(&self) -> &Value {
        &self.0["mode"]
    }
}

fn is_ready(line: &str) -> bool {
    line.split(|letter: char| !letter.is_ascii_alphanumeric())
        .any(|word| word == "ready")
}

/// The last lines, for a message.
fn quoted(log: &[String]) -> String {
    if log.is_empty() {
        return String::from("\nno log");
    }
    let last = log.len().saturating_sub(20);
    format!("\nlog:\n  {}", log[last..].join("\n  "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bed::Plan;

    #[test]
    fn the_settings_are_toml() {
        let bed = Bed::new(0, Plan::default());
        let settings = Settings {
            arena_bytes: 512 << 20,
            ..Settings::on(&bed, Path::new("/tmp/a b"))
        };
        let toml = settings.to_toml();
        assert!(
            toml.contains("listen = [\"10.71.0.1:7347\", \"[fd71::1]:7347\"]"),
            "{toml}"
        );
        assert!(toml.contains("url = \"file:///tmp/a b/origin\""), "{toml}");
        assert!(toml.contains("size = \"524288KiB\""), "{toml}");
    }

    #[test]
    fn ready_is_a_word_of_its_own() {
        assert!(is_ready("2026-01-01 INFO edged: ready, 2 workers"));
        assert!(!is_ready("INFO already bound"));
    }

    #[test]
    fn packets_are_summed_over_queues_and_reasons() {
        let counts = Counts(serde_json::json!({"interfaces": [{"xdp": {
            "0": {"miss": {"packets": 2, "bytes": 9}, "steered": {"packets": 40, "bytes": 1}},
            "1": {"miss": {"packets": 3, "bytes": 9}, "no_socket": {"packets": 1, "bytes": 1}},
        }}]}));
        assert_eq!(counts.xdp_packets(&["steered"]), 40);
        assert_eq!(counts.xdp_packets(&["miss", "no_socket", "no_metadata"]), 6);
    }
}
