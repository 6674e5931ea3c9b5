//! The program `edged` as an operator meets it: its words, its exit codes, its door, its end.
//! XDP is off here, so nothing of this needs root or an interface of its own, but for
//! the test that holds a thread.
#![cfg(feature = "server")]

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStderr, Command, Output, Stdio};
use std::thread;
use std::time::Duration;

use edge_user::clock;
use edge_user::counters::{Cause, Snapshot};
use edge_user::limits::STALLED_AFTER;
use nix::sys::ptrace;
use nix::sys::wait::{WaitPidFlag, waitpid};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

/// The issue's promise: whatever is wrong is said within this time.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(10);

const SECOND: Duration = Duration::from_secs(1);

/// A folder with an origin and a configuration that works on any machine.
struct Site {
    folder: TempDir,
    port: u16,
    metrics_port: u16,
}

impl Site {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("origin")).unwrap();
        let udp = UdpSocket::bind("127.0.0.1:0").unwrap();
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        let (port, metrics_port) = (
            udp.local_addr().unwrap().port(),
            tcp.local_addr().unwrap().port(),
        );
        Self {
            folder,
            port,
            metrics_port,
        }
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("run/admin.sock")
    }

    /// `edged` with this text as its file; the example, where there is none.
    fn edged(&self, text: &str) -> Command {
        let file = self.folder.path().join("edged.toml");
        fs::write(&file, text).unwrap();
        let mut command = Command::new(env!("CARGO_BIN_EXE_edged"));
        command
            .arg("--config")
            .arg(file)
            .env_remove("NOTIFY_SOCKET");
        command
    }

    fn config(&self) -> String {
        format!(
            r#"
service = {{ interfaces = ["lo"], listen = ["127.0.0.1:{port}"] }}
xdp = {{ mode = "off" }}
store = {{ size = "16MiB", hugepages = "off" }}
origin = [{{ url = "file://{folder}/origin" }}]
admin = {{ socket = "{socket}", metrics = "127.0.0.1:{metrics_port}" }}
"#,
            port = self.port,
            folder = self.folder.path().display(),
            socket = self.socket().display(),
            metrics_port = self.metrics_port,
        )
    }
}

/// A started daemon; ended with this value, also when a test fails.
struct Running {
    child: Child,
    log: BufReader<ChildStderr>,
}

impl Running {
    fn start(mut command: Command) -> Self {
        let mut child = command
            .stderr(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let log = BufReader::new(child.stderr.take().unwrap());
        Self { child, log }
    }

    /// Reads the log up to a line that has these words.
    fn wait_for(&mut self, words: &str) -> String {
        let mut said = String::new();
        loop {
            let start = said.len();
            assert!(
                self.log.read_line(&mut said).unwrap() > 0,
                "no {words} in:\n{said}"
            );
            if said[start..].contains(words) {
                return said[start..].trim_end().to_owned();
            }
        }
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// The exit code, and the rest of the log.
    fn end(mut self) -> (Option<i32>, String) {
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (self.child.wait().unwrap().code(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            self.child.kill().unwrap();
            self.child.wait().unwrap();
        }
    }
}

/// A started daemon whose log goes elsewhere.
struct Ended(Child);

impl Ended {
    fn start(mut command: Command, log: Stdio) -> Self {
        Self(command.stderr(log).stdout(Stdio::null()).spawn().unwrap())
    }

    fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.0.id()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), signal).unwrap();
    }

    /// The exit code, or none if it does not end.
    fn code_within(&mut self, limit: Duration) -> Option<i32> {
        until(limit, || self.0.try_wait().unwrap()).and_then(|status| status.code())
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        if self.0.try_wait().is_ok_and(|status| status.is_none()) {
            self.0.kill().unwrap();
            self.0.wait().unwrap();
        }
    }
}

/// Asks again and again until there is an answer; none when the time is over.
#[expect(clippy::disallowed_methods, reason = "a process gives no sign")]
fn until<T>(limit: Duration, mut ask: impl FnMut() -> Option<T>) -> Option<T> {
    let deadline = clock::now() + limit;
    loop {
        let answer = ask();
        if answer.is_some() || clock::now() >= deadline {
            return answer;
        }
        thread::sleep(Duration::from_millis(10));
    }
}

