//! The command to size machines with, against an edge that is one.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use edge_ebpf::reason::Reason;
use edge_ebpf::wire::SEGMENT_BYTES_DEFAULT;
use serde_json::{Value, json};

use crate::daemon::{Edged, gets, settings};
use crate::testbed::{Testbed, program};
use crate::wait;

/// Fits the arena.
const CONTENT_BYTES: &str = "33554432";
const CHUNKS: u64 = 256;
/// The search takes a few seconds; all of its 60 steps, on a machine that wavers, some more.
const SEARCH_TIME_MAX: Duration = Duration::from_mins(2);

/// A running edge, and the file of tickets to what it can serve.
struct Site<'a> {
    testbed: &'a Testbed,
    edged: Edged,
    tickets: PathBuf,
}

impl<'a> Site<'a> {
    fn of(testbed: &'a Testbed, sender: &'static str) -> Self {
        let setup = settings(testbed, sender);
        let tickets = testbed.folder().join("tickets");
        let mut seed = Command::new(program("edge-bench"));
        seed.arg("seed").arg("--origin").arg(setup.origin());
        seed.args(["--bytes", CONTENT_BYTES, "--object-bytes", CONTENT_BYTES]);
        seed.arg("--tickets").arg(&tickets);
        assert_code(&wait::ended(seed, SEARCH_TIME_MAX), 0);
        Self {
            testbed,
            edged: Edged::start(testbed, &setup),
            tickets,
        }
    }

    fn target(&self) -> String {
        self.testbed.service_v4().to_string()
    }

    fn report(&self) -> PathBuf {
        self.testbed.folder().join("report.json")
    }

    /// Short steps that end early.
    fn capacity(&self, confirmed: &str, p99_max: &str, more: &[&str]) -> Output {
        let mut command = self.testbed.reader.inside(program("edge-bench"));
        command.args(["capacity", "--target", &self.target()]);
        command.args(["--confirm-target", confirmed]);
        command.arg("--tickets").arg(&self.tickets);
        command.args(["--seconds", "200ms", "--precision", "0.5"]);
        command.args(["--loss-max", "0.3", "--p99-max", p99_max]);
        command.args(more);
        command.arg("--output").arg(self.report());
        wait::ended(command, SEARCH_TIME_MAX)
    }

    /// Every reader begins with a HELLO.
    fn hears_nothing(self) {
        let counts = self.edged.settled();
        let heard = counts.xdp_packets(Reason::Welcome) + counts.socket.received;
        assert_eq!(heard, 0);
        self.edged.stop();
    }
}

#[test]
fn an_edge_is_sized_by_one_command() {
    is_sized("gso", &[]);
}

/// Without an end, the last steps would lose segments and wait for each of them.
#[test]
fn an_edge_that_sends_past_the_kernel_is_sized_as_far_as_asked() {
    is_sized("xsk", &["--rate-max", "1Gb/s"]);
}

fn is_sized(sender: &'static str, more: &[&str]) {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let site = Site::of(&testbed, sender);
    let output = site.capacity(&site.target(), "1s", more);
    assert_code(&output, 0);
    let sentence = text(&output.stdout);
    assert!(rate(&sentence) > Some(0.0), "{sentence}");
    assert!(
        sentence.contains("; size a POP for 70 % of it"),
        "{sentence}"
    );

    let report = read(&site.report());
    let ids: Vec<_> = rows(&report).map(|row| &row["id"]).collect();
    assert_eq!(ids, ["capacity", "capacity-search"]);
    for row in rows(&report) {
        assert!(row["ours"]["value"].as_f64() > Some(0.0), "{row}");
        assert_eq!(row["wrong"], 0, "{row}");
        assert!(runs(row).all(|run| run["wrong"] == 0), "{row}");
        let told = &row["mode"];
        assert_eq!(told["target"], json!(site.target()));
        assert_eq!(told["segment_bytes"], json!(SEGMENT_BYTES_DEFAULT));
        assert_eq!(told["max_burst"], 53);
    }
    assert_eq!(report["rows"][0]["note"], json!(sentence.trim()));
    let mut steps = runs(&report["rows"][1]);
    assert!(steps.any(|step| step["verified"] != 0), "nobody compared");
    can_be_read(&site);

    let counts = site.edged.settled();
    assert_eq!(counts.mode.sender, sender);
    assert!(gets(&counts).0 > CHUNKS, "the worker served nothing");
    // The index chunk too.
    assert_eq!(counts.origin.fetches_total, CHUNKS + 1);
    site.edged.stop();
}

