//! Where things are: the workspace, its target folder, the cache, the record of changes.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

/// Records of what running commands changed on this machine; gone after a restart, as are the
/// changes.
pub(crate) const RECORDS: &str = "/run/sealedge-xtask";

pub(crate) fn root() -> PathBuf {
    let here = env::var_os("CARGO_MANIFEST_DIR")
        .map_or_else(|| PathBuf::from(env!("CARGO_MANIFEST_DIR")), PathBuf::from);
    here.parent()
        .map_or_else(|| here.clone(), Path::to_path_buf)
}

/// The target folder, by the same rule as `edge-user/build.rs`.
pub(crate) fn target() -> PathBuf {
    env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| root().join("target"), |folder| root().join(folder))
}

/// Where the server's build looks for the XDP program, and `demo` for the client's.
pub(crate) fn xdp() -> PathBuf {
    target().join("xdp")
}

/// A program of the release build.
pub(crate) fn release(program: &str) -> PathBuf {
    target().join("release").join(program)
}

pub(crate) fn cache() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("XDG_CACHE_HOME").filter(|folder| !folder.is_empty()) {
        return Ok(PathBuf::from(folder).join("sealedge"));
    }
    let home = env::home_dir().context("no home folder: set XDG_CACHE_HOME or HOME")?;
    Ok(home.join(".cache/sealedge"))
}