fn ask(mut connection: impl Read + Write, path: &str) -> String {
    write!(connection, "GET {path} HTTP/1.1\r\nhost: edged\r\n\r\n").unwrap();
    let mut answer = String::new();
    connection.read_to_string(&mut answer).unwrap();
    answer
}

fn stat(socket: &Path) -> Snapshot {
    let connection = UnixStream::connect(socket).unwrap();
    connection.set_read_timeout(Some(ANSWER_TIME_MAX)).unwrap();
    let answer = ask(connection, "/v1/stat");
    serde_json::from_str(answer.split_once("\r\n\r\n").unwrap().1).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// One line of error, with these words, and this exit code. A log line saying that it starts may
/// precede.
fn assert_refused(output: &Output, code: i32, words: &[&str]) {
    let said = text(&output.stderr);
    let errors: Vec<_> = said
        .lines()
        .filter(|line| !line.contains(" INFO "))
        .collect();
    assert_eq!(errors.len(), 1, "{said}");
    for word in words {
        assert!(errors[0].contains(word), "no {word} in: {said}");
    }
    assert_eq!(output.status.code(), Some(code), "{said}");
}

#[test]
fn check_says_ok_to_the_example_where_the_machine_fits() {
    let site = Site::new();
    let example = include_str!("../../docs/edged.example.toml");
    let origin = format!("file://{}/origin", site.folder.path().display());
    let output = site
        .edged(example)
        .arg("--check")
        .env("SEALEDGE_SERVICE__INTERFACES", "lo")
        .env("SEALEDGE_ORIGIN__URL", origin)
        .env("SEALEDGE_ADMIN__SOCKET", site.socket())
        .output()
        .unwrap();
    let said = text(&output.stdout);
    assert_eq!(output.status.code(), Some(0), "{}", text(&output.stderr));
    assert!(
        said.starts_with("ok: 192.0.2.10:7347 [2001:db8::10]:7347 on lo, xdp native"),
        "{said}"
    );
    assert!(!site.socket().exists(), "a check changes nothing");
}

#[test]
fn what_is_wrong_is_one_line_and_exit_code_78() {
    let site = Site::new();
    let good = site.config();
    let rows = [
        (
            good.replace("mode", "mdoe"),
            ["edged.toml:3: xdp.mdoe", "expected one of `mode`"],
        ),
        (
            good.replace("off\" }\nstore", "skb\" }\nstore"),
            ["edged.toml:3: xdp.mode", "generic"],
        ),
        (
            good.replace("\"lo\"", "\"nowhere0\""),
            ["service.interfaces[0]", "ip link"],
        ),
        (
            good.replace("/origin", "/missing"),
            ["edged.toml:5: origin[0].url", "create it"],
        ),
        (
            good.replace("16MiB", "16MB"),
            ["edged.toml:4: store.size", "1GiB"],
        ),
        (format!("{good}["), ["edged.toml:7: ", "not TOML"]),
    ];
    for (wrong, words) in rows {
        assert_refused(
            &site.edged(&wrong).arg("--check").output().unwrap(),
            78,
            &words,
        );
        assert_refused(&site.edged(&wrong).output().unwrap(), 78, &words);
    }
    let variable = ("SEALEDGE_XDP__MODE", "on");
    let output = site
        .edged(&good)
        .env(variable.0, variable.1)
        .output()
        .unwrap();
    assert_refused(&output, 78, &["SEALEDGE_XDP__MODE: xdp.mode"]);
    let missing = site.folder.path().join("missing.toml");
    let output = Command::new(env!("CARGO_BIN_EXE_edged"))
        .arg("--config")
        .arg(missing)
        .output()
        .unwrap();
    assert_refused(&output, 78, &["missing.toml: cannot be read", "--config"]);
}

#[test]
fn a_loopback_address_cannot_be_served_with_xdp() {
    let site = Site::new();
    for mode in ["native", "generic"] {
        for listen in ["127.0.0.1:7347", "[::1]:7347"] {
            let edged = || {
                let mut command = site.edged(&site.config());
                command
                    .env("SEALEDGE_XDP__MODE", mode)
                    .env("SEALEDGE_SERVICE__LISTEN", listen);
                command
            };
            let words = [listen, "loopback", "set xdp.mode = \"off\"", mode];
            assert_refused(&edged().arg("--check").output().unwrap(), 78, &words);
            assert_refused(&edged().output().unwrap(), 78, &words);
        }
    }
}

#[cfg(feature = "reader")]
#[test]
fn readers_of_the_same_host_are_served_by_a_loopback_address() {
    let site = Site::new();
    let at = |name: &str| site.folder.path().join(name);
    let bytes: Vec<u8> = (0..300_000_u32)
        .map(|at| (at / 7).to_le_bytes()[0])
        .collect();
    fs::write(at("file"), &bytes).unwrap();
    let edge = |words: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge"));
        command.args(words).current_dir(site.folder.path());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{}", text(&output.stderr));
    };
    edge(&[
        "seal",
        "file",
        "--origin",
        "origin",
        "--ticket-out",
        "ticket",
    ]);
    let addresses = [
        format!("127.0.0.1:{}", site.port),
        format!("[::1]:{}", site.port),
    ];
    let mut command = site.edged(&site.config());
    command.env("SEALEDGE_SERVICE__LISTEN", addresses.join(","));
    let mut edged = Running::start(command);
    edged.wait_for("ready: ");
    for address in &addresses {
        edge(&["get", "@ticket", "--edge", address, "-o", "out"]);
        assert_eq!(fs::read(at("out")).unwrap(), bytes);
        fs::remove_file(at("out")).unwrap();
    }
}

