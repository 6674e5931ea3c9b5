//! Paths: the workspace, its target folder, the cache, the undo log.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;

/// Undo logs of running commands; lost on reboot, as are the changes.
pub const RECORDS: &str = "/run/sealedge-xtask";

/// The workspace: the folder with the lock file, above the current package.
pub fn root() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    let locked = |folder: &&Path| folder.join("Cargo.lock").exists();
    here.ancestors().find(locked).unwrap_or(&here).to_owned()
}

/// The target folder, by the same rule as `edge-user/build.rs`.
pub fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// Where the server's build expects the XDP program, and `demo` the PASS program.
pub fn xdp() -> PathBuf {
    target().join("xdp")
}

/// The programs of the release build, or those under test.
pub fn programs() -> PathBuf {
    env::var_os("SEALEDGE_BIN_DIR").map_or_else(|| target().join("release"), PathBuf::from)
}

pub fn release(program: &str) -> PathBuf {
    programs().join(program)
}

/// Debian's Python, even if another is first in the path: the tests' modules are installed for it.
pub const PYTHON: &str = "/usr/bin/python3";

/// The sysroot of the host's toolchain.
pub fn host_sysroot() -> Result<PathBuf> {
    let mut rustc = Command::new(env::var_os("RUSTC").unwrap_or_else(|| "rustc".into()));
    let answer = process::output(rustc.args(["--print", "sysroot"]))
        .context("the Rust compiler reports no sysroot")?;
    Ok(answer.trim_end().into())
}

pub fn cache() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()) {
        return Ok(PathBuf::from(folder).join("sealedge"));
    }
    let home = env::home_dir().context("no home folder: set XDG_CACHE_HOME or HOME")?;
    Ok(home.join(".cache/sealedge"))
}

/// Before minutes of measuring, checks that this file can be written, and removes an earlier
/// result.
pub fn clear(file: &Path) -> Result<()> {
    fs::write(file, "").with_context(|| format!("cannot write {}", file.display()))?;
    // A link, such as /dev/stdout, or a device is left as it is.
    if fs::symlink_metadata(file).is_ok_and(|found| found.is_file()) {
        // In a foreign folder the file remains, empty.
        let (Ok(()) | Err(_)) = fs::remove_file(file);
    }
    Ok(())
}
