//! Instructions of the pure stages, counted by callgrind and compared with the committed figures.
//!
//! One run calls a stage `CALLS` times, another twice as often. The difference divided by `CALLS`
//! is one call: start and set-up cancel out.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use edge_testbed::{paths, process};
use serde_json::{Value, json};

use crate::build;
use crate::setup;
use crate::toolchain;
use crate::versions::VALGRIND;

/// The committed figures, relative to the workspace.
const COMMITTED: &str = "bench/instructions.json";
/// A benchmark of `edge-bench`: lists the stages, or calls one.
const DRIVER: &str = "count";
const CALLS: u32 = 10_000;
/// Accepted increase above the committed figures, in percent.
const ABOVE_MAX_PERCENT: f64 = 2.0;

/// Instructions per call of each stage.
type Figures = BTreeMap<String, f64>;

/// Counts, compares and prints. Fails if a stage executes too many more instructions than
/// committed; `accept` commits the counts instead.
pub(crate) fn instructions(accept: bool) -> Result<()> {
    setup::programs(&[(VALGRIND, VALGRIND)])?;
    let mut command = build::workspace_cargo("build");
    command.args(["--release", "--package", "edge-bench"]);
    process::run(command.args(["--example", DRIVER]))?;

    let file = paths::root().join(COMMITTED);
    let compiler = toolchain::host_version()?;
    let counted = count()?;
    if accept {
        let text = json!({"compiler": &compiler, "stages": &counted});
        let text = serde_json::to_string_pretty(&text)? + "\n";
        fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
        eprintln!("accepted: {COMMITTED}");
    }
    let text = fs::read_to_string(&file)
        .with_context(|| format!("cannot read {}", file.display()))
        .context("create it with: cargo xtask bench --instructions --accept")?;
    let committed: Value = serde_json::from_str(&text)?;
    let stages: Figures = serde_json::from_value(committed["stages"].clone())
        .with_context(|| format!("{} has no figures", file.display()))?;
    let (table, complaints) = compare(&counted, &stages);
    println!("{table}\n\ninstructions, compiled by {compiler}");
    judge(&compiler, &committed["compiler"], &complaints)
}

/// Figures of another compiler are not comparable.
fn judge(compiler: &str, of_committed: &Value, complaints: &[String]) -> Result<()> {
    if *of_committed != json!(compiler) {
        println!("the committed figures are of {of_committed}: differences are ignored");
        return Ok(());
    }
    if complaints.is_empty() {
        return Ok(());
    }
    bail!(
        "instructions are not as committed in {COMMITTED} (at most {ABOVE_MAX_PERCENT} % above):\n  \
         {}\nto accept: cargo xtask bench --instructions --accept",
        complaints.join("\n  ")
    )
}

fn count() -> Result<Figures> {
    let valgrind = process::find(VALGRIND).context("valgrind was installed but not found")?;
    let list = process::output(&mut Command::new(examples().join(DRIVER)))?;
    let stages = list.lines().map(|stage| {
        let once = executed(&valgrind, stage, CALLS)?;
        let twice = executed(&valgrind, stage, 2 * CALLS)?;
        Ok((stage.to_owned(), per_call(once, twice)?))
    });
    stages.collect()
}

fn examples() -> PathBuf {
    paths::release("examples")
}

/// Instructions of a whole run with this number of calls.
fn executed(valgrind: &Path, stage: &str, calls: u32) -> Result<u64> {
    // The longer run is written last and kept, for callgrind_annotate.
    let folder = paths::target().join("bench/callgrind");
    fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
    let name = stage.replace(|letter: char| !letter.is_ascii_alphanumeric(), "-");
    let file = folder.join(format!("{name}.out"));
    let mut command = Command::new(valgrind);
    command
        // The index hashes with a seed made of addresses. An empty environment and a short name
        // keep the stack, and so the seed, constant.
        .env_clear()
        .current_dir(examples())
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(format!("./{DRIVER}"))
        .args([stage, &calls.to_string()]);
    process::output(&mut command)?;
    let text =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    total(&text).with_context(|| format!("no total in {}", file.display()))
}