#[test]
fn a_wrong_argument_is_exit_code_2_and_the_version_names_the_commit() {
    let edged = |argument: &str| {
        Command::new(env!("CARGO_BIN_EXE_edged"))
            .arg(argument)
            .output()
            .unwrap()
    };
    assert_eq!(edged("--chekc").status.code(), Some(2));
    let version = text(&edged("--version").stdout);
    assert_eq!(version.trim(), format!("edged {}", edge_user::VERSION));
}

#[test]
fn it_says_ready_answers_operators_and_stops_when_told() {
    for signal in [Signal::TERM, Signal::INT] {
        let site = Site::new();
        let manager = site.folder.path().join("notify");
        let told = UnixDatagram::bind(&manager).unwrap();
        told.set_read_timeout(Some(ANSWER_TIME_MAX)).unwrap();
        let mut command = site.edged(&site.config());
        command
            .env("NOTIFY_SOCKET", &manager)
            .env("SEALEDGE_LOG__FILTER", "error");
        let mut edged = Running::start(command);
        let ready = edged.wait_for("ready: ");
        assert!(
            ready.contains(&format!("ready: 127.0.0.1:{} on lo", site.port)),
            "{ready}"
        );
        let mut word = [0; 64];
        let length = told.recv(&mut word).unwrap();
        assert!(word[..length].starts_with(b"READY=1"));

        let metrics = format!("127.0.0.1:{}", site.metrics_port);
        let tcp = |path: &str| ask(TcpStream::connect(&metrics).unwrap(), path);
        assert!(tcp("/ready").starts_with("HTTP/1.1 200"));
        assert!(tcp("/metrics").contains("\nsealedge_build_info{version="));
        let snapshot = stat(&site.socket());
        assert_eq!(snapshot.mode.xdp, "off");
        assert_eq!(snapshot.interfaces[0].name, "lo");

        edged.signal(signal);
        let (code, rest) = edged.end();
        assert_eq!(code, Some(0), "{rest}");
        assert!(
            rest.contains("stopping") && rest.contains("stopped"),
            "{rest}"
        );
        let length = told.recv(&mut word).unwrap();
        assert!(word[..length].starts_with(b"STOPPING=1"));
        assert!(!site.socket().exists());
    }
}

#[test]
fn json_log_lines_are_objects_and_ready_begins_its_message() {
    let site = Site::new();
    let mut command = site.edged(&site.config());
    command
        .env("SEALEDGE_LOG__FORMAT", "json")
        .env("SEALEDGE_ADMIN__METRICS", "");
    let mut edged = Running::start(command);
    let line = edged.wait_for("\"ready: ");
    let event: serde_json::Value = serde_json::from_str(&line).unwrap();
    assert!(
        event["message"].as_str().unwrap().starts_with("ready"),
        "{line}"
    );
    edged.signal(Signal::TERM);
    let (code, rest) = edged.end();
    assert_eq!(code, Some(0), "{rest}");
    for line in rest.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
}

