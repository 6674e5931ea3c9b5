//! Instructions of the pure stages, counted by callgrind and compared with the committed figures.
//!
//! A stage is called `CALLS` times in one run and twice as often in another. What the second run
//! executes more, divided by `CALLS`, is one call: start and set-up are the same in both.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Map, Value, json};

use crate::build;
use crate::place;
use crate::process;
use crate::setup;
use crate::toolchain;
use crate::versions::VALGRIND;

/// The committed figures, seen from the root of the workspace.
const COMMITTED: &str = "bench/instructions.json";
/// An example of `edge-bench`: lists the stages, or calls one.
const DRIVER: &str = "count";
const CALLS: u32 = 10_000;
/// A stage may execute this much more than is committed, in percent.
const ABOVE_MAX_PERCENT: f64 = 2.0;

/// Counts, compares and tells. Fails when a stage executes too much more than is committed; with
/// `accept` what was counted becomes what is committed.
pub(crate) fn instructions(accept: bool) -> Result<()> {
    setup::programs(&[(VALGRIND, VALGRIND)])?;
    let mut command = build::workspace_cargo("build");
    command
        .args(["--release", "--package", "edge-bench"])
        .args(["--example", DRIVER]);
    process::run(&mut command)?;

    let committed = place::root().join(COMMITTED);
    let counted = Figures::count()?;
    if accept {
        let text = serde_json::to_string_pretty(&counted.to_json())? + "\n";
        write(&committed, &text)?;
        eprintln!("accepted: {COMMITTED}");
    }
    let comparison = Comparison {
        committed: Figures::read(&committed)?,
        counted,
    };
    let report = serde_json::to_string_pretty(&comparison.to_json())? + "\n";
    let file = folder().join("instructions.json");
    write(&file, &report)?;
    print!("{}", comparison.table());
    eprintln!("report: {}", file.display());
    comparison.judge()
}

/// What benchmarks leave.
fn folder() -> PathBuf {
    place::target().join("bench")
}

