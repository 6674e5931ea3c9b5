//! One `edged`: its settings, its start, what it counts, its end.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;
use serde_json::Value;

use crate::clock;
use crate::place;
use crate::process;
use crate::stop::{self, Stop};

/// The service's port.
pub const PORT: u16 = 7347;
/// Metrics and health.
pub const METRICS: &str = "127.0.0.1:9347";
/// How long a start may take: loading the program through the verifier and clearing the arena's
/// pages are most of it.
const READY_WITHIN: Duration = Duration::from_mins(1);
/// How long the last lines of a daemon that ended may be on their way.
const LAST_WORDS_WITHIN: Duration = Duration::from_secs(1);
/// Umem and rings of one receive queue.
const QUEUE_BYTES: u64 = 16 << 20;
/// Whatever else the daemon has in hugepages, with room to spare.
const BESIDE_ARENA_BYTES: u64 = 48 << 20;

/// How the daemon can send its replies.
pub const SENDERS: [&str; 2] = ["gso", "xsk"];

/// What of the daemon's settings a run chooses.
#[derive(Clone, Debug)]
pub struct Settings {
    pub interface: String,
    /// Receive queues of the interface; each has a worker.
    pub queues: u64,
    pub listen: Vec<SocketAddr>,
    pub origin: PathBuf,
    pub socket: PathBuf,
    pub arena_bytes: u64,
    pub sender: String,
    pub xdp: String,
    pub bind: String,
}

impl Settings {
    /// What to reserve so that the daemon finds its hugepages.
    pub fn hugepage_bytes(&self) -> u64 {
        self.arena_bytes + self.queues * QUEUE_BYTES + BESIDE_ARENA_BYTES
    }

    pub fn to_toml(&self) -> String {
        let listen: Vec<String> = self
            .listen
            .iter()
            .map(|address| quote(&address.to_string()))
            .collect();
        format!(
            "[service]\ninterfaces = [{}]\nlisten = [{}]\nsender = {}\n\n\
             [xdp]\nmode = {}\nbind = {}\n\n\
             [store]\narena = \"memory\"\nsize = \"{}MiB\"\nhugepages = \"require\"\n\n\
             [[origin]]\nurl = {}\n\n\
             [admin]\nsocket = {}\nmetrics = \"{METRICS}\"\n",
            quote(&self.interface),
            listen.join(", "),
            quote(&self.sender),
            quote(&self.xdp),
            quote(&self.bind),
            self.arena_bytes >> 20,
            quote(&format!("file://{}", self.origin.display())),
            quote(&self.socket.display().to_string()),
        )
    }
}

/// A running daemon. Let go of without `stop`, it is ended all the same.
pub struct Daemon {
    child: Child,
    stderr: Receiver<String>,
    /// All it wrote: a few lines at the start and the end, one a minute at most between.
    said: Vec<String>,
    line: String,
}

impl Daemon {
    /// Starts it and waits for its word that it serves.
    pub fn start(command: &mut Command) -> Result<Self> {
        command.stdout(std::io::stderr()).stderr(Stdio::piped());
        let mut child = process::spawn(command)?;
        let stderr = process::line_by_line(child.stderr.take());
        let mut daemon = Self {
            child,
            stderr,
            said: Vec::new(),
            line: process::line(command),
        };
        daemon.wait_until_ready()?;
        Ok(daemon)
    }

