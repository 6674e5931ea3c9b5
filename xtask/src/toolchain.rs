//! Finds a compiler that can build `core` for BPF, and a linker for its output.
//!
//! No toolchain ships `core` for `bpfel-unknown-none`, so its sources must be present. Of two ways
//! the first complete one is taken; nothing is downloaded or installed here.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};
use edge_testbed::{paths, process};

use crate::versions::{BPF_LINKER, BPF_LINKER_LLVMS};

/// The compiler of Debian's packages.
const DEBIAN_RUSTC: &str = "/usr/bin/rustc";

/// Where the compiler comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// A rustup toolchain by name, with the component `rust-src`.
    Nightly(String),
    /// Debian's packages.
    Debian,
}

/// A compiler with the sources of `core`.
#[derive(Clone, Debug)]
pub(crate) struct Compiler {
    pub(crate) way: Way,
    pub(crate) sysroot: PathBuf,
    /// Version of its LLVM.
    pub(crate) llvm: u32,
}

impl Compiler {
    pub(crate) fn describe(&self) -> String {
        let name = match &self.way {
            Way::Nightly(name) => format!("rustup toolchain {name}"),
            Way::Debian => format!("Debian's {DEBIAN_RUSTC}"),
        };
        format!(
            "{name}, LLVM {}, library sources in {}",
            self.llvm,
            self.sysroot.display()
        )
    }

    /// A cargo call that uses this compiler for `-Zbuild-std`.
    pub(crate) fn cargo(&self) -> Command {
        match &self.way {
            Way::Nightly(name) => {
                let mut command = rustup();
                command.args(["run", name, "cargo"]);
                command
            }
            Way::Debian => {
                // RUSTC must be an absolute path, or cargo asks rustup; the variable makes a
                // release compiler accept `-Zbuild-std`.
                let mut command = clean("cargo");
                command
                    .env("RUSTC", DEBIAN_RUSTC)
                    .env("RUSTC_BOOTSTRAP", "1");
                command
            }
        }
    }

    /// The linter of this very compiler, if installed.
    pub(crate) fn clippy_driver(&self) -> Option<PathBuf> {
        Some(self.sysroot.join("bin/clippy-driver")).filter(|path| path.is_file())
    }
}

/// LLVM to link bpf-linker with: its version and its folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Llvm {
    pub(crate) version: u32,
    pub(crate) prefix: PathBuf,
}

/// Variables that would change the compiler or the compilation of the program's build: xtask runs
/// under cargo and rustup, and a child would inherit theirs.
const INHERITED: &[&str] = &[
    "CARGO_BUILD_RUSTC",
    "CARGO_BUILD_RUSTC_WRAPPER",
    "CARGO_BUILD_RUSTFLAGS",
    "CARGO_BUILD_TARGET",
    "CARGO_ENCODED_RUSTFLAGS",
    "LD_LIBRARY_PATH",
    "RUSTC",
    "RUSTC_WORKSPACE_WRAPPER",
    "RUSTC_WRAPPER",
    "RUSTDOC",
    "RUSTFLAGS",
    "RUSTUP_TOOLCHAIN",
];

fn clean(program: &str) -> Command {
    let mut command = Command::new(program);
    for name in INHERITED {
        command.env_remove(name);
    }
    command
}

/// Some versions of rustup download a missing toolchain when asked for it; here they must not.
fn rustup() -> Command {
    let mut command = clean("rustup");
    command.env("RUSTUP_AUTO_INSTALL", "0");
    command
}

/// Every installed compiler that can build `core` for BPF, best first.
pub(crate) fn compilers() -> Vec<Compiler> {
    let mut found: Vec<Compiler> = nightlies().into_iter().filter_map(ask_nightly).collect();
    if Path::new(DEBIAN_RUSTC).exists() {
        found.extend(ask(Way::Debian, || clean(DEBIAN_RUSTC)));
    }
    found
}

