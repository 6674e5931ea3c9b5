//! Static checks. `check` never writes; `fix` does.

/// The files of the project.
mod files;
/// Rust text without comments, strings or tests.
mod rust;
/// Where `unsafe` is allowed, and which modules may depend on which.
mod cycles;
mod layering;
/// Invariants are documented, maintained by code and tested.
mod invariants;
/// Every reason is produced and tested.
mod reasons;
/// Files and messages that the documents name exist.
mod docs;
/// Nothing in the files is specific to one machine or package host.
mod portability;

use std::process::Command;

use anyhow::{Result, bail};
use edge_testbed::process;

use crate::build;
use crate::setup;

/// What is wrong, where, and what to write instead.
struct Fault {
    place: String,
    advice: String,
}

impl Fault {
    fn new(place: impl Into<String>, advice: impl Into<String>) -> Self {
        Self {
            place: place.into(),
            advice: advice.into(),
        }
    }
}

/// Feature sets of `edge-user` that must compile alone: the daemon without code that knows keys,
/// the reader without the server.
const HALVES: [&str; 2] = ["server", "reader"];

pub(crate) fn check() -> Result<()> {
    let mut failures = Vec::new();
    let mut step = |name: &str, result: Result<()>| -> Result<()> {
        if let Err(error) = result {
            if error.is::<edge_testbed::stop::Stop>() {
                return Err(error);
            }
            eprintln!("{error:#}");
            failures.push(name.to_owned());
        }
        Ok(())
    };
    // All steps run, so that one call reports every fault.
    step("source rules", source())?;
    step("format", process::run(cargo_fmt().arg("--check")))?;
    step(
        "clippy",
        process::run(&mut clippy(&["--workspace", "--all-targets"])),
    )?;
    for half in HALVES {
        // Not `--all-targets`: the tests need both.
        let mut command = clippy(&[
            "--package",
            "edge-user",
            "--lib",
            "--bins",
            "--no-default-features",
            "--features",
            half,
        ]);
        step(&format!("clippy, {half} alone"), process::run(&mut command))?;
    }
    step("XDP program", program())?;
    let mut docs = build::workspace_cargo("doc");
    docs.args(["--workspace", "--no-deps"])
        .env("RUSTDOCFLAGS", "-Dwarnings");
    step("docs", process::run(&mut docs))?;
    if failures.is_empty() {
        println!("check: no faults");
        return Ok(());
    }
    bail!("check found faults in: {}", failures.join(", "))
}

pub(crate) fn fix() -> Result<()> {
    process::run(&mut cargo_fmt())
}

/// The project's own rules about source text.
pub(crate) fn source() -> Result<()> {
    let files = files::all()?;
    let mut faults = layering::check(&files);
    faults.extend(cycles::check(&files));
    faults.extend(invariants::check(&files));
    faults.extend(reasons::check(&files));
    faults.extend(docs::check(&files));
    faults.extend(portability::check(&files));
    for fault in &faults {
        eprintln!("{}: {}", fault.place, fault.advice);
    }
    if faults.is_empty() {
        println!("source rules: no faults in {} files", files.len());
        return Ok(());
    }
    bail!("{} faults in the source text, see above", faults.len())
}

fn cargo_fmt() -> Command {
    let mut command = crate::toolchain::host_cargo();
    command
        .current_dir(edge_testbed::paths::root())
        .args(["fmt", "--all"]);
    command
}

fn clippy(what: &[&str]) -> Command {
    let mut command = build::workspace_cargo("clippy");
    command.args(what).args(["--", "-Dwarnings"]);
    command
}

/// Lints the XDP programs with the linter of the compiler that builds them, which must be of the
/// same version. Without it they are compiled with warnings denied.
fn program() -> Result<()> {
    let tools = setup::setup()?;
    let Some(driver) = tools.compiler.clippy_driver() else {
        eprintln!("no clippy-driver for the program's compiler: compiling with warnings denied");
        let mut command = build::program_cargo(&tools, "build");
        command.args(["-Zwarnings", "--config", "build.warnings='deny'"]);
        return process::run(&mut command);
    };
    // Like `cargo clippy`, which would use the linter of its own toolchain.
    let mut command = build::program_cargo(&tools, "check");
    command
        .env("RUSTC_WORKSPACE_WRAPPER", driver)
        .env("CLIPPY_ARGS", "-Dwarnings");
    process::run(&mut command)
}