#[test]
fn what_another_process_holds_is_exit_code_75() {
    let site = Site::new();
    let mut edged = Running::start(site.edged(&site.config()));
    edged.wait_for("ready: ");
    // The same socket, then another socket but the same metrics port, then only the service port.
    let output = site
        .edged(&site.config())
        .env("SEALEDGE_ADMIN__METRICS", "")
        .output()
        .unwrap();
    assert_refused(&output, 75, &["another edged answers on"]);
    let elsewhere = site.folder.path().join("run2/admin.sock");
    let output = site
        .edged(&site.config())
        .env("SEALEDGE_ADMIN__SOCKET", &elsewhere)
        .output()
        .unwrap();
    assert_refused(&output, 75, &["admin.metrics"]);
    let output = site
        .edged(&site.config())
        .env("SEALEDGE_ADMIN__SOCKET", &elsewhere)
        .env("SEALEDGE_ADMIN__METRICS", "")
        .env("SEALEDGE_LOG__FILTER", "off")
        .output()
        .unwrap();
    assert_refused(&output, 75, &[&site.port.to_string()]);
    assert_eq!(
        stat(&site.socket()).interfaces[0].name,
        "lo",
        "the first one still answers"
    );
}

#[test]
fn a_killed_edged_does_not_stand_in_the_way_of_the_next() {
    let site = Site::new();
    let mut killed = Running::start(site.edged(&site.config()));
    killed.wait_for("ready: ");
    killed.signal(Signal::KILL);
    let _code = killed.end();
    assert!(site.socket().exists(), "nobody was there to remove it");
    UnixListener::bind(site.socket()).unwrap_err();

    let mut edged = Running::start(site.edged(&site.config()));
    edged.wait_for("ready: ");
    assert_eq!(stat(&site.socket()).mode.xdp, "off");
}

/// Waits until the door answers, where there is no log to read it from.
fn wait_until_ready(site: &Site) {
    let metrics = format!("127.0.0.1:{}", site.metrics_port);
    let ready = until(ANSWER_TIME_MAX, || {
        let connection = TcpStream::connect(&metrics).ok()?;
        let answer = ask(connection, "/ready");
        answer.starts_with("HTTP/1.1 200").then_some(())
    });
    ready.expect("edged gets ready");
}

/// Has it log more than a pipe and the queue before it hold, while it answers; then stops it.
fn drop_lines_and_stop(mut edged: Ended, site: &Site) {
    wait_until_ready(site);
    let dropped = until(ANSWER_TIME_MAX, || {
        for _ in 0..50 {
            edged.signal(Signal::HUP);
            stat(&site.socket());
        }
        (stat(&site.socket()).log_lines_dropped > 0).then_some(())
    });
    dropped.expect("lines are dropped");
    edged.signal(Signal::TERM);
    assert_eq!(edged.code_within(ANSWER_TIME_MAX), Some(0));
}

#[test]
fn a_log_that_cannot_be_written_does_not_end_the_daemon() {
    let sink = || File::options().write(true).open("/dev/full").unwrap();
    let site = Site::new();
    let edged = Ended::start(site.edged(&site.config()), sink().into());
    drop_lines_and_stop(edged, &site);

    let site = Site::new();
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let edged = Ended::start(site.edged(&site.config()), writer.into());
    drop_lines_and_stop(edged, &site);

    // Nor does it change what is said in other ways.
    let status = |arguments: &[&str], text: &str, output: Stdio, errors: Stdio| {
        let mut command = site.edged(text);
        command.args(arguments).stdout(output).stderr(errors);
        command.status().unwrap().code()
    };
    let (good, nothing) = (site.config(), Stdio::null);
    for arguments in [["--check"], ["--help"], ["--version"]] {
        let code = status(&arguments, &good, sink().into(), nothing());
        assert_eq!(code, Some(1), "{arguments:?}");
    }
    let code = status(&["--check"], "[", nothing(), sink().into());
    assert_eq!(code, Some(78));
    let code = status(&["--chekc"], &good, nothing(), sink().into());
    assert_eq!(code, Some(2));
}