fn write(file: &Path, text: &str) -> Result<()> {
    if let Some(folder) = file.parent() {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Instructions for one call of each stage, as one compiler made them.
struct Figures {
    compiler: String,
    stages: Vec<(String, f64)>,
}

impl Figures {
    fn count() -> Result<Self> {
        let valgrind = process::find(VALGRIND).context("valgrind is installed and not found")?;
        let list = process::output(&mut Command::new(examples().join(DRIVER)))?;
        let mut stages = Vec::new();
        for stage in list.lines() {
            let once = executed(&valgrind, stage, CALLS)?;
            let twice = executed(&valgrind, stage, 2 * CALLS)?;
            stages.push((stage.to_owned(), per_call(once, twice)?));
        }
        Ok(Self {
            compiler: toolchain::host_version()?,
            stages,
        })
    }

    fn read(file: &Path) -> Result<Self> {
        let text = fs::read_to_string(file)
            .with_context(|| format!("cannot read {}", file.display()))
            .context("make it with: cargo xtask bench --instructions --accept")?;
        Self::from_json(&text).with_context(|| format!("cannot understand {}", file.display()))
    }

    fn from_json(text: &str) -> Result<Self> {
        let value: Value = serde_json::from_str(text)?;
        let compiler = value["compiler"].as_str().context("it has no `compiler`")?;
        let stages = value["stages"]
            .as_object()
            .context("it has no `stages`")?
            .iter()
            .map(|(stage, figure)| Some((stage.clone(), figure.as_f64()?)))
            .collect::<Option<_>>()
            .context("a figure is no number")?;
        Ok(Self {
            compiler: compiler.to_owned(),
            stages,
        })
    }

    fn to_json(&self) -> Value {
        let stages: Map<_, _> = self
            .stages
            .iter()
            .map(|(stage, figure)| (stage.clone(), json!(figure)))
            .collect();
        json!({"compiler": self.compiler, "stages": stages})
    }

    fn of(&self, stage: &str) -> Option<f64> {
        let mut stages = self.stages.iter();
        stages
            .find(|(name, _)| name == stage)
            .map(|(_, figure)| *figure)
    }
}

fn examples() -> PathBuf {
    place::release("examples")
}

/// Instructions of a whole run that calls the stage this often.
fn executed(valgrind: &Path, stage: &str, calls: u32) -> Result<u64> {
    let plain: String = stage
        .chars()
        .map(|letter| {
            if letter.is_ascii_alphanumeric() {
                letter
            } else {
                '-'
            }
        })
        .collect();
    // The longer run is written last and stays, for callgrind_annotate.
    let file = folder().join("callgrind").join(format!("{plain}.out"));
    write(&file, "")?;
    let mut command = Command::new(valgrind);
    command
        // The index hashes with a seed made of addresses. An empty environment and a short name
        // keep the stack, and so the seed, where it was.
        .env_clear()
        .current_dir(examples())
        .arg("--tool=callgrind")
        .arg(format!("--callgrind-out-file={}", file.display()))
        .arg(format!("./{DRIVER}"))
        .args([stage, &calls.to_string()]);
    process::output(&mut command)?;
    let said =
        fs::read_to_string(&file).with_context(|| format!("cannot read {}", file.display()))?;
    total(&said).with_context(|| format!("no total in {}", file.display()))
}

/// What callgrind counted in all.
fn total(said: &str) -> Option<u64> {
    let mut lines = said.lines();
    lines.find_map(|line| line.strip_prefix("totals: ")?.trim().parse().ok())
}

/// To a tenth of an instruction: a stage may take turns.
fn per_call(once: u64, twice: u64) -> Result<f64> {
    let more = twice
        .checked_sub(once)
        .context("more calls executed fewer instructions")?;
    let tenths = (more * 10 + u64::from(CALLS) / 2) / u64::from(CALLS);
    let tenths = u32::try_from(tenths).context("one call executes more than a report can hold")?;
    Ok(f64::from(tenths) / 10.0)
}

/// What was counted, beside what is committed.
struct Comparison {
    committed: Figures,
    counted: Figures,
}

/// One stage, in either or both.
struct Row<'a> {
    stage: &'a str,
    counted: Option<f64>,
    committed: Option<f64>,
}

impl Row<'_> {
    fn percent(&self) -> Option<f64> {
        let committed = self.committed?;
        Some((self.counted? - committed) * 100.0 / committed)
    }

    /// Why the committed figures cannot stay as they are.
    fn complaint(&self) -> Option<String> {
        let stage = self.stage;
        match (self.percent(), self.counted) {
            (Some(percent), _) if percent > ABOVE_MAX_PERCENT => {
                Some(format!("{stage}: {percent:+.1} %"))
            }
            (Some(_), _) => None,
            (None, Some(_)) => Some(format!("{stage}: not committed")),
            (None, None) => Some(format!("{stage}: committed, and there is no such stage")),
        }
    }
}

impl Comparison {
    /// In the order a request meets them, then what is gone.
    fn rows(&self) -> Vec<Row<'_>> {
        let counted = self.counted.stages.iter().map(|(stage, _)| stage);
        let gone = self.committed.stages.iter().map(|(stage, _)| stage);
        let gone = gone.filter(|stage| self.counted.of(stage).is_none());
        let row = |stage| Row {
            stage,
            counted: self.counted.of(stage),
            committed: self.committed.of(stage),
        };
        counted.chain(gone).map(|stage| row(stage)).collect()
    }

    fn same_compiler(&self) -> bool {
        self.counted.compiler == self.committed.compiler
    }

    fn complaints(&self) -> Vec<String> {
        self.rows().iter().filter_map(Row::complaint).collect()
    }

    fn to_json(&self) -> Value {
        let rows = self.rows();
        let stages = rows.iter().map(|row| {
            json!({
                "stage": row.stage,
                "instructions": row.counted,
                "committed": row.committed,
                "percent": row.percent(),
            })
        });
        json!({
            "compiler": self.counted.compiler,
            "committed_compiler": self.committed.compiler,
            "compared": self.same_compiler(),
            "above_max_percent": ABOVE_MAX_PERCENT,
            "stages": stages.collect::<Vec<_>>(),
            "complaints": self.complaints(),
        })
    }

    fn table(&self) -> String {
        let mut lines = vec![line("stage", "a call", "committed", "%")];
        for row in self.rows() {
            let figure = |figure: Option<f64>| figure.map_or("-".into(), |it| format!("{it:.1}"));
            let percent = row.percent().map_or("-".into(), |it| format!("{it:+.1}"));
            let (counted, committed) = (figure(row.counted), figure(row.committed));
            lines.push(line(row.stage, &counted, &committed, &percent));
        }
        lines.push(format!(
            "\ninstructions, compiled by {}",
            self.counted.compiler
        ));
        if !self.same_compiler() {
            lines.push(format!(
                "the committed figures are of {}: differences are shown and fail nothing",
                self.committed.compiler
            ));
        }
        lines.join("\n") + "\n"
    }

    /// Figures of another compiler say nothing about the source.
    fn judge(&self) -> Result<()> {
        let complaints = self.complaints();
        if complaints.is_empty() || !self.same_compiler() {
            return Ok(());
        }
        bail!(
            "instructions are not as committed in {COMMITTED} (at most {ABOVE_MAX_PERCENT} % \
             above):\n  {}\nto accept: cargo xtask bench --instructions --accept",
            complaints.join("\n  ")
        )
    }
}

