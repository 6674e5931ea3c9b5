//! Where results go.

use std::fs;
use std::io::{ErrorKind, Write as _, stdout};
use std::path::Path;

use anyhow::{Context as _, Result, bail};

/// Refuses to overwrite the input: a typing error must not destroy results.
pub(crate) fn apart(from: &Path, to: &Path) -> Result<()> {
    if let (Ok(from), Ok(real)) = (fs::canonicalize(from), fs::canonicalize(to))
        && from == real
    {
        bail!(
            "{} is the input: name another file for the output",
            to.display()
        );
    }
    Ok(())
}

pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("cannot write {}", path.display()))
}

/// Writes to standard output; a closed pipe is no error.
pub fn print(text: &str) -> Result<()> {
    let mut out = stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(error).context("cannot write to standard output")
        }
        Ok(()) | Err(_) => Ok(()),
    }
}
