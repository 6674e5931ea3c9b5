//! Ctrl-C during a benchmark, sent as a terminal does: to the whole process group.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use edge_testbed::paths::RECORDS;
use edge_testbed::process;
use rustix::process::{Pid, Signal, kill_process_group};
use serde_json::Value;
use tempfile::TempDir;

/// Maximum time between two lines of a benchmark. It prints nothing while it creates 1 GiB of
/// content.
const LINE_TIME_MAX: Duration = Duration::from_mins(1);
/// A running flood prints nothing for longer than this.
const QUIET: Duration = Duration::from_millis(500);

#[test]
fn an_interrupted_benchmark_leaves_the_machine_as_it_was() {
    let before = (settings(), unreserved_hugepages());
    let mut bench = Bench::start();
    bench.read_until("/edge-bench flood ");
    bench.read_until_quiet();
    // Otherwise there would be nothing to undo.
    let traces = bench.traces();
    let expected = ["namespace", "folder", "record", "edged", "edge-bench"];
    for trace in expected {
        let found = traces.iter().any(|found| found.starts_with(trace));
        assert!(found, "no {trace} while it measures: {traces:#?}");
    }
    assert!(reserved(&bench.record()) > 0, "no hugepages: {traces:#?}");

    bench.signal(Signal::INT);
    let status = bench.end();
    assert_eq!(status.code(), Some(130), "{}", bench.output);
    let promise = "error: interrupted; everything this run changed was put back";
    assert_eq!(
        bench.output.lines().last(),
        Some(promise),
        "{}",
        bench.output
    );
    assert_eq!(bench.traces(), [""; 0], "{}", bench.output);
    assert_eq!(unreserved_hugepages(), before.1, "{}", bench.output);
    for (file, value) in settings() {
        assert_eq!(before.0.get(&file), Some(&value), "{}", file.display());
    }
}

/// A running `cargo xtask bench`, with its own folder for temporary files.
struct Bench {
    child: Child,
    lines: Receiver<String>,
    output: String,
    folder: TempDir,
}

impl Bench {
    /// The row with a flood: it has the most processes at a time, and no peer to install.
    fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_xtask"));
        command
            .args(["bench", "--quick", "--only", "P5"])
            .env("TMPDIR", folder.path())
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Self {
            lines: process::line_by_line(child.stderr.take()),
            child,
            output: String::new(),
            folder,
        }
    }

    /// Its next line.
    fn read_line(&mut self, limit: Duration) -> Result<String, RecvTimeoutError> {
        let line = self.lines.recv_timeout(limit)?;
        self.output.push_str(&line);
        self.output.push('\n');
        Ok(line)
    }

    fn read_until(&mut self, words: &str) {
        while let Ok(line) = self.read_line(LINE_TIME_MAX) {
            if line.contains(words) {
                return;
            }
        }
        panic!(
            "{}\nno {words}: run this by `cargo xtask test`, as root",
            self.output
        );
    }

    fn read_until_quiet(&mut self) {
        while self.read_line(QUIET).is_ok() {}
    }

    fn signal(&self, signal: Signal) {
        let group = Pid::from_raw(self.child.id().try_into().unwrap());
        kill_process_group(group.unwrap(), signal).unwrap();
    }

    /// Waits until no process has its standard error open.
    fn end(&mut self) -> ExitStatus {
        loop {
            match self.read_line(LINE_TIME_MAX) {
                Ok(_) => {}
                Err(RecvTimeoutError::Disconnected) => return self.child.wait().unwrap(),
                Err(RecvTimeoutError::Timeout) => panic!("{}\nit does not end", self.output),
            }
        }
    }

    fn record(&self) -> PathBuf {
        Path::new(RECORDS).join(format!("{}.json", self.child.id()))
    }

    /// Its traces on the host.
    fn traces(&self) -> Vec<String> {
        let prefix = format!("sealedge-{}-", self.child.id());
        let namespaces = names("/run/netns".as_ref()).into_iter();
        let namespaces = namespaces.filter(|name| name.starts_with(&prefix));
        let files = names(self.folder.path()).into_iter();
        let record = Some(self.record()).filter(|record| record.exists());
        let processes = self.processes().into_iter();
        let traces = namespaces.map(|name| format!("namespace {name}"));
        let traces = traces.chain(files.map(|name| format!("folder {name}")));
        let traces = traces.chain(record.map(|record| format!("record {}", record.display())));
        traces.chain(processes).collect()
    }

    /// Its processes, recognised by the folder in their environment.
    fn processes(&self) -> Vec<String> {
        let folder = [b"TMPDIR=", self.folder.path().as_os_str().as_bytes()].concat();
        let is_ours = |process: &str| {
            let environment = fs::read(format!("/proc/{process}/environ")).unwrap_or_default();
            environment
                .split(|byte| *byte == 0)
                .any(|variable| variable == folder)
        };
        let processes = names("/proc".as_ref()).into_iter();
        processes
            .filter(|process| is_ours(process))
            .filter_map(|process| fs::read_to_string(format!("/proc/{process}/comm")).ok())
            .map(|name| name.trim_end().to_owned())
            .collect()
    }
}

impl Drop for Bench {
    /// A failed test must not leave it running. What it can no longer undo, the next `cargo xtask`
    /// does.
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.signal(Signal::TERM);
            while self.read_line(LINE_TIME_MAX).is_ok() {}
            drop(self.child.kill());
            drop(self.child.wait());
        }
    }
}

/// The names in a folder; none if it does not exist.
fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

/// Pages that no run has reserved: other runs may start and end meanwhile.
fn unreserved_hugepages() -> Option<u64> {
    let count = fs::read_to_string("/proc/sys/vm/nr_hugepages").unwrap();
    let records = names(RECORDS.as_ref()).into_iter();
    let records = records.map(|name| Path::new(RECORDS).join(name));
    let reserved: u64 = records.map(|record| reserved(&record)).sum();
    count.trim().parse::<u64>().unwrap().checked_sub(reserved)
}

/// Pages that the run with this record reserved.
fn reserved(record: &Path) -> u64 {
    let text = fs::read(record).unwrap_or_default();
    let record: Value = serde_json::from_slice(&text).unwrap_or_default();
    record["hugepages_added"].as_u64().unwrap_or(0)
}

/// All other settings of memory and network that `sysctl` can change.
fn settings() -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    for folder in ["/proc/sys/vm", "/proc/sys/net"] {
        gather(folder.as_ref(), &mut found);
    }
    found.retain(|file, _| !file.to_string_lossy().contains("/nr_hugepages"));
    found
}

fn gather(folder: &Path, found: &mut BTreeMap<PathBuf, Vec<u8>>) {
    for name in names(folder) {
        let path = folder.join(name);
        if path.is_dir() {
            gather(&path, found);
        } else if let (Ok(value), Ok(about)) = (fs::read(&path), path.metadata())
            && !about.permissions().readonly()
        {
            found.insert(path, value);
        }
    }
}
