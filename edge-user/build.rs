//! Embeds the XDP program when `cargo xtask build` has left it in the target folder. Without it
//! the crate still builds, and `edged` then starts only with `xdp.mode = "off"`.

use std::env;
use std::fs;
use std::path::PathBuf;

fn main() {
    println!("cargo::rustc-check-cfg=cfg(xdp_program)");
    println!("cargo::rerun-if-env-changed=CARGO_TARGET_DIR");
    println!("cargo::rerun-if-env-changed=SEALEDGE_COMMIT");
    let commit = env::var("SEALEDGE_COMMIT").unwrap_or_else(|_| String::from("unknown"));
    println!("cargo::rustc-env=SEALEDGE_COMMIT={commit}");

    let manifest = PathBuf::from(env::var_os("CARGO_MANIFEST_DIR").expect("set by cargo"));
    let target = env::var_os("CARGO_TARGET_DIR").map_or_else(
        || manifest.join("../target"),
        |dir| manifest.join("..").join(dir),
    );
    // The folder is watched, not the file: cargo takes a watched file that is missing for a
    // change and would build the crate again each time.
    let folder = target.join("xdp");
    fs::create_dir_all(&folder).expect("the target folder can be written");
    println!("cargo::rerun-if-changed={}", folder.display());
    let object = folder.join("edge-xdp");
    if object.is_file() {
        println!("cargo::rustc-cfg=xdp_program");
        println!("cargo::rustc-env=SEALEDGE_XDP_PROGRAM={}", object.display());
    }
}
