//! All tests, with what the kernel's part of them needs, and a count that hides no skip.
//!
//! A test that cannot run appends a line `SKIPPED <name>: <reason>` to the file named in
//! `SEALEDGE_SKIPS`. Skips are listed at the end; one that `xtask/skips.txt` does not accept
//! fails the run. An `#[ignore]` counts as a skip too.

use std::fs;
use std::iter;

use anyhow::{Context as _, Result, bail};

use crate::build;
use crate::machine::Machine;
use crate::place;
use crate::process;
use crate::rights;

/// Enough for several daemons with small arenas at a time, and one test with a large one.
const HUGEPAGE_BYTES: u64 = 1 << 30;

/// I11: the daemon and its tests, without the code that can hold a key.
const SERVER_ALONE: [&str; 5] = [
    "--package",
    "edge-user",
    "--no-default-features",
    "--features",
    "server",
];

/// Where accepted skips are listed, seen from the root of the workspace.
const ACCEPTED: &str = "xtask/skips.txt";

pub(crate) fn test(filter: &[String]) -> Result<()> {
    rights::need_root(
        "test makes network namespaces, loads an XDP program and reserves hugepages; it",
    )?;
    build::build()?;
    build::bench()?;
    let mut machine = Machine::borrow()?;
    let folder = machine.folder()?;
    machine.expect_namespaces()?;
    machine.hugepages(HUGEPAGE_BYTES)?;
    let skips_file = folder.join("skips");

    let mut tally = Tally::default();
    let mut failed = Vec::new();
    let asked = filter.iter().map(String::as_str);
    let mut suites: Vec<Vec<&str>> = vec![iter::once("--workspace").chain(asked).collect()];
    if filter.is_empty() {
        suites.push(SERVER_ALONE.to_vec());
    }
    for suite in suites {
        let mut command = build::workspace_cargo("test");
        command
            .arg("--no-fail-fast")
            .args(suite)
            .env("SEALEDGE_BIN_DIR", place::target().join("release"))
            .env("SEALEDGE_SKIPS", &skips_file);
        let status = process::lines(&mut command, |line| {
            println!("{line}");
            tally.read(line);
        })?;
        if !status.success() {
            failed.push(format!("({status}) {}", process::line(&command)));
        }
    }
    tally.hear(told_skips(
        &fs::read_to_string(&skips_file).unwrap_or_default(),
    ));
    machine.give_back()?;

    let accepted = place::root().join(ACCEPTED);
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
    println!("{}", tally.summary());
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

/// A test that could not run.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Skip {
    name: String,
    reason: String,
}

/// What the test programs said, added up.
#[derive(Default)]
struct Tally {
    passed: u64,
    failed: u64,
    skips: Vec<Skip>,
}

impl Tally {
    /// A test that says it cannot run was counted as passed by its test program.
    fn hear(&mut self, told: Vec<Skip>) {
        self.passed = self
            .passed
            .saturating_sub(told.len().try_into().unwrap_or(u64::MAX));
        self.skips.extend(told);
    }

    fn read(&mut self, line: &str) {
        if let Some(rest) = line.strip_prefix("test result: ") {
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

    fn summary(&self) -> String {
        format!(
            "{} passed, {} failed, {} skipped",
            self.passed,
            self.failed,
            self.skips.len()
        )
    }
}

fn number_before(text: &str, word: &str) -> u64 {
    let before = text.split_once(word).map_or("", |(before, _)| before);
    before
        .rsplit(' ')
        .next()
        .and_then(|number| number.parse().ok())
        .unwrap_or(0)
}

fn told_skips(text: &str) -> Vec<Skip> {
    text.lines()
        .filter_map(|line| parse_skip(line.strip_prefix("SKIPPED ")?))
        .collect()
}

fn parse_skip(text: &str) -> Option<Skip> {
    // Names of tests have `::` in them, so the separator is a colon and a blank.
    let (name, reason) = text.split_once(": ")?;
    Some(Skip {
        name: name.trim().to_owned(),
        reason: reason.trim().to_owned(),
    })
}

/// Skips that nobody accepted: the name must be listed, with the very reason that was given.
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
        tally.read("test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out");
        tally.read("test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured");
        tally.read("test slow ... ignored, takes an hour");
        tally.read("test quick ... ok");
        assert_eq!(tally.summary(), "15 passed, 2 failed, 1 skipped");
        tally.hear(told_skips("SKIPPED quick: no root\n"));
        assert_eq!(tally.summary(), "14 passed, 2 failed, 2 skipped");
    }

    #[test]
    fn a_skip_is_accepted_only_with_its_reason() {
        let skips = told_skips("SKIPPED net::veth: no root\nnoise\n");
        assert_eq!(skips.len(), 1);
        assert!(unlisted(&skips, "# comment\nnet::veth: no root\n").is_empty());
        assert_eq!(unlisted(&skips, "net::veth: another reason\n").len(), 1);
        assert_eq!(unlisted(&skips, "").len(), 1);
    }
}
