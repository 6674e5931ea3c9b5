//! Embeds the XDP program when `cargo xtask build` has left it in the target folder, and the
//! commit. Without the program the crate still builds, and `edged` then starts only with
//! `xdp.mode = "off"`.

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

fn main() {
    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let root = manifest.parent().expect("the crate lies in the workspace");
    embed_program(root);
    println!("cargo::rustc-env=SEALEDGE_COMMIT={}", commit(root));
}

fn embed_program(root: &Path) {
    println!("cargo::rustc-check-cfg=cfg(xdp_program)");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    let target = env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    // The folder is watched, not the file: cargo takes a watched file that is missing for a
    // change and would build the crate again each time.
    let folder = root.join(target).join("xdp");
    fs::create_dir_all(&folder).expect("the target folder can be written");
    println!("cargo::rerun-if-changed={}", folder.display());
    let object = folder.join("edge-xdp");
    if object.is_file() {
        println!("cargo::rustc-cfg=xdp_program");
        println!("cargo::rustc-env=SEALEDGE_XDP_PROGRAM={}", object.display());
    }
}

/// The commit that is checked out, or `unknown` outside a checkout.
fn commit(root: &Path) -> String {
    let ask = |words: &[&str]| {
        let mut git = Command::new("git");
        let output = git.arg("rev-parse").args(words).current_dir(root).output();
        let answer = output.ok().filter(|output| output.status.success())?;
        Some(String::from_utf8_lossy(&answer.stdout).trim().to_owned())
    };
    // Every commit and checkout adds a line here, in a linked worktree elsewhere.
    let log = ask(&["--git-path", "logs/HEAD"]).map(|log| root.join(log));
    if let Some(log) = log.filter(|log| log.is_file()) {
        println!("cargo::rerun-if-changed={}", log.display());
    }
    ask(&["--short=12", "HEAD"]).unwrap_or_else(|| "unknown".to_owned())
}
