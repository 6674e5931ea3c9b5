//! Who runs us.

use anyhow::Result;

use crate::stop::Stop;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The line that runs this very command as root, with the caller's own toolchain.
pub fn as_root() -> String {
    let words: Vec<String> = std::env::args().skip(1).collect();
    format!("sudo -E env PATH=\"$PATH\" cargo xtask {}", words.join(" "))
}

/// Ends with exit code 77 and the line to type when not root.
pub fn need_root(what: &str) -> Result<()> {
    if is_root() {
        Ok(())
    } else {
        Err(Stop::no_rights(what, &as_root()))
    }
}
