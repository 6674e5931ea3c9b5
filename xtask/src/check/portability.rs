//! Keeps what is specific to one machine, person or package host out of the files.

use super::Fault;
use super::files::File;

const LOCK: &str = "Cargo.lock";
/// The default source of crates in lock files.
const DEFAULT_SOURCE: &str = "registry+https://github.com/rust-lang/crates.io-index";

/// Forbidden strings, in two halves so that this list does not match itself.
const PATHS: [[&str; 2]; 3] = [["/ho", "me/"], ["/Use", "rs/"], ["/ro", "ot/"]];
const HOSTS: [[&str; 2]; 4] = [
    ["[regis", "tries"],
    ["replace", "-with"],
    ["sparse", "+http"],
    ["index.crates", ".io"],
];
const WORDS: [(&[[&str; 2]], &str); 2] = [
    (
        &PATHS,
        "a path of one machine: make it relative to the workspace or $HOME",
    ),
    (
        &HOSTS,
        "the package host is configured on each machine: remove it",
    ),
];

pub(super) fn check(files: &[File]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files {
        for (number, line) in file.text.lines().enumerate() {
            let place = || format!("{}:{}", file.path, number + 1);
            for (words, advice) in WORDS {
                let found = words
                    .iter()
                    .filter(|halves| line.contains(&halves.concat()));
                faults.extend(found.map(|_| Fault::new(place(), advice)));
            }
            let source = line
                .strip_prefix("source = \"")
                .and_then(|rest| rest.strip_suffix('"'));
            if file.path == LOCK && source.is_some_and(|source| source != DEFAULT_SOURCE) {
                let advice = "a crate from another source than the default one: depend on a \
                              released version, or write an ADR and name the source here";
                faults.push(Fault::new(place(), advice));
            }
        }
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(path: &str, text: &str) -> usize {
        check(&[File {
            path: path.into(),
            text: text.into(),
        }])
        .len()
    }

    #[test]
    fn paths_of_one_machine_are_found() {
        let path = ["let a = \"/ho", "me/someone/x\";"].concat();
        assert_eq!(faults("a.rs", &path), 1);
        assert_eq!(faults("a.rs", "let a = \"/run/x\";"), 0);
    }

    #[test]
    fn only_the_default_source_may_be_locked() {
        assert_eq!(faults(LOCK, &format!("source = \"{DEFAULT_SOURCE}\"")), 0);
        assert_eq!(faults(LOCK, "source = \"git+https://example.org/x\""), 1);
    }
}
