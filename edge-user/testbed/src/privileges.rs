//! The user's privileges.

use anyhow::Result;

use crate::stop::Stop;

pub fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

/// The command that runs this one as root, with the user's own toolchain.
pub fn as_root() -> String {
    let words: Vec<String> = std::env::args().skip(1).collect();
    format!("sudo -E env PATH=\"$PATH\" cargo xtask {}", words.join(" "))
}

/// Fails with exit code 77 and the command to type if not root.
pub fn need_root(what: &str) -> Result<()> {
    if is_root() {
        Ok(())
    } else {
        Err(Stop::no_rights(what, &as_root()))
    }
}