/// The first compiler with an LLVM to link with, or a linker linked before.
pub(crate) fn choose() -> Option<(Compiler, Llvm)> {
    let llvms = llvms();
    compilers().into_iter().find_map(|compiler| {
        let llvm = llvms.iter().find(|llvm| llvm.version >= compiler.llvm)?;
        Some((compiler, llvm.clone()))
    })
}

/// LLVM development files that bpf-linker can be built with, oldest first: closest to the
/// compiler's own.
fn llvms() -> Vec<Llvm> {
    BPF_LINKER_LLVMS
        .iter()
        .map(|&version| Llvm {
            version,
            prefix: format!("/usr/lib/llvm-{version}").into(),
        })
        .filter(|llvm| llvm.prefix.join("bin/llvm-config").exists())
        .collect()
}

/// Where `setup` puts bpf-linker: one folder per version, so that an update is never incomplete.
pub(crate) fn linker_root(llvm: &Llvm) -> Result<PathBuf> {
    Ok(paths::cache()?.join(format!("bpf-linker-{BPF_LINKER}-llvm-{}", llvm.version)))
}

/// The linker, if it is built and starts.
pub(crate) fn linker(llvm: &Llvm) -> Result<Option<PathBuf>> {
    let path = linker_root(llvm)?.join("bin/bpf-linker");
    let there = path.is_file() && process::says_yes(Command::new(&path).arg("--version"));
    Ok(there.then_some(path))
}

fn nightlies() -> Vec<String> {
    if process::find("rustup").is_none() {
        return Vec::new();
    }
    let Ok(list) = process::output(rustup().args(["toolchain", "list", "--quiet"])) else {
        return Vec::new();
    };
    list.lines()
        .filter(|name| name.starts_with("nightly"))
        .map(str::to_owned)
        .collect()
}

fn ask_nightly(name: String) -> Option<Compiler> {
    ask(Way::Nightly(name.clone()), || {
        let mut rustc = rustup();
        rustc.args(["run", &name, "rustc"]);
        rustc
    })
}

fn ask(way: Way, rustc: impl Fn() -> Command) -> Option<Compiler> {
    let sysroot = process::output(rustc().args(["--print", "sysroot"])).ok()?;
    let sysroot = PathBuf::from(sysroot.trim_end());
    if !sysroot
        .join("lib/rustlib/src/rust/library/core/Cargo.toml")
        .is_file()
    {
        return None;
    }
    let version = process::output(rustc().arg("-vV")).ok()?;
    Some(Compiler {
        way,
        sysroot,
        llvm: llvm_of(&version)?,
    })
}

fn llvm_of(version: &str) -> Option<u32> {
    let llvm = version
        .lines()
        .find_map(|line| line.strip_prefix("LLVM version: "))?;
    llvm.split('.').next()?.parse().ok()
}

/// Cargo, as it builds this workspace for the host.
pub(crate) fn host_cargo() -> Command {
    Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()))
}

/// The same cargo for something outside this workspace, without the flags and folders for it.
pub(crate) fn host_cargo_elsewhere() -> Command {
    let mut command = host_cargo();
    for name in ["CARGO_ENCODED_RUSTFLAGS", "CARGO_TARGET_DIR", "RUSTFLAGS"] {
        command.env_remove(name);
    }
    command
}

/// The compiler for the host.
fn host_rustc() -> Command {
    Command::new(std::env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()))
}

/// Its version, and its target.
pub(crate) fn host_version() -> Result<String> {
    let answer =
        process::output(host_rustc().arg("-vV")).context("the Rust compiler reports no version")?;
    let mut lines = answer.lines();
    let version = lines.next().unwrap_or_default();
    let host = lines
        .find_map(|line| line.strip_prefix("host: "))
        .context("the Rust compiler reports no host")?;
    Ok(format!("{version}, {host}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_tells_its_llvm() {
        assert_eq!(llvm_of("release: 1.96.0\nLLVM version: 22.1.8\n"), Some(22));
        assert_eq!(llvm_of("release: 1.96.0\n"), None);
    }
}
