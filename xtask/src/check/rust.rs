//! Rust text reduced to what the compiler sees. Comments and strings become blanks of the same
//! length, so that line numbers stay.

use proc_macro2::{Span, TokenStream, TokenTree};

/// Code without comments, strings and character literals. Text that cannot be tokenised is left to
/// the compiler, and stays as it is.
pub(super) fn code(text: &str) -> String {
    let mut out = blank(text);
    match text.parse() {
        Ok(tokens) => copy(tokens, text, &mut out),
        Err(_) => out = text.into(),
    }
    String::from_utf8_lossy(&out).into_owned()
}

fn copy(tokens: TokenStream, text: &str, out: &mut [u8]) {
    for token in tokens {
        let mut copy_span = |span: Span| {
            let token = &text[span.byte_range()];
            // To the compiler a doc comment is an attribute.
            if !token.starts_with("//") && !token.starts_with("/*") {
                out[span.byte_range()].copy_from_slice(token.as_bytes());
            }
        };
        match token {
            TokenTree::Group(group) => {
                copy_span(group.span_open());
                copy_span(group.span_close());
                copy(group.stream(), text, out);
            }
            TokenTree::Ident(ident) => copy_span(ident.span()),
            TokenTree::Punct(punct) => copy_span(punct.span()),
            TokenTree::Literal(literal) => {
                if literal
                    .to_string()
                    .starts_with(|first: char| first.is_ascii_digit())
                {
                    copy_span(literal.span());
                }
            }
        }
    }
}

/// Splits code into what is always compiled and what only tests compile, each with the other
/// blanked out. Recognises `#[cfg(test)]` before an item with braces.
pub(super) fn split_tests(text: &str) -> (String, String) {
    let code = code(text);
    let mut always = text.as_bytes().to_vec();
    let mut tests = blank(text);
    let mut from = 0;
    while let Some(found) = code[from..].find("#[cfg(test)]") {
        let start = from + found;
        let end = item_end(code.as_bytes(), start);
        for at in start..end {
            tests[at] = text.as_bytes()[at];
            if always[at] != b'\n' {
                always[at] = b' ';
            }
        }
        from = end;
    }
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (text(always), text(tests))
}

/// Byte offsets where a word stands by itself.
pub(super) fn words<'a>(text: &'a str, word: &'a str) -> impl Iterator<Item = usize> + 'a {
    text.match_indices(word)
        .map(|(at, _)| at)
        .filter(move |&at| {
            let bytes = text.as_bytes();
            let before = at == 0 || !is_word(bytes[at - 1]);
            let after = bytes
                .get(at + word.len())
                .is_none_or(|byte| !is_word(*byte));
            before && after
        })
}

/// Whether the code names a module: as a part of a path, or anywhere in a `use`.
pub(super) fn names_module<'a>(code: &'a str, module: &'a str) -> impl Iterator<Item = usize> + 'a {
    words(code, module).filter(move |&at| {
        let before = code[..at].trim_end();
        let after = code[at + module.len()..].trim_start();
        // A `use` extends from its keyword to the semicolon.
        let statement = before.rsplit(';').next().unwrap_or_default();
        let in_use = words(statement, "use").any(|start| {
            let path = &statement[start..];
            !path.contains("}\n") && !path.contains('(') && !path.contains('=')
        });
        after.starts_with("::") || before.ends_with("::") || in_use
    })
}

/// Whether the code names this module of its own crate.
pub(super) fn names_of_crate<'a>(
    code: &'a str,
    module: &'a str,
) -> impl Iterator<Item = usize> + 'a {
    words(code, "crate").filter(move |&at| {
        let Some(path) = code[at..].strip_prefix("crate::") else {
            return false;
        };
        let group = path.strip_prefix('{').and_then(|group| {
            let (group, _) = group.split_once(';')?;
            Some(group)
        });
        match group {
            Some(group) => names_module(&format!("use {group}"), module)
                .next()
                .is_some(),
            None => words(path, module).next() == Some(0),
        }
    })
}

pub(super) fn line_of(text: &str, at: usize) -> usize {
    text[..at].matches('\n').count() + 1
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// From an attribute to the end of the item under it.
fn item_end(code: &[u8], start: usize) -> usize {
    let mut depth = 0_i32;
    for (at, byte) in code.iter().enumerate().skip(start) {
        match byte {
            b'{' => depth += 1,
            b'}' => {
                depth -= 1;
                if depth == 0 {
                    return at + 1;
                }
            }
            b';' if depth == 0 => return at + 1,
            _ => {}
        }
    }
    code.len()
}

fn blank(text: &str) -> Vec<u8> {
    text.bytes()
        .map(|byte| if byte == b'\n' { b'\n' } else { b' ' })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comments_strings_and_characters_are_no_code() {
        let text = "a /* b /* c */ */ \"d \\\" e\" 'f' '\\'' r#\"g\"h\"# 'life x // i\nj";
        let words: Vec<&str> = Box::leak(code(text).into_boxed_str())
            .split_whitespace()
            .collect();
        assert_eq!(words, ["a", "'life", "x", "j"]);
    }

    #[test]
    fn tests_are_split_off() {
        let text = "fn a() {}\n#[cfg(test)]\nmod tests { fn b() { \"}\"; } }\nfn c() {}\n";
        let (always, tests) = split_tests(text);
        assert!(always.contains("fn a") && always.contains("fn c") && !always.contains("fn b"));
        assert!(tests.contains("fn b") && !tests.contains("fn c"));
        assert_eq!(always.lines().count(), text.lines().count());
    }

    #[test]
    fn a_module_is_named_by_paths_and_uses_only() {
        let named = |code: &str| names_module(code, "miss").count();
        assert_eq!(named("use crate::{hit, miss};"), 1);
        assert_eq!(named("use crate::miss::Queue;"), 1);
        assert_eq!(named("fn f() { super::miss::go(); }"), 1);
        assert_eq!(named("use a::b;\nlet miss = 1; dismiss(miss);"), 0);
        assert_eq!(named("pub mod miss;"), 0);
    }

    #[test]
    fn words_stand_alone() {
        assert_eq!(
            words("unsafe_code unsafe x", "unsafe").collect::<Vec<_>>(),
            [12]
        );
    }
}
