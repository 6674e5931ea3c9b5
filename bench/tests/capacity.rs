//! `edge-bench capacity` from end to end over loopback, against a minimal server: a UDP socket that
//! gives cookies and sends what the test needs.

use std::collections::HashMap;
use std::fs;
use std::net::{SocketAddr, UdpSocket};
use std::path::PathBuf;
use std::process::{Command, Output};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use edge_bench::report::read_report;
use edge_ebpf::wire::{ChunkId, SEGMENT_BYTES_DEFAULT};
use edge_testbed::fake_edge::{self, Asked, data, listen, padded, welcome};
use tempfile::TempDir;

const CONTENT_BYTES: u64 = 2 << 20;

/// The server's behaviour.
#[derive(Clone, Copy, PartialEq)]
enum Manner {
    Well,
    /// Answers this number of GETs per second; drops the rest.
    Slowly(u32),
    /// After this number of GETs one byte of each segment is corrupt.
    LyingAfter(u32),
    /// Answers HELLOs only.
    Silently,
}

struct Server {
    address: SocketAddr,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<u32>>,
}

impl Server {
    fn start(bench: &Bench, manner: Manner) -> Self {
        let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
        socket
            .set_read_timeout(Some(Duration::from_millis(50)))
            .expect("is set");
        let address = socket.local_addr().expect("has one");
        let stop = Arc::new(AtomicBool::new(false));
        let chunks = fake_edge::chunks(&bench.path("origin")).expect("are there");
        let stopped = Arc::clone(&stop);
        let thread = thread::spawn(move || serve(&socket, &chunks, manner, &stopped));
        Self {
            address,
            stop,
            thread: Some(thread),
        }
    }

