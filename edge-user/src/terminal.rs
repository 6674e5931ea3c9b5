//! Foreign text, as it may stand on somebody's terminal or in a log: a config value, the name of
//! a file, what a parser or another program said. Nothing in it moves the cursor, ends the line or
//! reorders what is read.

use std::fmt::Write;

/// The text as part of a line. What would do more than take its place is written as Rust writes it
/// in a literal.
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if acts(char) {
            out.extend(char.escape_default());
        } else {
            out.push(char);
        }
    }
    out
}

/// The same for JSON, which stays the same JSON: there such a character only stands in a string.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if acts(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").expect("a string grows");
            }
        } else {
            out.push(char);
        }
    }
    out
}

/// The text as lines of their own, each ended.
pub fn lines(text: &str) -> String {
    text.lines().map(|line| one_line(line) + "\n").collect()
}

/// Whether a terminal, or whoever shows the text, does something at this character: controls (C0,
/// DEL, C1), the separators of lines and paragraphs, marks that turn the direction of writing, and
/// what takes no room at all and hides what it stands in.
fn acts(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTING: &str = "\u{1b}[31m\r\n\t\u{7f}\u{9b}2J\u{85}\u{2028}\u{2029}\u{202e}\u{2066}\u{200b}\u{feff}\u{e0041}";

    #[test]
    fn what_acts_is_written_out_and_what_is_read_stays() {
        assert_eq!(
            one_line(ACTING),
            "\\u{1b}[31m\\r\\n\\t\\u{7f}\\u{9b}2J\\u{85}\\u{2028}\\u{2029}\\u{202e}\\u{2066}\\u{200b}\
             \\u{feff}\\u{e0041}"
        );
        for plain in ["", "a \"b\" 'c' \\d", "größe 大小 e\u{301} 🦀 […] «»"] {
            assert_eq!(one_line(plain), plain);
        }
    }

    #[test]
    fn nothing_that_is_left_acts() {
        for char in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let shown = one_line(&char.to_string());
            assert!(!shown.chars().any(acts), "{:#x}", u32::from(char));
            assert!(char.is_control() <= (shown.len() > 1));
        }
    }

    #[test]
    fn json_says_the_same_as_before() {
        let before = serde_json::json!({ ACTING: [ACTING, "größe"] });
        let shown = json(&before.to_string());
        assert!(!shown.chars().any(acts));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            before
        );
    }
}
