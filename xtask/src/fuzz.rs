//! Fuzzing with libFuzzer, on a stable compiler. What is fuzzed stands in `edge-user/fuzz/`.
//!
//! Coverage counters are a pass of LLVM that the compiler is told to run; libFuzzer itself comes
//! with a crate and is compiled by the C++ compiler. No sanitizer: what is fuzzed has no `unsafe`.

use std::env;
use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use edge_testbed::{paths, process};

use crate::build;

/// The folders in `edge-user/fuzz/corpus`; `edge-user/fuzz/main.rs` has the same list.
const TARGETS: [&str; 6] = ["frame", "wire", "ticket", "transfer", "config", "origin"];

const KEPT: &str = "edge-user/fuzz/corpus";

/// Longest input: past it a target learns nothing new.
const INPUT_BYTES_MAX: u32 = 4096;
/// One input may take this long before it counts as a hang.
const INPUT_SECONDS_MAX: u32 = 10;
const MEMORY_MIB_MAX: u32 = 2048;

/// Set for the compiler calls of `compile`, in which this program stands between cargo and rustc.
const BETWEEN: &str = "SEALEDGE_FUZZ_COMPILE";

/// What gets coverage counters: our own code. Crates of others are those of the release build.
const COUNTED: [&str; 3] = ["edge_ebpf", "edge_user", "fuzz"];

/// What the compiler is told so that libFuzzer sees which code an input reaches. Cargo does not
/// notice when these change: `cargo clean --release --package edge-user` then.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    // Counters that are dropped with unused code leave their table behind, unless all is one.
    "-Ccodegen-units=1",
];

/// Throws mutated inputs at parsers, decoders and the reader, and compares with the documents.
///
/// Targets: `frame` (packet verdicts and answers against a model of docs/WIRE.md), `wire`
/// (datagrams), `ticket`, `transfer` (the reader against a hostile edge, in virtual time),
/// `config`, `origin` (bytes on their way into the store). Inputs are mutated from those kept in
/// edge-user/fuzz/corpus and those earlier runs found (target/fuzz/TARGET/corpus).
///
/// An input that fails is written to target/fuzz/TARGET/crash-… (timeout-…, oom-…) and the command
/// that repeats it is printed. Mend the fault, then keep the input: copy it to
/// edge-user/fuzz/corpus/TARGET/ under a name that says what it is; `cargo xtask test` runs all
/// that are kept.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// How long to fuzz, all targets together
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Only this one
    #[arg(long, value_parser = TARGETS)]
    target: Option<String>,
    /// Does not fuzz, but runs the target once with this file
    #[arg(long, value_name = "FILE", requires = "target")]
    input: Option<PathBuf>,
}

pub(crate) fn fuzz(options: &Fuzz) -> Result<()> {
    let program = compile()?;
    let targets: Vec<&str> = match &options.target {
        Some(target) => vec![target],
        None => TARGETS.to_vec(),
    };
    if let (Some(file), [target]) = (&options.input, targets.as_slice()) {
        let mut command = under(&program, target);
        return process::run(command.arg(file));
    }
    let lanes = std::thread::available_parallelism()
        .map_or(1, usize::from)
        .min(targets.len());
    let rounds = targets.len().div_ceil(lanes);
    let seconds = (options.seconds / rounds as u64).max(1);
    let mut failed = Vec::new();
    for round in targets.chunks(lanes) {
        let mut runs = Vec::new();
        for target in round {
            runs.push(Run::start(&program, target, seconds)?);
        }
        for run in &mut runs {
            if !run.wait()? {
                failed.push(run.target.clone());
            }
        }
    }
    if failed.is_empty() {
        return Ok(());
    }
    bail!("fuzzing found faults in: {}", failed.join(", "))
}

/// Where everything of a target goes that is not kept.
fn folder(target: &str) -> PathBuf {
    paths::target().join("fuzz").join(target)
}

/// Builds the program that has all targets.
fn compile() -> Result<PathBuf> {
    if process::find("c++").is_none() {
        bail!("libFuzzer is compiled by a C++ compiler, and there is none: apt-get install g++");
    }
    let between = env::current_exe().context("this program does not know its own path")?;
    let mut command = build::workspace_cargo("build");
    command
        .args(["--release", "--package", "edge-user", "--example", "fuzz"])
        .args([
            "--features",
            "fuzz",
            "--message-format=json-render-diagnostics",
        ])
        .env(BETWEEN, "1")
        .env("RUSTC_WORKSPACE_WRAPPER", between);
    let messages = process::output(&mut command)?;
    let mut programs = messages.lines().filter_map(|line| {
        let message: serde_json::Value = serde_json::from_str(line).ok()?;
        let is_ours = message["target"]["name"] == "fuzz";
        Some(message["executable"].as_str().filter(|_| is_ours)?.into())
    });
    programs
        .next_back()
        .context("cargo built no program of targets")
}

