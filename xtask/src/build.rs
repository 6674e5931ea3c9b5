//! Builds everything: the XDP programs for the kernel, then the programs that people run.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use edge_testbed::{paths, process};

use crate::setup::{self, Tools};
use crate::toolchain;

/// The edge's program, the bare PASS that the client's end of a veth pair needs, and those to
/// measure with.
pub(crate) const PROGRAMS: [&str; 3] = ["edge-xdp", "edge-pass", "edge-bench-xdp"];

const TARGET: &str = "bpfel-unknown-none";
const PROFILE: &str = "bpf";

pub(crate) fn build() -> Result<()> {
    let tools = setup::tools()?;
    programs(&tools)?;
    release("edge-user")
}

/// A package's programs, as people run them.
pub(crate) fn release(package: &str) -> Result<()> {
    let mut command = workspace_cargo("build");
    command.args(["--release", "--package", package]);
    process::run(&mut command)
}

/// The XDP programs, compiled and put where the server's build and `demo` look for them.
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

/// A cargo call that compiles the XDP programs for the kernel. Its target folder is its own, so
/// that the host's build does not see other flags and start anew each time.
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

/// A cargo call for the host. The commit goes along in each of them: a variable that came and
/// went would make cargo build the server again each time.
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

/// Git, also where the folder belongs to another user, as it often does in CI.
pub(crate) fn git() -> Command {
    let mut git = Command::new("git");
    git.current_dir(paths::root())
        .arg("-c")
        .arg(format!("safe.directory={}", paths::root().display()));
    git
}

/// The server's build watches the folder: touching a file that is the same would cost a build.
fn copy_when_different(from: &Path, to: &Path) -> Result<bool> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(false);
    }
    // Renamed into place, so that a build next door never reads half of it.
    let half = to.with_extension("new");
    fs::write(&half, &new).with_context(|| format!("cannot write {}", half.display()))?;
    fs::rename(&half, to).with_context(|| format!("cannot write {}", to.display()))?;
    Ok(true)
}
