//! Benchmarks the edge, its ceilings and its peers in one run, on a testbed of its own.

/// The link, the content and the CPUs.
mod testbed;
/// Processor time.
mod cpu;
/// Runs a generator and returns its result.
mod client;
/// The generators.
mod generators;
/// The peers.
mod peers;
/// The rows.
mod rows;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use edge_testbed::{daemon::SENDERS, host_guard::HostGuard, paths, privileges, process};
use serde_json::{Value, json};

use self::rows::growing::Growing;
use self::rows::{ROWS, Row, Turn, WITH_BASELINE};
use self::testbed::Testbed;
use crate::build;
use crate::instructions;

#[derive(Args)]
#[expect(clippy::struct_excessive_bools, reason = "switches of a command line")]
pub(crate) struct Bench {
    /// Three pairs of about one second per side: for a quick look, not for claims
    #[arg(long)]
    quick: bool,
    /// Run only these rows, such as P1,P2; P3 means all of its rows
    #[arg(long, value_delimiter = ',', value_name = "ROWS", value_parser = row_names())]
    only: Vec<String>,
    /// Also write the report to this file; an existing one is removed before the run
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// How the edge sends its replies; by default as is best for each row
    #[arg(long, value_parser = SENDERS)]
    sender: Option<String>,
    /// Compare with another build instead, in rows P1, P2 and P5; FOLDER contains its programs
    #[arg(long, value_name = "FOLDER")]
    baseline: Option<PathBuf>,
    /// Time the pure stages only, with criterion
    #[arg(long, conflicts_with_all = ["quick", "only", "json", "sender", "baseline"])]
    micro: bool,
    /// Count the instructions of the stages, and compare with bench/instructions.json
    #[arg(long, conflicts_with_all = ["quick", "only", "json", "sender", "baseline", "micro"])]
    instructions: bool,
    /// Write the counts to that file
    #[arg(long, requires = "instructions")]
    accept: bool,
}

/// Duration and number of the runs.
#[derive(Clone, Copy)]
struct Plan {
    pairs: u32,
    seconds: f64,
    /// Bytes of resident content.
    content_bytes: u64,
    /// Offered loads, as shares of the edge's maximum, and the runs of each.
    load_shares: &'static [f64],
    load_rounds: u32,
}

const QUICK: Plan = Plan {
    pairs: 3,
    seconds: 1.0,
    content_bytes: 1 << 30,
    load_shares: &[0.5, 1.0],
    load_rounds: 1,
};
const FULL: Plan = Plan {
    pairs: 5,
    seconds: 4.0,
    content_bytes: 1 << 30,
    load_shares: &[0.2, 0.4, 0.6, 0.8, 1.0, 1.2],
    load_rounds: 2,
};

pub(crate) fn bench(options: &Bench) -> Result<()> {
    if options.micro {
        return process::run(build::workspace_cargo("bench").args(["--package", "edge-bench"]));
    }
    if options.instructions {
        return instructions::instructions(options.accept);
    }
    let mut chosen = chosen(&options.only);
    if let Some(baseline) = &options.baseline {
        chosen.retain(|row| WITH_BASELINE.contains(&row.id));
        let programs = ["edged", "edge"].map(|name| baseline.join(name));
        if let Some(missing) = programs.iter().find(|program| !program.is_file()) {
            bail!(
                "{} is missing: build the other revision with `cargo xtask build` and name its target/release",
                missing.display()
            );
        }
        if chosen.is_empty() {
            bail!(
                "--baseline compares {}; name some of them with --only",
                WITH_BASELINE.join(", ")
            );
        }
    }
    privileges::need_root(
        "bench creates network namespaces, loads XDP programs and reserves hugepages; it",
    )?;
    if let Some(file) = &options.json {
        paths::clear(file)?;
    }
    build::build()?;
    build::release("edge-bench")?;
    let plan = if options.quick { QUICK } else { FULL };
    let mut machine = HostGuard::borrow()?;
    let runs = measure(options, plan, &chosen, &mut machine)?;
    machine.give_back()?;
    report(options, &runs)
}

fn row_names() -> PossibleValuesParser {
    ROWS.iter().map(|row| row.id).into()
}

