//! Fuzzing with libFuzzer, on a stable compiler. The targets are in `edge-user/fuzz/`.
//!
//! An LLVM pass adds the coverage counters; libFuzzer comes with a crate and is compiled by the C++
//! compiler. No sanitizer: the targets contain no `unsafe`.

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

/// Maximum input length: longer ones reach no more code.
const INPUT_BYTES_MAX: u32 = 4096;
/// Limit per input before it counts as a hang.
const INPUT_SECONDS_MAX: u32 = 10;
const MEMORY_MIB_MAX: u32 = 2048;

/// Set for the compiler calls of `compile`, with this program as rustc wrapper.
const BETWEEN: &str = "SEALEDGE_FUZZ_COMPILE";

/// The crates that get coverage counters: our own. Others are those of the release build.
const COUNTED: [&str; 3] = ["edge_ebpf", "edge_user", "fuzz"];

/// Compiler flags that show libFuzzer which code an input reaches. Cargo does not notice changes of
/// these: run `cargo clean --release --package edge-user` then.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cdebug-assertions",
    // Counters dropped with unused code would leave their table behind, unless all is one unit.
    "-Ccodegen-units=1",
];

/// Fuzz parsers, decoders and the reader, and compare with the specifications.
///
/// Targets: `frame` (packet verdicts and answers against a model of docs/WIRE.md), `wire`
/// (datagrams), `ticket`, `transfer` (the reader against a hostile edge, in virtual time),
/// `config`, `origin` (bytes on their way into the store). Inputs are mutated from those kept in
/// edge-user/fuzz/corpus and those earlier runs found (target/fuzz/TARGET/corpus).
///
/// A failing input is written to target/fuzz/TARGET/crash-… (timeout-…, oom-…), and the command to
/// reproduce it is printed. Fix the fault, then copy the input to edge-user/fuzz/corpus/TARGET/
/// under a descriptive name; `cargo xtask test` runs all inputs there.
#[derive(Args)]
pub(crate) struct Fuzz {
    /// Total time, shared by all targets
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    seconds: u64,
    /// Fuzz only this target
    #[arg(long, value_parser = TARGETS)]
    target: Option<String>,
    /// Run the target once with this input instead
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

/// Everything of a target that is not kept.
fn folder(target: &str) -> PathBuf {
    paths::target().join("fuzz").join(target)
}

/// Builds the program with all targets.
fn compile() -> Result<PathBuf> {
    if process::find("c++").is_none() {
        bail!("libFuzzer needs a C++ compiler: apt-get install g++");
    }
    let between = env::current_exe().context("cannot find this program's path")?;
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

/// As rustc wrapper, adds the flags for our own crates and not for build scripts. A flag for all
/// crates would recompile those of others. Returns only if this process is no wrapper.
pub(crate) fn stand_between() -> Result<()> {
    if env::var_os(BETWEEN).is_none() {
        return Ok(());
    }
    let mut words = env::args_os().skip(1);
    let rustc = words.next().context("no compiler in the arguments")?;
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

/// Runs the program for one target.
fn under(program: &Path, target: &str) -> Command {
    let mut command = Command::new(program);
    command
        .env("SEALEDGE_FUZZ_TARGET", target)
        .current_dir(paths::root())
        .arg(format!("-timeout={INPUT_SECONDS_MAX}"))
        .arg(format!("-rss_limit_mb={MEMORY_MIB_MAX}"));
    command
}

/// A target while it is fuzzed.
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

    /// Waits for the end and reports; returns whether no fault was found.
    fn wait(&mut self) -> Result<bool> {
        let status = process::wait(&mut self.child)?;
        let path = log(&self.folder);
        let bytes = fs::read(&path).with_context(|| format!("cannot read {}", path.display()))?;
        let output = String::from_utf8_lossy(&bytes);
        let target = &self.target;
        if status.success() {
            let stat = |name: &str| stat(&output, name).unwrap_or("?");
            println!(
                "{target}: {} inputs, {} per second, {} new",
                stat("number_of_executed_units"),
                stat("average_exec_per_sec"),
                stat("new_units_added"),
            );
            return Ok(true);
        }
        println!("{target}: FAILED ({status})");
        for line in relevant(&output) {
            println!("  {line}");
        }
        if let Some(input) = artifact(&output) {
            println!("  repeat: cargo xtask fuzz --target {target} --input {input}");
        }
        println!("  full output: {}", path.display());
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
fn stat<'a>(output: &'a str, name: &str) -> Option<&'a str> {
    let mut lines = output.lines();
    let value = lines.find_map(|line| line.strip_prefix("stat::")?.strip_prefix(name));
    value
        .and_then(|value| value.strip_prefix(':'))
        .map(str::trim)
}

/// The relevant lines of a failure: the panic, and libFuzzer's name for it.
fn relevant(output: &str) -> impl Iterator<Item = &str> {
    let lines = output.lines();
    let lines = lines.skip_while(|line| !line.contains("panicked at") && !line.contains("ERROR:"));
    lines
        .filter(|line| !line.trim_start().starts_with('#') && !line.trim().is_empty())
        .take(12)
}

fn artifact(output: &str) -> Option<&str> {
    let mut lines = output.lines();
    lines.find_map(|line| {
        line.split_once("Test unit written to ")
            .map(|(_, path)| path)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "#2 INITED\nthread '<unnamed>' panicked at a.rs:1:2:\nno\n\
                        ==7== ERROR: libFuzzer: deadly signal\n    #0 0x1 in f\n\
                        artifact_prefix='/t/'; Test unit written to /t/crash-1\n\
                        stat::average_exec_per_sec:     250\n";

    #[test]
    fn libfuzzer_is_understood() {
        assert_eq!(stat(OUTPUT, "average_exec_per_sec"), Some("250"));
        assert_eq!(stat(OUTPUT, "new_units_added"), None);
        assert_eq!(artifact(OUTPUT), Some("/t/crash-1"));
        let lines: Vec<_> = relevant(OUTPUT).take(3).collect();
        assert!(lines[0].contains("panicked") && lines[1] == "no" && lines[2].contains("deadly"));
    }

    #[test]
    fn every_target_has_a_kept_corpus() {
        for target in TARGETS {
            assert!(paths::root().join(KEPT).join(target).is_dir(), "{target}");
        }
    }
}