/// The total that callgrind counted.
fn total(text: &str) -> Option<u64> {
    let mut lines = text.lines();
    lines.find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
}

/// To a tenth of an instruction, as a stage may alternate.
fn per_call(once: u64, twice: u64) -> Result<f64> {
    let more = twice
        .checked_sub(once)
        .context("more calls executed fewer instructions")?;
    let tenths = (more * 10 + u64::from(CALLS) / 2) / u64::from(CALLS);
    let tenths = u32::try_from(tenths).context("one call executes more than a report can hold")?;
    Ok(f64::from(tenths) / 10.0)
}

/// A table, and why the committed figures are out of date.
fn compare(counted: &Figures, committed: &Figures) -> (String, Vec<String>) {
    let line = |stage: &str, cells: [&str; 3]| {
        let [counted, committed, percent] = cells;
        format!("{stage:<52} {counted:>9} {committed:>9} {percent:>7}")
    };
    let mut lines = vec![line("stage", ["a call", "committed", "%"])];
    let mut complaints = Vec::new();
    let stages: BTreeSet<&String> = counted.keys().chain(committed.keys()).collect();
    for stage in stages {
        let (now, before) = (counted.get(stage), committed.get(stage));
        let percent = now
            .zip(before)
            .map(|(now, before)| (now - before) * 100.0 / before);
        let figure = |figure: Option<&f64>| figure.map_or("-".into(), |it| format!("{it:.1}"));
        let words = percent.map_or("-".into(), |it| format!("{it:+.1}"));
        lines.push(line(stage, [&figure(now), &figure(before), &words]));
        match (percent, now) {
            (Some(percent), _) if percent > ABOVE_MAX_PERCENT => {
                complaints.push(format!("{stage}: {words} %"));
            }
            (Some(_), _) => {}
            (None, Some(_)) => complaints.push(format!("{stage}: not committed")),
            (None, None) => complaints.push(format!("{stage}: committed, but not counted")),
        }
    }
    (lines.join("\n"), complaints)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn callgrind_is_understood_and_a_call_is_the_difference() {
        let text = "version: 1\nevents: Ir\nfn=(1) main\n1 7\n\ntotals: 3363392\n";
        assert_eq!(total(text), Some(3_363_392));
        assert_eq!(total("events: Ir\n"), None);
        let call = per_call(2_373_392, 3_363_392).unwrap();
        assert_eq!(format!("{call}"), "99");
        assert!(per_call(2, 1).is_err());
    }

    #[test]
    fn a_stage_that_executes_more_or_has_no_counterpart_is_named() {
        let complaints = |stages: &[(&str, f64)]| {
            let figures = |stages: &[(&str, f64)]| -> Figures {
                let stages = stages.iter().map(|(name, it)| ((*name).to_owned(), *it));
                stages.collect()
            };
            let committed = figures(&[("parse/a", 100.0), ("parse/b", 50.0)]);
            compare(&figures(stages), &committed).1
        };
        assert_eq!(complaints(&[("parse/a", 101.9), ("parse/b", 9.0)]), [""; 0]);
        assert_eq!(
            complaints(&[("parse/a", 102.1), ("parse/b", 9.0)]),
            ["parse/a: +2.1 %"]
        );
        assert_eq!(
            complaints(&[("parse/a", 100.0), ("parse/c", 1.0)]),
            [
                "parse/b: committed, but not counted",
                "parse/c: not committed"
            ]
        );
    }

    #[test]
    fn complaints_fail_and_figures_of_another_compiler_do_not() {
        let complaint = [String::from("parse/a: +2.1 %")];
        let error = judge("rustc 1", &json!("rustc 1"), &complaint).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("parse/a") && text.contains("--accept"),
            "{text}"
        );
        judge("rustc 2", &json!("rustc 1"), &complaint).unwrap();
        judge("rustc 1", &json!("rustc 1"), &[]).unwrap();
    }
}