/// `P3` selects `P3-1k` too.
fn chosen(only: &[String]) -> Vec<&'static Row> {
    let answers_to = |row: &Row, name: &str| {
        let rest = row.id.strip_prefix(name);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('-'))
    };
    let wanted = |row: &&Row| only.is_empty() || only.iter().any(|name| answers_to(row, name));
    ROWS.iter().filter(wanted).collect()
}

fn measure(
    options: &Bench,
    plan: Plan,
    chosen: &[&'static Row],
    machine: &mut HostGuard,
) -> Result<Value> {
    let large = chosen.iter().any(|row| row.id.starts_with("P8"));
    let baseline = options
        .baseline
        .as_ref()
        .map(fs::canonicalize)
        .transpose()?;
    let with_baseline = baseline.is_some();
    let testbed = Testbed::new(machine, plan, large, baseline)?;
    let sender = options.sender.as_deref();
    let mut rows: Vec<Growing> = chosen
        .iter()
        .map(|row| Growing::of(row, with_baseline))
        .collect();
    for pair in 1..=plan.pairs {
        for growing in &mut rows {
            let row = growing.row;
            eprintln!(
                "\n== {}, pair {pair} of {}: {}",
                row.id, plan.pairs, row.work
            );
            (row.pair)(growing, &testbed, Turn { pair, sender })?;
        }
    }
    Ok(json!({
        "schema": 1,
        "host": host_facts(&testbed)?,
        "commit": build::commit(),
        "started": testbed.started,
        "quick": options.quick,
        "seconds_a_side": plan.seconds,
        "sender": options.sender,
        "rows": rows.into_iter().map(Growing::finish).collect::<Vec<_>>(),
    }))
}

/// The facts about this host that figures depend on.
fn host_facts(testbed: &Testbed<'_>) -> Result<Value> {
    let edge = &testbed.bed.edge;
    // The offloads that the measured packets meet: those without a program on the reader's end.
    testbed.pass(false)?;
    let mut host = edge.inside(paths::release("edge-bench"));
    let printed = process::output(host.args(["host", "--interface", edge.link]));
    testbed.pass(true)?;
    let mut facts: Value =
        serde_json::from_str(&printed?).context("`edge-bench host` printed no JSON")?;
    facts["rps"] = json!(format!(
        "server's end to CPU {}, generator's to CPU {}",
        testbed.cpus[0], testbed.cpus[1]
    ));
    Ok(facts)
}

/// Assembles the report, prints the table, and keeps the files.
fn report(options: &Bench, runs: &Value) -> Result<()> {
    let started = runs["started"]
        .as_str()
        .unwrap_or("unknown")
        .replace(':', "-");
    let folder = paths::target().join("bench").join(started);
    fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let measured = folder.join("runs.json");
    fs::write(&measured, runs.to_string())?;
    let report = folder.join("report.json");
    let page = folder.join("report.html");
    edge_bench(&["assemble"], &[&measured], Some(&report))?;
    edge_bench(&["report"], &[&report], Some(&page))?;
    let mut table = Command::new(paths::release("edge-bench"));
    print!("{}", process::output(table.arg("table").arg(&report))?);
    println!("\nreport: {}\npage:   {}", report.display(), page.display());
    if let Some(file) = &options.json {
        fs::copy(&report, file).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

fn edge_bench(words: &[&str], files: &[&Path], out: Option<&Path>) -> Result<()> {
    let mut command = Command::new(paths::release("edge-bench"));
    command.args(words).args(files);
    if let Some(out) = out {
        command.arg("-o").arg(out);
    }
    process::run(&mut command)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(only: &[&str]) -> Vec<&'static str> {
        let only: Vec<String> = only.iter().map(|&name| name.to_owned()).collect();
        chosen(&only).iter().map(|row| row.id).collect()
    }

    #[test]
    fn a_target_chooses_all_of_its_rows_and_a_row_itself() {
        assert_eq!(ids(&["P3"]), ["P3", "P3-1k", "P3-10k", "P3-100k", "P3-1M"]);
        assert_eq!(ids(&["P3-1k", "P1"]), ["P1", "P3-1k"]);
        assert_eq!(ids(&[]).len(), ROWS.len());
    }
}
