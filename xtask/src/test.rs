//! Runs all tests, with the resources that those of the kernel need, counts skips, and reports the
//! time of each part.
//!
//! A test that cannot run appends a line `SKIPPED <name>: <reason>` to the file named in
//! `SEALEDGE_SKIPS`. Skips are listed at the end; one that `xtask/skips.txt` does not accept fails
//! the run. An `#[ignore]` counts as a skip too.

use std::fs;
use std::num::NonZero;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_testbed::{clock, host_guard::HostGuard, paths, privileges, process};

use crate::build;

/// Enough for several daemons with small arenas at a time, and one test with a large one.
const HUGEPAGE_BYTES: u64 = 1 << 30;

/// Most tests wait more than they compute.
const THREADS_PER_CPU: usize = 2;

/// Arguments and variables of the cargo calls.
type Suites<'a> = Vec<(Vec<&'a str>, &'a [(&'a str, &'a str)])>;

/// I11: the daemon and its tests, without the code that can hold a key.
const SERVER_ALONE: &str = "--package edge-user --no-default-features --features server";

/// Randomised and exhaustive tests, which find more the longer they run.
const SEARCHES: &str = "--package edge-user --package edge-ebpf --package edge-orders --lib \
                        --test sim --test orders";
const LONG: [(&str, &str); 3] = [
    ("SEALEDGE_SIM_SEEDS", "100000"),
    ("PROPTEST_CASES", "10000"),
    ("LOOM_MAX_PREEMPTIONS", "6"),
];

/// The list of accepted skips, relative to the workspace.
const ACCEPTED: &str = "xtask/skips.txt";

pub(crate) fn test(nightly: bool, filter: &[String]) -> Result<()> {
    privileges::need_root(
        "test creates network namespaces, loads an XDP program and reserves hugepages; it",
    )?;
    build::build()?;
    build::release("edge-bench")?;
    let mut machine = HostGuard::borrow()?;
    let folder = machine.folder()?;
    machine.expect_namespaces()?;
    machine.hugepages(HUGEPAGE_BYTES)?;
    let skips_file = folder.join("skips");
    let cpus = thread::available_parallelism().map_or(1, NonZero::get);

    let mut tally = Tally::default();
    let mut failed = Vec::new();
    for (words, variables) in suites(nightly, filter) {
        let mut command = build::workspace_cargo("test");
        command
            .arg("--no-fail-fast")
            .args(words)
            .envs(variables.iter().copied())
            .env("RUST_TEST_THREADS", (THREADS_PER_CPU * cpus).to_string())
            .env("SEALEDGE_BIN_DIR", paths::target().join("release"))
            .env("SEALEDGE_SKIPS", &skips_file);
        let began = clock::now();
        tally.begin("compiling", Duration::ZERO);
        let status = process::all_lines(&mut command, |line| {
            println!("{line}");
            tally.read(line, began.elapsed());
        })?;
        tally.end(began.elapsed());
        if !status.success() {
            failed.push(format!("({status}) {}", process::line(&command)));
        }
    }
    tally.add_skips(parse_skips(
        &fs::read_to_string(&skips_file).unwrap_or_default(),
    ));
    machine.give_back()?;

    let accepted = paths::root().join(ACCEPTED);
    let accepted = fs::read_to_string(&accepted)
        .with_context(|| format!("cannot read {}", accepted.display()))?;
    let unlisted = unlisted(&tally.skips, &accepted);
    for skip in &tally.skips {
        let listed = if unlisted.contains(&skip) {
            "not in"
        } else {
            "accepted by"
        };
        println!(
            "SKIPPED {}: {} ({listed} {ACCEPTED})",
            skip.name, skip.reason
        );
    }
    println!("{}\n{}", tally.times(), tally.summary());
    if !failed.is_empty() {
        bail!("tests failed: {}", failed.join("; "));
    }
    if tally.passed == 0 {
        bail!("no test ran");
    }
    if !unlisted.is_empty() {
        bail!(
            "{} skipped tests are not accepted by {ACCEPTED}",
            unlisted.len()
        );
    }
    Ok(())
}

fn suites(nightly: bool, filter: &[String]) -> Suites<'_> {
    let words = |text: &'static str| text.split_whitespace().collect::<Vec<_>>();
    if nightly {
        return vec![(words(SEARCHES), &LONG)];
    }
    let mut all = words("--workspace");
    all.extend(filter.iter().map(String::as_str));
    let mut suites: Suites<'_> = vec![(all, &[])];
    if filter.is_empty() {
        suites.push((words(SERVER_ALONE), &[]));
    }
    suites
}

/// A test that could not run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Skip {
    name: String,
    reason: String,
}

/// The sum of the test programs' results.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skips: Vec<Skip>,
    /// The time of each test program.
    parts: Vec<(String, Duration)>,
    /// The one that runs, and since when.
    running: (String, Duration),
}

impl Tally {
    /// A test that reports a skip was counted as passed by its test program.
    fn add_skips(&mut self, skips: Vec<Skip>) {
        self.passed = self
            .passed
            .saturating_sub(skips.len().try_into().unwrap_or(u64::MAX));
        self.skips.extend(skips);
    }

