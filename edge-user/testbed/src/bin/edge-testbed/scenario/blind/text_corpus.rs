//! A text file made of many others: published content is not all compressed or machine code.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use edge_testbed::paths;

/// Approximate total size.
const BYTES: usize = 4 << 20;
/// Larger files are skipped, so that many contribute.
const LARGEST: u64 = 200 << 10;
const ENDINGS: &[&str] = &["rs", "md", "html", "txt", "py", "toml"];

/// Concatenates texts that every build host has: Rust's documentation and library sources, where
/// installed, and this project's own.
pub(super) fn write(file: &Path) -> Result<()> {
    let mut text = Vec::new();
    let sysroot = paths::host_sysroot()?;
    for folder in ["share/doc", "lib/rustlib"] {
        gather(&sysroot.join(folder), &mut text);
    }
    for folder in ["edge-user", "edge-ebpf", "xtask", "docs"] {
        gather(&paths::root().join(folder), &mut text);
    }
    let mut file =
        File::create(file).with_context(|| format!("cannot write {}", file.display()))?;
    Ok(file.write_all(&text)?)
}

/// In order of their names, so that every run uses the same.
fn gather(folder: &Path, text: &mut Vec<u8>) {
    let Ok(entries) = fs::read_dir(folder) else {
        return;
    };
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .collect();
    paths.sort();
    for path in paths {
        if text.len() >= BYTES {
            return;
        }
        let Ok(meta) = path.symlink_metadata() else {
            continue;
        };
        if meta.is_dir() {
            gather(&path, text);
        } else if meta.is_file() && meta.len() <= LARGEST && is_text(&path) {
            text.extend(fs::read(&path).unwrap_or_default());
        }
    }
}

fn is_text(path: &Path) -> bool {
    path.extension()
        .and_then(OsStr::to_str)
        .is_some_and(|ending| ENDINGS.contains(&ending))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sources_beside_this_one_are_text() {
        let mut text = Vec::new();
        gather(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
            &mut text,
        );
        assert!(text.len() > 10_000);
        assert!(!is_text(Path::new("a/librustc_driver.so")));
    }
}
