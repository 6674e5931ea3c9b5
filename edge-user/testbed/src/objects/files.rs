//! Files to send, and their SHA-256.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use crate::paths;

/// Minimum size of one of the default files, so that many slots and both index levels are used.
const LARGE_BYTES: u64 = 100_000_000;

/// A file and what is known about it.
#[derive(Clone, Debug, Serialize)]
pub struct Object {
    pub name: String,
    pub path: PathBuf,
    pub size: u64,
    pub sha256: String,
}

/// The given files, or three real ones of this host.
pub fn choose(asked: &[PathBuf], folder: &Path) -> Result<Vec<Object>> {
    let paths = if asked.is_empty() {
        defaults(folder)?
    } else {
        asked.to_vec()
    };
    paths.iter().map(|path| describe(path)).collect()
}

/// One large, one of some KB, one empty.
fn defaults(folder: &Path) -> Result<Vec<PathBuf>> {
    let empty = folder.join("empty");
    File::create(&empty).with_context(|| format!("cannot write {}", empty.display()))?;
    Ok(vec![large()?, paths::root().join("Cargo.lock"), empty])
}

/// The library that is the Rust compiler, present on every build host; or the largest file next to
/// it.
fn large() -> Result<PathBuf> {
    let folders = [
        paths::host_sysroot()?.join("lib"),
        "/usr/lib/x86_64-linux-gnu".into(),
    ];
    let largest = folders
        .iter()
        .flat_map(|folder| files_in(folder))
        .max_by_key(|(path, size)| {
            let name = path
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            (
                *size >= LARGE_BYTES,
                name.starts_with("librustc_driver"),
                *size,
            )
        });
    match largest {
        Some((path, size)) if size >= LARGE_BYTES => Ok(path),
        Some(_) | None => {
            bail!("found no file above 100 MB to send: name files on the command line")
        }
    }
}

fn files_in(folder: &Path) -> Vec<(PathBuf, u64)> {
    let Ok(entries) = fs::read_dir(folder) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let meta = entry.metadata().ok()?;
            meta.is_file().then(|| (entry.path(), meta.len()))
        })
        .collect()
}

fn describe(path: &Path) -> Result<Object> {
    let meta = fs::metadata(path).with_context(|| format!("cannot read {}", path.display()))?;
    if !meta.is_file() {
        bail!("{} is not a file", path.display());
    }
    Ok(Object {
        name: path
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        path: std::path::absolute(path)?,
        size: meta.len(),
        sha256: sha256(path)?,
    })
}

/// Read in pieces: an object may be larger than memory.
pub fn sha256(path: &Path) -> Result<String> {
    let mut file = File::open(path).with_context(|| format!("cannot open {}", path.display()))?;
    let mut hash = Sha256::new();
    let mut piece = vec![0; 1 << 16];
    loop {
        let count = file
            .read(&mut piece)
            .with_context(|| format!("reading {}", path.display()))?;
        if count == 0 {
            break;
        }
        hash.update(&piece[..count]);
    }
    let mut text = String::new();
    for byte in hash.finalize() {
        write!(text, "{byte:02x}").expect("a String grows");
    }
    Ok(text)
}

/// Number of files in a folder.
pub fn count(folder: &Path) -> Result<u64> {
    Ok(u64::try_from(under(folder)?.len())?)
}

/// Files in a folder, at any depth.
pub fn under(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let entries = fs::read_dir(folder).with_context(|| format!("reading {}", folder.display()))?;
    for entry in entries {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            files.extend(under(&entry.path())?);
        } else {
            files.push(entry.path());
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_of_nothing_is_the_known_one() {
        let nothing = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(sha256(Path::new("/dev/null")).unwrap(), nothing);
    }
}
