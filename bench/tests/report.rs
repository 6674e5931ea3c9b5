//! `edge-bench` from runs to table, page and comparison. The runs are a fixture: invented figures.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use serde_json::{Value, json};
use tempfile::TempDir;

const FIXTURE: &str = include_str!("fixture/runs.json");

/// A folder with the reports of one test.
struct Bench(TempDir);

impl Bench {
    fn new() -> Self {
        Self(TempDir::new().expect("a folder"))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, value: &Value) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, value.to_string()).expect("is written");
        path
    }

    /// Assembles the report of these runs.
    fn report(&self, name: &str, runs: &Value) -> PathBuf {
        let runs = self.write(&format!("{name}-runs"), runs);
        let report = self.path(name);
        let output = edge_bench(&["assemble", text(&runs), "-o", text(&report)]);
        assert_eq!(output.status.code(), Some(0), "{}", errors(&output));
        report
    }
}

fn edge_bench(arguments: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_edge-bench"));
    command.args(arguments).output().expect("it runs")
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn printed(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(0), "{}", errors(output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn errors(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn fixture() -> Value {
    serde_json::from_str(FIXTURE).expect("the fixture is JSON")
}

/// The words of the first line that contains all of these.
fn line(table: &str, parts: &[&str]) -> String {
    let found = table
        .lines()
        .find(|line| parts.iter().all(|part| line.contains(part)));
    let found = found.unwrap_or_else(|| panic!("no line with {parts:?} in\n{table}"));
    found.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Scales the edge's results in one row.
fn scale(runs: &mut Value, row: usize, factor: f64) {
    for run in runs["rows"][row]["runs"].as_array_mut().expect("runs") {
        if run["side"] == "edge" {
            let value = run["value"].as_f64().expect("a number");
            run["value"] = json!(value * factor);
        }
    }
}

#[test]
fn the_table_is_made_from_the_report() {
    let bench = Bench::new();
    let mut runs = fixture();
    // Round figures, so that the table can be worked out by hand.
    runs["rows"][0]["runs"] = json!([
        {"side": "edge", "pair": 1, "value": 20.0, "unit": "Gb/s"},
        {"side": "nginx sendfile", "pair": 1, "value": 10.0, "unit": "Gb/s"},
        {"side": "bare GSO", "pair": 1, "value": 25.0, "unit": "Gb/s"},
        {"side": "edge", "pair": 2, "value": 24.0, "unit": "Gb/s"},
        {"side": "nginx sendfile", "pair": 2, "value": 10.0, "unit": "Gb/s"},
        {"side": "bare GSO", "pair": 2, "value": 30.0, "unit": "Gb/s"},
    ]);
    let report = bench.report("a.json", &runs);
    let table = printed(&edge_bench(&["table", text(&report)]));
    let wanted = "P1 bulk 22.0 Gb/s nginx sendfile 10.0 Gb/s 2.20 (2.00 … 2.40) ≥ 1.5 met";
    assert_eq!(line(&table, &["P1", "nginx"]), wanted);
    let wanted = "bare GSO 27.5 Gb/s 0.800 (0.800 … 0.800) ≥ 0.9 missed";
    assert_eq!(line(&table, &["bare GSO"]), wanted);
    line(&table, &["P2", "Knot DNS XDP", "absent: knot is not"]);
    line(&table, &["P6", "0 GB/s", "missed"]);
    for message in [
        "a quick run: its figures are too short for claims",
        "kernel: 6.18.5",
        "P2: the generator was saturated: ours is a lower bound",
        "P5: not built yet",
        "P6: 1 chunk delivered wrong: the row counts as 0",
    ] {
        assert!(
            table.lines().any(|line| line == message),
            "{message}\n{table}"
        );
    }
}

#[test]
fn the_page_has_every_plot_and_loads_nothing() {
    let bench = Bench::new();
    let report = bench.report("a.json", &fixture());
    let page = bench.path("a.html");
    printed(&edge_bench(&["report", text(&report), "-o", text(&page)]));
    let page = fs::read_to_string(page).expect("the page");
    for chapter in [
        "Results",
        "Latency by percentile",
        "Goodput and latency by offered load",
        "Processor time per GB",
        "Runs",
    ] {
        assert!(page.contains(&format!("{chapter}</h2>")), "{chapter}");
    }
    // One by percentile, two by load.
    assert_eq!(page.matches("role=\"img\"").count(), 3);
    assert_eq!(page.matches("</svg>").count(), 3);
    let without_names = page.replace("xmlns=\"http://www.w3.org/2000/svg\"", "");
    for outside in [
        "http:", "https:", "<script", "<link", "src=", "url(", "@import",
    ] {
        assert!(!without_names.contains(outside), "{outside}");
    }
}

#[test]
fn names_in_a_report_are_no_markup_on_the_page() {
    let bench = Bench::new();
    let hostile = "<img src=x onerror=alert(1)>\"'&";
    let mut runs = fixture();
    runs["commit"] = json!(hostile);
    runs["rows"][0]["name"] = json!(hostile);
    runs["rows"][3]["targets"][0]["name"] = json!(hostile);
    for run in runs["rows"][3]["runs"].as_array_mut().expect("runs") {
        if run["side"] == "edge, XDP off" {
            run["side"] = json!(hostile);
        }
    }
    let report = bench.report("a.json", &runs);
    let page = bench.path("a.html");
    printed(&edge_bench(&["report", text(&report), "-o", text(&page)]));
    let page = fs::read_to_string(page).expect("the page");
    assert!(page.contains("&lt;img src=x onerror=alert(1)&gt;"));
    assert!(!page.contains("<img"));
}

#[test]
fn nothing_in_a_report_acts_on_the_terminal_or_on_the_page() {
    let bench = Bench::new();
    let acting = "\u{1b}[31mred\u{7}\u{9b}2J\r\n\u{202e}";
    let acts = |text: &str| text.contains(['\u{1b}', '\u{7}', '\u{9b}', '\r', '\u{202e}']);
    let mut runs = fixture();
    for field in ["driver", "kernel", acting] {
        runs["host"][field] = json!(acting);
    }
    runs["commit"] = json!(acting);
    runs["rows"][0]["name"] = json!(acting);
    runs["rows"][4]["note"] = json!(acting);
    let report = bench.report("a.json", &runs);
    // As from an untrusted source.
    let hostile = bench.path("b.json");
    let escaped = r"\u001b[31mred\u0007\u009b2J\r\n\u202e";
    let text_of = fs::read_to_string(&report).expect("the report");
    let raw = text_of.replace(r"\\u{1b}[31mred\\u{7}\\u{9b}2J\\r\\n\\u{202e}", escaped);
    assert!(raw.matches(escaped).count() > 6, "{raw}");
    fs::write(&hostile, raw).expect("is written");
    for report in [&report, &hostile] {
        let table = printed(&edge_bench(&["table", text(report)]));
        assert!(
            table.contains(r"driver: \u{1b}[31mred") && !acts(&table),
            "{table}"
        );
        let comparison = printed(&edge_bench(&["compare", text(report), text(&hostile)]));
        assert!(!acts(&comparison), "{comparison}");
        let page = bench.path("a.html");
        printed(&edge_bench(&["report", text(report), "-o", text(&page)]));
        assert!(!acts(&fs::read_to_string(page).expect("the page")));
    }
    let mut unlike = fixture();
    unlike["sender"] = json!(acting);
    let refused = edge_bench(&["table", text(&bench.write("c.json", &unlike))]);
    assert!(!acts(&errors(&refused)), "{}", errors(&refused));
    let gone = edge_bench(&["table", acting]);
    assert!(!acts(&errors(&gone)), "{}", errors(&gone));
}

#[test]
fn a_comparison_tells_noise_from_a_difference() {
    let bench = Bench::new();
    let a = bench.report("a.json", &fixture());
    let mut faster = fixture();
    faster["commit"] = json!("after");
    scale(&mut faster, 0, 1.5);
    scale(&mut faster, 2, 1.5);
    let b = bench.report("b.json", &faster);
    let comparison = printed(&edge_bench(&["compare", text(&a), text(&b)]));
    line(&comparison, &["P1", "nginx sendfile", "better"]);
    line(&comparison, &["P3-hot", "value", "worse"]);
    assert_eq!(
        line(&comparison, &["more than noise:"]),
        "more than noise: P1, P3-hot"
    );
    assert_eq!(
        line(&comparison, &["within noise:"]),
        "within noise: P2, P4-p99"
    );
    assert_eq!(
        line(&comparison, &["undecided: P"]),
        "undecided: P4-load, P5, P6"
    );

    let json = printed(&edge_bench(&["compare", text(&a), text(&b), "--json"]));
    let json: Value = serde_json::from_str(&json).expect("is JSON");
    assert_eq!(json["b"]["commit"], "after");
    assert_eq!(json["rows"][0]["more_than_noise"], true);
    assert_eq!(json["rows"][0]["figures"][0]["verdict"], "better");
    assert_eq!(json["rows"][1]["more_than_noise"], false);
    assert_eq!(json["rows"][5]["more_than_noise"], Value::Null);
}

#[test]
fn a_report_is_not_written_over() {
    let bench = Bench::new();
    let report = bench.report("a.json", &fixture());
    let before = fs::read(&report).expect("the report");
    let output = edge_bench(&["report", text(&report), "-o", text(&report)]);
    assert_eq!(output.status.code(), Some(1));
    assert!(errors(&output).contains("name another file"));
    assert_eq!(fs::read(&report).expect("the report"), before);
}

#[test]
fn unlike_hosts_are_refused() {
    let bench = Bench::new();
    let a = bench.report("a.json", &fixture());
    let mut elsewhere = fixture();
    elsewhere["host"]["kernel"] = json!("6.1.0");
    elsewhere["host"]["offloads"]["rx-gro"] = json!(false);
    elsewhere["host"]["memory_bytes"] = json!(1);
    let b = bench.report("b.json", &elsewhere);
    let output = edge_bench(&["compare", text(&a), text(&b)]);
    assert_eq!(output.status.code(), Some(2));
    assert!(output.stdout.is_empty());
    let wanted = "error: these reports come from unlike hosts and are not compared: \
                  kernel is 6.18.5 in A and 6.1.0 in B; offload rx-gro is on in A and off in B\n";
    assert_eq!(errors(&output), wanted);
}

#[test]
fn an_error_in_a_file_is_reported_with_its_place() {
    let bench = Bench::new();
    let refused = |runs: &Value| {
        let runs = bench.write("bad.json", runs);
        let report = bench.path("never.json");
        let output = edge_bench(&["assemble", text(&runs), "-o", text(&report)]);
        assert_eq!(output.status.code(), Some(1));
        assert!(!report.exists());
        errors(&output)
    };
    let mut runs = fixture();
    runs["rows"][1]["runs"][4]["value"] = json!("fast");
    let message = refused(&runs);
    assert!(
        message.contains("bad.json: row P2: runs[4].value: invalid type"),
        "{message}"
    );
    let mut runs = fixture();
    runs["rows"][5]["note"] = Value::Null;
    let message = refused(&runs);
    assert!(message.contains("row P5: note: is needed"), "{message}");
    let mut runs = fixture();
    runs["started"] = json!("yesterday");
    let message = refused(&runs);
    assert!(
        message.contains("bad.json: started: yesterday"),
        "{message}"
    );
    let mut runs = fixture();
    runs["schema"] = json!(2);
    let message = refused(&runs);
    assert!(
        message.contains("bad.json: schema: 2 is not 1"),
        "{message}"
    );

    let missing = edge_bench(&["table", text(&bench.path("gone.json"))]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(errors(&missing).contains("cannot read"));
    assert_eq!(edge_bench(&["report"]).status.code(), Some(2));
}

#[test]
fn a_result_that_cannot_be_printed_is_a_failure_and_a_closed_pipe_is_none() {
    let to = |out: Stdio| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_edge-bench"));
        command.args(["host", "--interface", "lo"]).stdout(out);
        command.output().expect("it runs")
    };
    let full = fs::File::options().write(true).open("/dev/full");
    let output = to(full.expect("is there").into());
    assert_eq!(output.status.code(), Some(1));
    let message = errors(&output);
    assert!(
        message.starts_with("error: cannot write to standard output"),
        "{message}"
    );
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    assert_eq!(errors(&to(writer.into())), "");
}