    /// Stops the server and returns the number of HELLOs received.
    fn end(mut self) -> u32 {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("it runs");
        thread.join().expect("it did not panic")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Working servers give cookies that must be renewed during the test.
fn serve(
    socket: &UdpSocket,
    chunks: &HashMap<ChunkId, Vec<u8>>,
    manner: Manner,
    stop: &AtomicBool,
) -> u32 {
    let (mut hellos, mut gets) = (0, 0);
    let (mut second, mut in_second) = (edge_user::clock::now(), 0);
    listen(socket, stop, |asked, from| {
        let get = match asked {
            Asked::Hello(hello, len_bytes) => {
                let mut welcome = welcome(&hello, 1);
                if manner == Manner::Well {
                    welcome.lifetime_seconds = 2;
                }
                hellos += 1;
                return send(socket, &padded(&welcome, len_bytes), from);
            }
            Asked::Get(get) => get,
        };
        gets += 1;
        if second.elapsed() > Duration::from_secs(1) {
            (second, in_second) = (edge_user::clock::now(), 0);
        }
        in_second += 1;
        let lies = match manner {
            Manner::Silently => return,
            Manner::Slowly(most) if in_second > most => return,
            Manner::Well | Manner::Slowly(_) => false,
            Manner::LyingAfter(most) => gets > most,
        };
        let Some(chunk) = chunks.get(&get.id) else {
            return;
        };
        for mut datagram in data(&get, chunk, SEGMENT_BYTES_DEFAULT) {
            if lies && let Some(last) = datagram.last_mut() {
                *last ^= 1;
            }
            send(socket, &datagram, from);
        }
    });
    hellos
}

/// A datagram that cannot be sent is lost, as on any path.
fn send(socket: &UdpSocket, datagram: &[u8], to: SocketAddr) {
    let (Ok(_) | Err(_)) = socket.send_to(datagram, to);
}

/// A folder with content and tickets.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        let bench = Self(TempDir::new().expect("a folder"));
        fs::create_dir(bench.path("origin")).expect("is made");
        let output = edge_bench(&[
            "seed",
            "--origin",
            &bench.text("origin"),
            "--tickets",
            &bench.text("tickets"),
            "--bytes",
            &CONTENT_BYTES.to_string(),
            "--object-bytes",
            &CONTENT_BYTES.to_string(),
        ]);
        assert!(output.status.success(), "{}", errors(&output));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn text(&self, name: &str) -> String {
        self.path(name).to_str().expect("a plain path").to_owned()
    }

    /// Short steps, and limits that a busy host keeps.
    fn capacity(&self, target: SocketAddr, more: &[&str]) -> Output {
        self.capacity_within("2s", target, more)
    }

    fn capacity_within(&self, p99_max: &str, target: SocketAddr, more: &[&str]) -> Output {
        let (target, tickets) = (target.to_string(), self.text("tickets"));
        let report = self.text("report.json");
        let given = [
            "capacity",
            "--target",
            &target,
            "--confirm-target",
            &target,
            "--tickets",
            &tickets,
            "--seconds",
            "200ms",
            "--p99-max",
            p99_max,
            "--loss-max",
            "0.3",
            "--precision",
            "0.5",
            "--clients",
            "2",
            "--output",
            &report,
        ];
        edge_bench(&[&given[..], more].concat())
    }
}

fn edge_bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-bench"));
    command.args(arguments).output().expect("it runs")
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn sentence(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", errors(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

#[test]
fn a_server_that_holds_all_it_is_offered_serves_at_least_that() {
    let bench = Bench::new();
    let server = Server::start(&bench, Manner::Well);
    let page = bench.text("page.html");
    let output = bench.capacity(
        server.address,
        &["--rate-max", "0.2Gb/s", "--threads", "2", "--page", &page],
    );
    let answer = sentence(&output);
    assert!(answer.starts_with("This edge serves at least "), "{answer}");
    assert!(answer.contains("size a POP for 70 % of it"), "{answer}");
    // Two threads with two sockets each, whose cookies live for two seconds.
    let hellos = server.end();
    assert!(hellos > 4, "{hellos}: no cookie was renewed");

    let report = read_report(&bench.path("report.json")).expect("is a report");
    assert!(report.commit.starts_with("edge-bench "));
    assert_eq!(report.host.other["interface"], "lo");
    let [found, search] = &report.rows[..] else {
        panic!("two rows: {:?}", report.rows);
    };
    let most = 0.2e9 / 8.0;
    let value = found.ours.value.expect("was measured");
    assert!((most * 0.5..most * 1.5).contains(&value), "{value}");
    assert_eq!((found.loads().len(), found.wrong), (1, 0));
    assert!(
        found
            .note
            .as_deref()
            .is_some_and(|note| note == answer.trim())
    );
    assert!(search.loads().len() > 1 && search.runs.len() > found.runs.len());
    for run in &search.runs {
        assert!(run.loss.is_some() && run.latency.is_some() && run.bytes > 0);
    }
    let table = edge_bench(&["table", &bench.text("report.json")]);
    assert!(table.status.success(), "{}", errors(&table));
    assert!(
        fs::read_to_string(page)
            .expect("the page")
            .contains("</html>")
    );
}

#[test]
fn what_a_server_does_not_answer_bounds_its_rate() {
    let bench = Bench::new();
    // Three GETs per chunk.
    let server = Server::start(&bench, Manner::Slowly(3 * 300));
    let answer = sentence(&bench.capacity_within("500ms", server.address, &[]));
    assert!(answer.starts_with("This edge serves "), "{answer}");
    let report = read_report(&bench.path("report.json")).expect("is a report");
    let loads = report.rows[0].loads();
    assert!(loads.len() == 1 && loads[0] < 2000.0, "{loads:?}");
}

#[test]
fn limits_that_nothing_keeps_are_a_failure_with_a_report() {
    let bench = Bench::new();
    let server = Server::start(&bench, Manner::Well);
    let output = bench.capacity_within("1ns", server.address, &[]);
    let message = errors(&output);
    assert_eq!(output.status.code(), Some(1), "{message}");
    assert!(message.contains("error: no rate keeps within"), "{message}");
    assert!(
        message.contains("even 64.0 chunks/s missed the limit of latency"),
        "{message}"
    );
    let report = read_report(&bench.path("report.json")).expect("is a report");
    assert_eq!(report.rows[0].ours.value, None);
}

#[test]
fn a_server_that_lies_while_it_is_warmed_is_not_measured() {
    let bench = Bench::new();
    let server = Server::start(&bench, Manner::LyingAfter(20));
    fs::write(bench.path("report.json"), "of an earlier search").unwrap();
    let output = bench.capacity(server.address, &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = errors(&output);
    assert!(message.contains("of 16 chunks were corrupt"), "{message}");
    assert!(!bench.path("report.json").exists());

    // From the first reply on: an index chunk.
    let server = Server::start(&bench, Manner::LyingAfter(0));
    let message = errors(&bench.capacity(server.address, &[]));
    assert!(
        message.contains("is corrupt: the edge is broken"),
        "{message}"
    );
}

#[test]
fn a_server_that_lies_under_load_counts_as_nothing() {
    let bench = Bench::new();
    let server = Server::start(&bench, Manner::LyingAfter(200));
    let output = bench.capacity(server.address, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(output.stdout.is_empty());
    let message = errors(&output);
    assert!(message.contains("corrupt under load"), "{message}");
    let report = read_report(&bench.path("report.json")).expect("is a report");
    let row = &report.rows[0];
    assert!(row.wrong > 0);
    assert_eq!(row.ours.value, Some(0.0));
}

#[test]
fn a_target_that_is_not_confirmed_gets_no_datagram() {
    let bench = Bench::new();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let target = socket.local_addr().expect("has one").to_string();
    let tickets = bench.text("tickets");
    let given = ["capacity", "--target", &target, "--tickets", &tickets];
    for more in [&[][..], &["--confirm-target", "127.0.0.1:1"]] {
        let output = edge_bench(&[&given[..], more].concat());
        assert_eq!(output.status.code(), Some(2));
        let message = errors(&output);
        assert!(message.contains("not yours is an attack"), "{message}");
        assert!(
            message.contains(&format!("add --confirm-target {target}")),
            "{message}"
        );
    }
    socket.set_nonblocking(true).expect("is set");
    assert!(socket.recv(&mut [0; 8]).is_err(), "a datagram was sent");
}

#[test]
fn invalid_tickets_and_absent_servers_are_reported_in_a_sentence() {
    let bench = Bench::new();
    let socket = UdpSocket::bind("127.0.0.1:0").expect("a port");
    let nobody = socket.local_addr().expect("has one");
    drop(socket);
    let output = bench.capacity(nobody, &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = errors(&output);
    assert!(
        message.contains(&format!("{nobody}: the edge does not answer")),
        "{message}"
    );

    let server = Server::start(&bench, Manner::Silently);
    let begin: Instant = edge_user::clock::now();
    let output = bench.capacity(server.address, &[]);
    assert_eq!(output.status.code(), Some(1));
    let message = errors(&output);
    assert!(message.contains("has sent no requested data"), "{message}");
    assert!(begin.elapsed() < Duration::from_mins(1));

    fs::write(bench.path("tickets"), "\n").expect("is written");
    let output = bench.capacity(server.address, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        errors(&output).contains("contains no ticket"),
        "{}",
        errors(&output)
    );
}