fn line(stage: &str, counted: &str, committed: &str, percent: &str) -> String {
    format!("{stage:<52} {counted:>9} {committed:>9} {percent:>7}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figures(compiler: &str, stages: &[(&str, f64)]) -> Figures {
        let stages = stages.iter().map(|(name, it)| ((*name).to_owned(), *it));
        Figures {
            compiler: compiler.to_owned(),
            stages: stages.collect(),
        }
    }

    fn compared(counted: Figures) -> Comparison {
        let committed = figures("rustc 1", &[("parse/a", 100.0), ("parse/b", 50.0)]);
        Comparison { committed, counted }
    }

    #[test]
    fn callgrind_is_understood_and_a_call_is_the_difference() {
        let said = "version: 1\nevents: Ir\nfn=(1) main\n1 7\n\ntotals: 3363392\n";
        assert_eq!(total(said), Some(3_363_392));
        assert_eq!(total("events: Ir\n"), None);
        let call = per_call(2_373_392, 3_363_392).unwrap();
        assert_eq!(format!("{call}"), "99");
        assert!(per_call(2, 1).is_err());
    }

    #[test]
    fn a_stage_that_executes_more_fails_and_is_named() {
        let within = compared(figures("rustc 1", &[("parse/a", 101.9), ("parse/b", 9.0)]));
        within.judge().unwrap();
        let above = compared(figures("rustc 1", &[("parse/a", 102.1), ("parse/b", 9.0)]));
        let said = above.judge().unwrap_err().to_string();
        assert!(
            said.contains("parse/a: +2.1 %") && !said.contains("parse/b"),
            "{said}"
        );
        assert!(said.contains("--accept"), "{said}");
    }

    #[test]
    fn a_stage_without_its_counterpart_fails() {
        let other = compared(figures("rustc 1", &[("parse/a", 100.0), ("parse/c", 1.0)]));
        let said = other.judge().unwrap_err().to_string();
        assert!(said.contains("parse/c: not committed"), "{said}");
        assert!(
            said.contains("parse/b: committed, and there is no"),
            "{said}"
        );
    }

    #[test]
    fn figures_of_another_compiler_are_shown_and_fail_nothing() {
        let other = compared(figures("rustc 2", &[("parse/a", 200.0), ("parse/b", 50.0)]));
        other.judge().unwrap();
        let table = other.table();
        assert!(
            table.contains("+100.0") && table.contains("are of rustc 1"),
            "{table}"
        );
        assert_eq!(other.to_json()["compared"], false);
    }

    #[test]
    fn figures_survive_their_file() {
        let figures = figures("rustc 1", &[("parse/a", 99.5)]);
        let read = Figures::from_json(&figures.to_json().to_string()).unwrap();
        assert_eq!(read.compiler, "rustc 1");
        assert_eq!(read.stages, [(String::from("parse/a"), 99.5)]);
        assert!(Figures::from_json("{\"compiler\": \"x\"}").is_err());
    }
}
