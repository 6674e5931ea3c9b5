//! Installs the tools to build and test with. Idempotent.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use edge_testbed::{paths::PYTHON, privileges, process, stop::Stop};

use crate::toolchain::{self, Compiler, Llvm, Way};
use crate::versions::{
    BPF_LINKER, BPF_LINKER_LLVMS, DEBIAN_COMPILER, DEBIAN_LINKER, DEBIAN_LINTER, DEBIAN_LLVM,
    PYTHON_MODULE, TOOLS,
};

/// The tools for a build of the XDP program.
pub(crate) struct Tools {
    pub(crate) compiler: Compiler,
    pub(crate) linker: PathBuf,
}

/// What is installed.
pub(crate) struct State {
    pub(crate) pair: Option<(Compiler, Llvm)>,
    pub(crate) linker: Option<PathBuf>,
    /// Debian packages to install.
    pub(crate) missing: Vec<&'static str>,
}

/// Finds all tools, including the linter, and installs what is missing without asking.
pub(crate) fn setup() -> Result<Tools> {
    let tools = tools()?;
    let lints = tools.compiler.way != Way::Debian || tools.compiler.clippy_driver().is_some();
    if !lints && let Err(error) = install(&[DEBIAN_LINTER]) {
        eprintln!("continuing without the XDP program's linter: {error:#}");
    }
    Ok(tools)
}

/// Finds the tools for a build and installs those that are missing.
pub(crate) fn tools() -> Result<Tools> {
    let mut state = look()?;
    if !state.missing.is_empty() {
        install(&state.missing)?;
        state = look()?;
    }
    let Some((compiler, llvm)) = state.pair else {
        bail!(
            "no compiler that can build `core` for BPF together with an LLVM for \
             bpf-linker, though the packages {} are installed; `cargo xtask doctor` tells more",
            [DEBIAN_COMPILER, DEBIAN_LINKER].concat().join(" ")
        );
    };
    eprintln!("compiler for the XDP program: {}", compiler.describe());
    let linker = match state.linker {
        Some(linker) => linker,
        None => build_linker(&llvm)?,
    };
    eprintln!(
        "bpf-linker {BPF_LINKER}, LLVM {}: {}",
        llvm.version,
        linker.display()
    );
    Ok(Tools { compiler, linker })
}

/// Installs the tools of a single command when they are first needed: packages, and their programs.
pub(crate) fn programs(wanted: &[(&'static str, &'static str)]) -> Result<()> {
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(_, program)| process::find(program).is_none())
        .map(|(package, _)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    install(&missing)
}

/// Looks without changing anything.
pub(crate) fn look() -> Result<State> {
    let mut missing: Vec<&str> = TOOLS
        .iter()
        .filter(|(_, program, _)| process::find(program).is_none())
        .map(|(package, _, _)| *package)
        .collect();
    if !python_module() {
        missing.push(PYTHON_MODULE.0);
    }
    let pair = toolchain::choose();
    let linker = match &pair {
        Some((_, llvm)) => toolchain::linker(llvm)?,
        None => None,
    };
    if pair.is_none() {
        missing.extend(DEBIAN_COMPILER.iter().filter(|package| !installed(package)));
    }
    if linker.is_none() {
        missing.extend(DEBIAN_LINKER.iter().filter(|package| !installed(package)));
    }
    Ok(State {
        pair,
        linker,
        missing,
    })
}

/// The command that installs packages.
pub(crate) fn apt_line(packages: &[&str]) -> String {
    format!(
        "apt-get install -y --no-install-recommends {}",
        packages.join(" ")
    )
}

/// Whether Python has the modules that the tests need.
pub(crate) fn python_module() -> bool {
    let mut python = Command::new(PYTHON);
    python.args(["-c", &format!("import {}", PYTHON_MODULE.1)]);
    process::output(&mut python).is_ok()
}

fn installed(package: &str) -> bool {
    let mut query = Command::new("dpkg-query");
    query.args(["--show", "--showformat", "${db:Status-Status}", package]);
    process::output(&mut query).is_ok_and(|status| status == "installed")
}

fn install(packages: &[&str]) -> Result<()> {
    eprintln!("missing packages: {}", packages.join(" "));
    if process::find("apt-get").is_none() {
        bail!(
            "this is not Debian: install the equivalent of {}, or a rustup nightly with the \
             component rust-src and LLVM {} to {} with its headers in /usr/lib/llvm-N",
            packages.join(" "),
            BPF_LINKER_LLVMS.first().unwrap_or(&DEBIAN_LLVM),
            BPF_LINKER_LLVMS.last().unwrap_or(&DEBIAN_LLVM),
        );
    }
    if !privileges::is_root() {
        let line = format!("sudo {}", apt_line(packages));
        return Err(Stop::no_rights("installing packages", &line));
    }
    let apt = || {
        let mut command = Command::new("apt-get");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command
    };
    process::run(apt().arg("update"))?;
    let mut command = apt();
    command
        .args(["install", "-y", "--no-install-recommends"])
        .args(packages);
    process::run(&mut command)?;
    eprintln!("installed: {}", packages.join(" "));
    Ok(())
}

fn build_linker(llvm: &Llvm) -> Result<PathBuf> {
    let folder = toolchain::linker_root(llvm)?;
    eprintln!(
        "building bpf-linker {BPF_LINKER}, about a minute, into {}",
        folder.display()
    );
    let mut command = toolchain::host_cargo_elsewhere();
    command
        .env("LLVM_PREFIX", &llvm.prefix)
        .args(["install", "--locked", "--force", "--no-default-features"])
        .args(["--features", &format!("llvm-{}", llvm.version)])
        .arg("--root")
        .arg(&folder)
        .arg(format!("bpf-linker@{BPF_LINKER}"));
    process::run(&mut command)?;
    toolchain::linker(llvm)?.context("bpf-linker was built but does not start")
}