/// Between cargo and rustc: adds the flags for our own crates, and for nothing that runs while
/// building. A flag for all would have every crate of others compiled once more. Does not return
/// where it is called for that.
pub(crate) fn stand_between() -> Result<()> {
    if env::var_os(BETWEEN).is_none() {
        return Ok(());
    }
    let mut words = env::args_os().skip(1);
    let rustc = words.next().context("cargo names the compiler")?;
    let words: Vec<_> = words.collect();
    let name = words
        .iter()
        .skip_while(|word| *word != "--crate-name")
        .nth(1);
    let counted = name.is_some_and(|name| COUNTED.iter().any(|counted| name == counted));
    let mut command = Command::new(&rustc);
    command.args(words);
    if counted {
        command.args(FLAGS);
    }
    Err(command.exec()).with_context(|| format!("cannot start {}", rustc.display()))
}

/// A call of the program for one target.
fn under(program: &Path, target: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("SEALEDGE_FUZZ_TARGET", target)
        .current_dir(paths::root())
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
    command
}

/// One target, being fuzzed.
struct Run {
    target: String,
    folder: PathBuf,
    child: Child,
}

impl Run {
    fn start(program: &Path, target: &str, seconds: u64) -> Result<Self> {
        let folder = folder(target);
        let found = folder.join("corpus");
        fs::create_dir_all(&found).with_context(|| format!("cannot make {}", found.display()))?;
        let log = File::create(log(&folder)).context("cannot write the log")?;
        let mut command = under(program, target);
        command
            .arg(format!("-max_total_time={seconds}"))
            .arg(format!("-max_len={INPUT_BYTES_MAX}"))
            .arg(format!("-artifact_prefix={}/", folder.display()))
            .args(["-print_final_stats=1", "-use_value_profile=1"])
            // New inputs are written to the first folder.
            .arg(&found)
            .arg(paths::root().join(KEPT).join(target))
            .stderr(log);
        let words = paths::root().join(format!("edge-user/fuzz/{target}.dict"));
        if words.is_file() {
            command.arg(format!("-dict={}", words.display()));
        }
        let child = process::spawn(&mut command)?;
        Ok(Self {
            target: target.to_owned(),
            folder,
            child,
        })
    }

    /// Waits for the end, and tells it; whether all was good.
    fn wait(&mut self) -> Result<bool> {
        let status = process::wait(&mut self.child)?;
        let path = log(&self.folder);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let said = String::from_utf8_lossy(&bytes);
        let target = &self.target;
        if status.success() {
            let stat = |name: &str| stat(&said, name).unwrap_or("?");
            println!(
                "{target}: {} inputs, {} a second, {} new ones found",
                stat("number_of_executed_units"),
                stat("average_exec_per_sec"),
                stat("new_units_added"),
            );
            return Ok(true);
        }
        println!("{target}: FAILED ({status})");
        for line in telling(&said) {
            println!("  {line}");
        }
        if let Some(input) = artifact(&said) {
            println!("  repeat: cargo xtask fuzz --target {target} --input {input}");
        }
        println!("  all it said: {}", path.display());
        Ok(false)
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if matches!(self.child.try_wait(), Ok(None)) {
            process::end(&mut self.child);
        }
    }
}

fn log(folder: &Path) -> PathBuf {
    folder.join("log")
}

/// A line `stat::name: value`.
fn stat<'a>(said: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = said.lines();
    let value = lines.find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
    value
        .and_then(|value| value.strip_prefix(':'))
        .map(str::trim)
}

/// What a person wants to read of a failure: the panic, and what libFuzzer calls it.
fn telling(said: &str) -> impl Iterator<Item = &str> {
    let lines = said.lines();
    let lines = lines.skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR:"));
    lines
        .filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty())
        .take(12)
}

fn artifact(said: &str) -> Option<&str> {
    let mut lines = said.lines();
    lines.find_map(|line| {
        line.split_once("Test unit written to ")
            .map(|(_, path)| path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "#2 INITED\nthread '<unnamed>' panicked at a.rs:1:2:\nno\n\
                        ==7== ERROR: libFuzzer: deadly signal\n    #0 0x1 in f\n\
                        artifact_prefix='/t/'; Test unit written to /t/crash-1\n\
                        stat::average_exec_per_sec:     250\n";

    #[test]
    fn libfuzzer_is_understood() {
        assert_eq!(stat(SAID, "average_exec_per_sec"), Some("250"));
        assert_eq!(stat(SAID, "new_units_added"), None);
        assert_eq!(artifact(SAID), Some("/t/crash-1"));
        let told: Vec<_> = telling(SAID).take(3).collect();
        assert!(told[0].contains("panicked") && told[1] == "no" && told[2].contains("deadly"));
    }

    #[test]
    fn every_target_has_a_kept_corpus() {
        for target in TARGETS {
            assert!(paths::root().join(KEPT).join(target).is_dir(), "{target}");
        }
    }
}