    /// Starts it with its log going elsewhere, and waits until its counters can be read.
    pub fn start_with_log(command: &mut Command, log: Stdio, socket: &Path) -> Result<Self> {
        let mut child = process::spawn(command.stdout(std::io::stderr()).stderr(log))?;
        let daemon = Self {
            stderr: process::line_by_line(child.stderr.take()),
            child,
            said: Vec::new(),
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
                    self.hear(line);
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
                        quoted(&self.said)
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
                    quoted(&self.said)
                );
            }
        }
    }

    /// Shows a line and keeps it.
    fn hear(&mut self, line: String) {
        eprintln!("edged: {line}");
        self.said.push(line);
    }

    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs; shows what it said meanwhile.
    pub fn runs(&mut self) -> Result<()> {
        self.said();
        match self.child.try_wait()? {
            None => Ok(()),
            Some(status) => bail!("ended by itself ({status}): {}", self.line),
        }
    }

    /// All it said so far.
    pub fn said(&mut self) -> &[String] {
        while let Ok(line) = self.stderr.try_recv() {
            self.hear(line);
        }
        &self.said
    }

    pub fn signal(&self, signal: Signal) -> Result<()> {
        process::signal(&self.child, signal)
    }

    /// Waits for an end nobody asks for, and hands over how it ended and all it said.
    pub fn ended(mut self, within: Duration) -> Result<(ExitStatus, Vec<String>)> {
        let child = &mut self.child;
        let status = clock::poll(within, || child.try_wait().transpose());
        let Some(status) = status else {
            let seconds = within.as_secs();
            bail!("still runs after {seconds} s: {}", self.line);
        };
        while let Ok(line) = self.stderr.recv_timeout(LAST_WORDS_WITHIN) {
            self.hear(line);
        }
        Ok((status?, std::mem::take(&mut self.said)))
    }

    /// Asks it to stop, insists on a clean end, and hands over all it said.
    pub fn stop(mut self) -> Result<Vec<String>> {
        self.runs()?;
        process::end(&mut self.child);
        while let Ok(line) = self.stderr.recv_timeout(LAST_WORDS_WITHIN) {
            self.hear(line);
        }
        let status = self.child.wait()?;
        if !status.success() {
            bail!("did not stop cleanly on SIGTERM ({status}): {}", self.line);
        }
        Ok(std::mem::take(&mut self.said))
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            process::end(&mut self.child);
        }
    }
}

/// What the daemon counted so far, as `edge stat --json` tells it.
#[derive(Clone, Debug)]
pub struct Counts(Value);

impl Counts {
    pub fn read(socket: &Path) -> Result<Self> {
        Self::ask(socket, &[])
    }

    fn ask(socket: &Path, more: &[&str]) -> Result<Self> {
        let mut command = Command::new(place::release("edge"));
        command.args(["stat", "--json", "--socket"]).arg(socket);
        command.args(more);
        let text = process::output(&mut command)?;
        let value = serde_json::from_str(&text).context("`edge stat --json` wrote no JSON")?;
        Ok(Self(value))
    }

    /// The counts of an edge at rest, which must add up (I2, I10).
    pub fn audited(socket: &Path) -> Result<Self> {
        Self::ask(socket, &["--check"])
    }

    /// All of it, as the edge tells it.
    pub fn all(&self) -> &Value {
        &self.0
    }

    /// Fetches from the origin.
    pub fn origin_fetches(&self) -> u64 {
        self.0["origin"]["fetches_total"].as_u64().unwrap_or(0)
    }

    /// Packets the XDP program ended for one of these reasons, on all queues of all interfaces.
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

/// Writes the settings where the daemon will read them.
pub fn write_config(settings: &Settings, file: &Path) -> Result<()> {
    fs::write(file, settings.to_toml()).with_context(|| format!("cannot write {}", file.display()))
}

fn is_ready(line: &str) -> bool {
    line.split(|letter: char| !letter.is_ascii_alphanumeric())
        .any(|word| word == "ready")
}

/// The last lines, for a message.
fn quoted(said: &[String]) -> String {
    if said.is_empty() {
        return String::from("\nit said nothing");
    }
    let last = said.len().saturating_sub(20);
    format!("\nit said:\n  {}", said[last..].join("\n  "))
}

/// JSON's strings are TOML's basic strings.
fn quote(text: &str) -> String {
    Value::from(text).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_settings_are_toml() {
        let settings = Settings {
            interface: "edge0".into(),
            queues: 1,
            listen: vec![
                "10.71.0.1:7347".parse().unwrap(),
                "[fd71::1]:7347".parse().unwrap(),
            ],
            origin: "/tmp/a b".into(),
            socket: "/run/x.sock".into(),
            arena_bytes: 512 << 20,
            sender: "gso".into(),
            xdp: "native".into(),
            bind: "copy".into(),
        };
        let toml = settings.to_toml();
        assert!(
            toml.contains("listen = [\"10.71.0.1:7347\", \"[fd71::1]:7347\"]"),
            "{toml}"
        );
        assert!(toml.contains("url = \"file:///tmp/a b\""), "{toml}");
        assert!(toml.contains("size = \"512MiB\""), "{toml}");
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