    fn begin(&mut self, part: &str, now: Duration) {
        self.running = (part.to_owned(), now);
    }

    fn end(&mut self, now: Duration) {
        let (part, since) = std::mem::take(&mut self.running);
        let took = now.saturating_sub(since);
        match self.parts.iter_mut().find(|(known, _)| *known == part) {
            Some((_, sum)) => *sum += took,
            None => self.parts.push((part, took)),
        }
    }

    fn read(&mut self, line: &str, now: Duration) {
        if let Some(part) = part(line) {
            self.end(now);
            self.begin(part, now);
        } else if let Some(rest) = line.strip_prefix("test result: ") {
            self.passed += number_before(rest, " passed");
            self.failed += number_before(rest, " failed");
        } else if let Some((name, outcome)) = line
            .strip_prefix("test ")
            .and_then(|rest| rest.split_once(" ... "))
            && let Some(reason) = outcome.strip_prefix("ignored")
        {
            let reason = reason.trim_start_matches([',', ' ']);
            let reason = if reason.is_empty() { "ignored" } else { reason };
            self.skips.push(Skip {
                name: name.to_owned(),
                reason: reason.to_owned(),
            });
        }
    }

    /// Longest first; the sum of those below a second last.
    fn times(&self) -> String {
        let mut parts: Vec<_> = self.parts.iter().collect();
        parts.sort_by_key(|(_, took)| std::cmp::Reverse(*took));
        let (long, short): (Vec<_>, Vec<_>) =
            parts.into_iter().partition(|(_, took)| took.as_secs() > 0);
        let mut times: Vec<String> = long
            .into_iter()
            .map(|(part, took)| format!("{part} {:.0}", took.as_secs_f64()))
            .collect();
        let rest: Duration = short.into_iter().map(|(_, took)| took).sum();
        times.push(format!("all others {:.0}", rest.as_secs_f64()));
        format!("seconds: {}", times.join(", "))
    }

    fn summary(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed,
            self.skips.len()
        )
    }
}

/// The test program that cargo starts: `net` of `Running tests/net/main.rs
/// (target/debug/deps/net-956554ca775151aa)`.
fn part(line: &str) -> Option<&str> {
    let line = line.trim_start();
    if line.starts_with("Doc-tests ") {
        return Some(line);
    }
    let (_, path) = line.strip_prefix("Running ")?.split_once('(')?;
    let (_, file) = path.rsplit_once('/')?;
    file.rsplit_once('-').map(|(name, _)| name)
}

fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split_once(word).map_or("", |(before, _)| before);
    before
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn parse_skips(text: &str) -> Vec<Skip> {
    text.lines()
        .filter_map(|line| parse_skip(line.strip_prefix("SKIPPED ")?))
        .collect()
}

fn parse_skip(text: &str) -> Option<Skip> {
    // Names of tests contain `::`, so the separator is a colon and a blank.
    let (name, reason) = text.split_once(": ")?;
    Some(Skip {
        name: name.trim().to_owned(),
        reason: reason.trim().to_owned(),
    })
}

/// Skips that are not accepted: the list must have the name with the same reason.
fn unlisted<'a>(skips: &'a [Skip], accepted: &str) -> Vec<&'a Skip> {
    let accepted: Vec<Skip> = accepted
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(parse_skip)
        .collect();
    skips
        .iter()
        .filter(|skip| !accepted.contains(skip))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_several_programs_are_added_up() {
        let mut tally = Tally::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured",
            "test slow ... ignored, takes an hour",
            "test quick ... ok",
        ] {
            tally.read(line, Duration::ZERO);
        }
        assert_eq!(tally.summary(), "15 passed, 2 failed, 1 skipped");
        tally.add_skips(parse_skips("SKIPPED quick: no root\n"));
        assert_eq!(tally.summary(), "14 passed, 2 failed, 2 skipped");
    }

    #[test]
    fn the_time_of_each_test_program_is_added_up() {
        let mut tally = Tally::default();
        tally.begin("compiling", Duration::ZERO);
        for (line, second) in [
            ("   Compiling edge-user v0.1.0", 1),
            (
                "     Running tests/net/main.rs (target/debug/deps/net-956554ca775151aa)",
                10,
            ),
            ("test Running (a-b) ... ok", 15),
            (
                "     Running unittests src/lib.rs (target/debug/deps/edge_user-57c1)",
                75,
            ),
            ("   Doc-tests edge_user", 80),
        ] {
            tally.read(line, Duration::from_secs(second));
        }
        tally.end(Duration::from_millis(80_100));
        assert_eq!(
            tally.times(),
            "seconds: net 65, compiling 10, edge_user 5, all others 0"
        );
    }

    #[test]
    fn a_skip_is_accepted_only_with_its_reason() {
        let skips = parse_skips("SKIPPED net::veth: no root\nnoise\n");
        assert_eq!(skips.len(), 1);
        assert!(unlisted(&skips, "# comment\nnet::veth: no root\n").is_empty());
        assert_eq!(unlisted(&skips, "net::veth: another reason\n").len(), 1);
        assert_eq!(unlisted(&skips, "").len(), 1);
    }
}