#[test]
fn a_log_that_is_not_read_does_not_hold_up_the_daemon() {
    let site = Site::new();
    let (reader, writer) = std::io::pipe().unwrap();
    let edged = Ended::start(site.edged(&site.config()), writer.into());
    drop_lines_and_stop(edged, &site);
    drop(reader);
}

/// One thread of a process, held by the kernel as a debugger holds it; goes on with this value's
/// end.
struct Held(nix::unistd::Pid);

impl Held {
    fn thread(process: u32, name: &str) -> Self {
        let tasks = fs::read_dir(format!("/proc/{process}/task")).unwrap();
        let named = |task: &PathBuf| fs::read_to_string(task.join("comm")).unwrap().trim() == name;
        let task = tasks.map(|task| task.unwrap().path()).find(named).unwrap();
        let id = task.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let thread = nix::unistd::Pid::from_raw(id);
        ptrace::seize(thread, ptrace::Options::empty()).unwrap();
        ptrace::interrupt(thread).unwrap();
        waitpid(thread, Some(WaitPidFlag::__WALL)).unwrap();
        Self(thread)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        ptrace::detach(self.0, None).unwrap();
    }
}

#[test]
#[expect(clippy::print_stderr, reason = "a test says why it does not run")]
fn a_thread_that_stands_still_makes_it_not_ready_until_it_goes_on() {
    if !geteuid().is_root() {
        eprintln!("skipped: edged lets root alone hold its threads");
        return;
    }
    let site = Site::new();
    let manager = site.folder.path().join("notify");
    let told = UnixDatagram::bind(&manager).unwrap();
    told.set_nonblocking(true).unwrap();
    let mut command = site.edged(&site.config());
    command
        .env("NOTIFY_SOCKET", &manager)
        .env("WATCHDOG_USEC", "1000000");
    let mut edged = Running::start(command);
    edged.wait_for("ready: ");
    let fed = || {
        let mut word = [0; 64];
        let words =
            std::iter::from_fn(|| told.recv(&mut word).ok().map(|len| word[..len].to_vec()));
        words.filter(|word| word.starts_with(b"WATCHDOG=1")).count()
    };
    until(ANSWER_TIME_MAX, || (fed() > 0).then_some(())).expect("the watchdog is fed");
    let ready = || {
        let connection = TcpStream::connect(("127.0.0.1", site.metrics_port)).unwrap();
        ask(connection, "/ready")
    };
    assert!(ready().starts_with("HTTP/1.1 200"));

    let held = Held::thread(edged.child.id(), "engine");
    let fault = until(4 * STALLED_AFTER, || {
        Some(ready()).filter(|answer| answer.starts_with("HTTP/1.1 503"))
    });
    let fault = fault.expect("it is noticed");
    assert!(
        fault.contains("not ready: the thread engine is stalled"),
        "{fault}"
    );
    fed();
    let faults = stat(&site.socket()).faults;
    assert_eq!(faults[0].cause, Cause::ThreadStalled);
    assert!(until(2 * SECOND, || (fed() > 0).then_some(())).is_none());

    drop(held);
    until(ANSWER_TIME_MAX, || {
        ready().starts_with("HTTP/1.1 200").then_some(())
    })
    .expect("ready");
    until(ANSWER_TIME_MAX, || (fed() > 0).then_some(())).expect("the watchdog is fed again");
    edged.wait_for("over: the thread engine");
    edged.signal(Signal::TERM);
    assert_eq!(edged.end().0, Some(0));
}

#[cfg(feature = "reader")]
#[test]
fn the_daemon_holds_no_code_that_reads_a_ticket() {
    // I11. Who opens a ticket compares its beginning with this word.
    let word = b"edge1:";
    let holds = |program: &str| {
        let bytes = fs::read(program).unwrap();
        bytes.windows(word.len()).any(|window| window == word)
    };
    assert!(holds(env!("CARGO_BIN_EXE_edge")), "the search finds it");
    assert!(!holds(env!("CARGO_BIN_EXE_edged")));
}
