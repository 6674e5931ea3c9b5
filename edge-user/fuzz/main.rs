//! Fuzzing: each target takes bytes, gives them to a part of the product, and compares what comes
//! out with what the documents say. The models here are written from `docs/`, apart from the code
//! under test.
//!
//! The same targets run in two ways:
//!
//! - `cargo xtask fuzz` builds this with coverage counters and libFuzzer, which looks for inputs
//!   that reach new code. That needs no nightly compiler: the counters are a pass of LLVM that a
//!   stable compiler can be told to run, and no sanitizer is linked, because the parts that are
//!   fuzzed have no `unsafe`. A C++ compiler builds libFuzzer itself.
//! - `cargo test` gives each target every file of its kept corpus once, so that neither rots.
//!
//! When an input is found, mend the product, and put the input into `corpus/<target>/` under a
//! name that says what it is.
#![cfg_attr(feature = "fuzz", no_main)]

/// What `docs/WIRE.md` makes of a frame.
mod model;
/// Takes an input apart.
mod input;

/// A frame, judged and answered.
mod frame;
/// A datagram, decoded and encoded.
mod wire;
/// A text that may be a ticket.
mod ticket;
/// A reader at the mercy of its edge.
mod transfer;
/// A text that may be a configuration.
mod config;
/// Bytes that may be a chunk.
mod origin;

/// Panics unless the product does with these bytes what the documents say.
type Target = fn(&[u8]);

/// Every target, by the name of its folder in `corpus/`. `xtask/src/fuzz.rs` has the same list.
const TARGETS: &[(&str, Target)] = &[
    ("frame", frame::run),
    ("wire", wire::run),
    ("ticket", ticket::run),
    ("transfer", transfer::run),
    ("config", config::run),
    ("origin", origin::run),
];

/// Under libFuzzer: the target that the environment names.
#[cfg(feature = "fuzz")]
mod under_libfuzzer {
    use std::sync::LazyLock;

    static TARGET: LazyLock<super::Target> = LazyLock::new(|| {
        let name = std::env::var("SEALEDGE_FUZZ_TARGET").unwrap_or_default();
        let found = super::TARGETS.iter().find(|(known, _)| *known == name);
        found.expect("SEALEDGE_FUZZ_TARGET names a target").1
    });

    libfuzzer_sys::fuzz_target!(|data: &[u8]| TARGET(data));
}

/// Without either: `fuzz TARGET FILE…` gives files to a target, for a debugger to watch.
#[cfg(not(any(test, feature = "fuzz")))]
fn main() {
    let mut arguments = std::env::args_os().skip(1);
    let name = arguments.next().unwrap_or_default();
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let (_, target) = found.expect("the first word names a target");
    for path in arguments {
        target(&std::fs::read(path).expect("a file"));
    }
}

/// Under `cargo test`: every kept input once.
#[cfg(test)]
mod kept {
    use std::fs;
    use std::panic::catch_unwind;
    use std::path::Path;

    /// Little enough that nobody minds it in the repository.
    const CORPUS_BYTES_MAX: u64 = 200_000;

    /// Gives a target all that is kept for it; returns how many bytes that was.
    fn replay(name: &str, target: super::Target) -> u64 {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        let entries = fs::read_dir(folder.join(name)).expect("every target has a corpus");
        let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
        paths.sort();
        assert!(paths.len() >= 5, "{name} has only {} inputs", paths.len());
        // No input and a short one reach what a corpus seldom has.
        target(&[]);
        target(&[0]);
        let mut kept_bytes = 0;
        for path in paths {
            let input = fs::read(&path).unwrap();
            kept_bytes += input.len() as u64;
            let run = catch_unwind(|| target(&input));
            assert!(run.is_ok(), "{name} fails on {}", path.display());
        }
        kept_bytes
    }

    #[test]
    fn every_kept_input_does_what_the_documents_say() {
        let kept_bytes: u64 = super::TARGETS
            .iter()
            .map(|(name, target)| replay(name, *target))
            .sum();
        assert!(kept_bytes < CORPUS_BYTES_MAX, "{kept_bytes} bytes are kept");
    }

    #[test]
    fn every_folder_of_the_corpus_has_a_target() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
        for entry in fs::read_dir(folder).unwrap() {
            let name = entry.unwrap().file_name();
            let known = super::TARGETS.iter().any(|(known, _)| *known == name);
            assert!(known, "{} is nobody's corpus", name.display());
        }
    }
}