/// Gb/s, of a sentence that gives any.
fn rate(sentence: &str) -> Option<f64> {
    let told = sentence.strip_prefix("This edge serves ")?;
    let told = told.strip_prefix("at least ").unwrap_or(told);
    told.split_once(" Gb/s (")?.0.replace(',', "").parse().ok()
}

fn rows(report: &Value) -> impl Iterator<Item = &Value> {
    report["rows"].as_array().unwrap().iter()
}

fn runs(row: &Value) -> impl Iterator<Item = &Value> {
    row["runs"].as_array().unwrap().iter()
}

fn read(report: &Path) -> Value {
    serde_json::from_slice(&fs::read(report).unwrap()).unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn assert_code(output: &Output, code: i32) {
    assert_eq!(output.status.code(), Some(code), "{}", wait::said(output));
}

/// By table and page, as any report.
fn can_be_read(site: &Site<'_>) {
    let mut table = Command::new(program("edge-bench"));
    table.arg("table").arg(site.report());
    let table = wait::ended(table, SEARCH_TIME_MAX);
    assert_code(&table, 0);
    let page = site.testbed.folder().join("page.html");
    let mut report = Command::new(program("edge-bench"));
    report.arg("report").arg(site.report()).arg("-o").arg(&page);
    assert_code(&wait::ended(report, SEARCH_TIME_MAX), 0);
    let page = fs::read_to_string(page).unwrap();
    assert!(page.trim_end().ends_with("</html>"));
    for told in [text(&table.stdout), page] {
        assert!(told.contains("highest rate within the limits"), "{told}");
        assert!(told.contains("every step of the search"), "{told}");
    }
}

#[test]
fn a_target_that_is_not_confirmed_hears_nothing() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let site = Site::of(&testbed, "gso");
    let other = testbed.service_v6().to_string();
    let output = site.capacity(&other, "1s", &[]);
    assert_code(&output, 2);
    let said = text(&output.stderr);
    let fix = format!("add --confirm-target {}", site.target());
    for words in [&format!("{other} was confirmed"), &fix] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!site.report().exists());
    site.hears_nothing();
}

#[test]
fn a_report_that_cannot_be_written_is_told_before_the_edge_is_loaded() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let site = Site::of(&testbed, "gso");
    let nowhere = ["--page", "/proc/nowhere/report.html"];
    let output = site.capacity(&site.target(), "1s", &nowhere);
    assert_code(&output, 1);
    let said = text(&output.stderr);
    assert!(said.contains("cannot write /proc/nowhere/"), "{said}");
    site.hears_nothing();
}

#[test]
fn limits_that_no_edge_keeps_are_named_with_exit_code_1() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let site = Site::of(&testbed, "gso");
    let output = site.capacity(&site.target(), "1us", &[]);
    assert_code(&output, 1);
    assert_eq!(text(&output.stdout), "");
    let said = text(&output.stderr);
    assert!(
        said.contains("error: no rate keeps within 30 % loss and 1us: even 64.0 chunks/s missed"),
        "{said}"
    );
    let report = read(&site.report());
    assert_eq!(report["rows"][0]["ours"]["value"], Value::Null);
    assert_eq!(report["rows"][1]["wrong"], 0);
    can_be_read(&site);
    site.edged.stop();
}
