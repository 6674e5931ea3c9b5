//! Files and messages that the documents name exist.

use super::Fault;
use super::files::File;
use super::rust;

/// Endings of words that are taken for paths of the project.
const ENDINGS: [&str; 7] = ["/", ".rs", ".md", ".toml", ".json", ".py", ".txt"];
/// Build products are in no list of files.
const BUILT: &str = "target/";
/// The page and its section whose tables quote messages in their first column.
const TROUBLESHOOTING: (&str, &str) = ("docs/OPERATING.md", "## Troubleshooting");

pub(super) fn check(files: &[File]) -> Vec<Fault> {
    let mut faults = Vec::new();
    for file in files.iter().filter(|file| file.is_page()) {
        let missing = spans(&file.text)
            .into_iter()
            .flat_map(str::split_whitespace)
            .filter(|word| is_path(word, files) && !exists(word, files));
        faults.extend(missing.map(|word| {
            let advice = format!("`{word}` is not in this repository: name what replaced it");
            Fault::new(file.path.clone(), advice)
        }));
    }
    faults.extend(unknown_messages(files));
    faults
}

/// What is in backticks, outside code blocks. A missing one affects its paragraph only.
fn spans(text: &str) -> Vec<&str> {
    text.split("```")
        .step_by(2)
        .flat_map(|prose| prose.split("\n\n"))
        .flat_map(|paragraph| paragraph.split('`').skip(1).step_by(2))
        .collect()
}

fn is_path(word: &str, files: &[File]) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_.-/*{},".contains(&byte);
    let Some((top, _)) = word.split_once('/').filter(|(top, _)| !top.is_empty()) else {
        return false;
    };
    let known = ENDINGS.iter().any(|ending| word.ends_with(ending))
        || files.iter().any(|file| file.within(top));
    known && word.bytes().all(plain) && !word.starts_with(BUILT)
}

/// Paths may be shortened from the left.
fn exists(word: &str, files: &[File]) -> bool {
    let (whole, folder) = (
        format!("/{word}"),
        format!("/{}/", word.trim_end_matches('/')),
    );
    files.iter().any(|file| {
        let path = format!("/{}", file.path);
        path.ends_with(&whole) || path.contains(&folder)
    })
}

/// Messages in the table of symptoms that no program prints, with `…` for what varies.
fn unknown_messages(files: &[File]) -> Vec<Fault> {
    let (page, section) = TROUBLESHOOTING;
    let Some(page) = files.iter().find(|file| file.path == page) else {
        return Vec::new();
    };
    let sources = files
        .iter()
        .filter(|file| file.is_rust() && file.within("edge-user/src"));
    let printed: Vec<_> = sources
        .map(|file| joined(&rust::split_tests(&file.text).0))
        .collect();
    let table = page.text.split_once(section).map_or("", |(_, table)| table);
    let symptoms = table.lines().filter_map(|line| line.split('|').nth(1));
    symptoms
        .flat_map(spans)
        .filter(|message| {
            let in_one = |text: &String| message.split('…').all(|part| text.contains(part.trim()));
            !printed.iter().any(in_one)
        })
        .map(|message| {
            let advice = format!("no program prints `{message}`: quote what it prints now");
            Fault::new(page.path.clone(), advice)
        })
        .collect()
}

/// Strings that are continued on the next line, on one line.
fn joined(text: &str) -> String {
    let mut lines = text.split("\\\n");
    let first = lines.next().unwrap_or_default().to_owned();
    lines.fold(first, |joined, line| joined + line.trim_start())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn faults(page: &str) -> Vec<String> {
        let file = |path: &str, text: &str| File {
            path: path.into(),
            text: text.into(),
        };
        let source = "#[error(\"the NIC {0} is \\\n    full; stop\")]\n\
                      #[cfg(test)]\nmod tests { const A: &str = \"only in a test\"; }\n";
        let files = [
            file("edge-user/src/serve/plan.rs", source),
            file("docs/OPERATING.md", page),
        ];
        check(&files)
            .into_iter()
            .map(|fault| fault.advice)
            .collect()
    }

    #[test]
    fn paths_must_exist() {
        let good = "`serve/`, `serve/plan.rs`, `edge-user/src`, `Gb/s`, `/etc/x.toml`, \
                    `target/release/x.rs`\n```\nmade/up.rs\n```\n";
        assert!(faults(good).is_empty(), "{:?}", faults(good));
        for gone in [
            "`serve/hit.rs`",
            "`hit/`",
            "`docs/none`",
            "a\n\n`cat a/b.py`",
        ] {
            assert_eq!(faults(gone).len(), 1, "{gone}");
        }
    }

    #[test]
    fn quoted_messages_must_be_printed() {
        let row = |message: &str| faults(&format!("## Troubleshooting\n\n| `{message}` (78) | |"));
        assert!(row("the NIC … is full; …").is_empty());
        assert_eq!(row("the NIC … is empty").len(), 1);
        assert_eq!(row("only in a test").len(), 1);
    }
}
