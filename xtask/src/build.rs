//! Builds everything: the XDP programs for the kernel, then the programs for the host.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use edge_testbed::{paths, process};

use crate::setup::{self, Tools};
use crate::toolchain;

/// The edge's program, the PASS program for the reader's end of a veth pair, and those for
/// measurements.
pub(crate) const PROGRAMS: [&str; 3] = ["edge-xdp", "edge-pass", "edge-bench-xdp"];

const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "bpf";

pub(crate) fn build() -> Result<()> {
    let tools = setup::tools()?;
    programs(&tools)?;
    release("edge-user")
}

/// A package's programs, in release mode.
pub(crate) fn release(package: &str) -> Result<()> {
    let mut command = workspace_cargo("build");
    command.args(["--release", "--package", package]);
    process::run(&mut command)
}

/// Compiles the XDP programs and puts them where the server's build and `demo` expect them.
pub(crate) fn programs(tools: &Tools) -> Result<()> {
    let mut command = program_cargo(tools, "build");
    process::run(&mut command)?;
    let built = bpf_target().join(TARGET).join(PROFILE);
    fs::create_dir_all(paths::xdp())?;
    for name in PROGRAMS {
        let changed = copy_when_different(&built.join(name), &paths::xdp().join(name))?;
        let state = if changed { "new" } else { "unchanged" };
        eprintln!("{name} ({state}): {}", paths::xdp().join(name).display());
    }
    Ok(())
}

/// A cargo call that compiles the XDP programs. It has its own target folder, as the host's build
/// has other flags and would start anew each time.
pub(crate) fn program_cargo(tools: &Tools, verb: &str) -> Command {
    let flags = [
        String::from("-Clink-arg=--btf"),
        String::from("-Cdebuginfo=2"),
        format!("--cfg=bpf_target_arch=\"{}\"", std::env::consts::ARCH),
        format!("-Clinker={}", tools.linker.display()),
    ];
    let mut command = tools.compiler.cargo();
    command
        .current_dir(paths::root())
        .env("CARGO_ENCODED_RUSTFLAGS", flags.join("\u{1f}"))
        .env("CARGO_TARGET_DIR", bpf_target())
        .args([
            verb,
            "--locked",
            "--package",
            "edge-ebpf",
            "--features",
            "program",
        ]);
    for name in PROGRAMS {
        command.args(["--bin", name]);
    }
    command.args(["--profile", PROFILE, "--target", TARGET, "-Zbuild-std=core"]);
    command
}

/// A cargo call for the host. Each call sets the commit: a variable that is sometimes missing would
/// make cargo rebuild the server each time.
pub(crate) fn workspace_cargo(verb: &str) -> Command {
    let mut command = toolchain::host_cargo();
    command
        .current_dir(paths::root())
        .env("SEALEDGE_COMMIT", commit())
        .args([verb, "--locked"]);
    command
}

fn bpf_target() -> PathBuf {
    paths::target().join("bpf")
}

pub(crate) fn commit() -> String {
    let mut git = git();
    git.args(["rev-parse", "--short=12", "HEAD"]);
    process::output(&mut git).map_or_else(|_| "unknown".into(), |commit| commit.trim().to_owned())
}

/// Git, also if the folder belongs to another user, as often in CI.
pub(crate) fn git() -> Command {
    let mut git = Command::new("git");
    git.current_dir(paths::root())
        .arg("-c")
        .arg(format!("safe.directory={}", paths::root().display()));
    git
}

/// Copies a file only if it changed: the server's build watches the folder.
fn copy_when_different(from: &Path, to: &Path) -> Result<bool> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    // Renamed into place, so that a concurrent build never reads half of it.
    let half = to.with_extension("new");
    fs::write(&half, &new).with_context(|| format!("cannot write {}", half.display()))?;
    fs::rename(&half, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(true)
}
