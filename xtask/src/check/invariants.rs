//! Every invariant that a file names is documented; every documented one is named by the code that
//! maintains it and by a test that would fail without it.

use std::collections::BTreeSet;

use super::Fault;
use super::files::File;
use super::rust;

const BOOK: &str = "docs/INVARIANTS.md";
/// Crates whose code maintains invariants. This one only checks their names.
const CODE: &[&str] = &["edge-ebpf/", "edge-user/", "bench/"];

pub(super) fn check(files: &[File]) -> Vec<Fault> {
    let Some(book) = files.iter().find(|file| file.path == BOOK) else {
        return vec![Fault::new(
            BOOK,
            "is missing: document each invariant there under a heading of its own",
        )];
    };
    let written = defined(&book.text);
    let mut by_code = BTreeSet::new();
    let mut by_tests = BTreeSet::new();
    let mut faults = Vec::new();
    let sources = files
        .iter()
        .filter(|file| file.is_rust() && CODE.iter().any(|place| file.within(place)));
    for file in sources {
        let (always, tests) = if file.is_test() {
            (String::new(), file.text.clone())
        } else {
            rust::split_tests(&file.text)
        };
        for (at, name) in named(&file.text) {
            if !written.contains(&name) {
                let place = format!("{}:{}", file.path, rust::line_of(&file.text, at));
                let advice =
                    format!("{name} is not in {BOOK}: document it there, or correct the number");
                faults.push(Fault::new(place, advice));
            }
        }
        by_code.extend(named(&always).map(|(_, name)| name));
        by_tests.extend(named(&tests).map(|(_, name)| name));
    }
    for name in &written {
        if !by_code.contains(name) {
            let advice = format!("no code names {name}: write `({name})` where it is maintained");
            faults.push(Fault::new(BOOK, advice));
        }
        if !by_tests.contains(name) {
            let advice =
                format!("no test names {name}: write `({name})` in the test that would fail");
            faults.push(Fault::new(BOOK, advice));
        }
    }
    faults
}

/// Invariants at the start of a line of the document, after markup of headings, lists, tables and
/// bold text.
fn defined(book: &str) -> BTreeSet<String> {
    book.lines()
        .filter_map(|line| {
            let line = line.trim_start_matches(['#', '*', '-', '|', '`', '[', ' ']);
            named(line)
                .next()
                .filter(|(at, _)| *at == 0)
                .map(|(_, name)| name)
        })
        .collect()
}

/// `I` and one or two digits, as a word.
fn named(text: &str) -> impl Iterator<Item = (usize, String)> + '_ {
    let bytes = text.as_bytes();
    text.match_indices('I').filter_map(move |(at, _)| {
        let is_word = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        if at > 0 && is_word(&bytes[at - 1]) {
            return None;
        }
        let digits = bytes[at + 1..]
            .iter()
            .take_while(|byte| is_word(byte))
            .count();
        let number = &text[at + 1..at + 1 + digits];
        let good = (1..=2).contains(&digits) && number.bytes().all(|byte| byte.is_ascii_digit());
        good.then(|| (at, format!("I{number}")))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_with(book: &str, code: &str) -> Vec<String> {
        let file = |path: &str, text: &str| File {
            path: path.into(),
            text: text.into(),
        };
        let files = [file(BOOK, book), file("edge-user/src/store.rs", code)];
        check(&files)
            .into_iter()
            .map(|fault| fault.advice)
            .collect()
    }

    #[test]
    fn an_invariant_needs_a_book_entry_code_and_a_test() {
        let code = "// keeps I4\n#[cfg(test)]\nmod tests { // breaks I4\n }";
        assert!(check_with("## I4 resident\n", code).is_empty());
        assert_eq!(check_with("## I4 resident\n\n**I5** hint\n", code).len(), 2);
        assert_eq!(check_with("", code).len(), 2);
    }

    #[test]
    fn names_are_an_i_and_a_number() {
        let found: Vec<String> = named("I1 (I14) I_2 RI3 I999 I6.")
            .map(|(_, name)| name)
            .collect();
        assert_eq!(found, ["I1", "I14", "I6"]);
    }
}
