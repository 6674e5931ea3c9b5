//! Escapes untrusted text for terminals and logs: config values, file names, messages of parsers and
//! other programs. The result does not move the cursor, end the line or reorder text.

use std::fmt::Write;

/// Text within a line. Control characters are escaped as in Rust literals.
pub fn one_line(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if is_control(char) {
            out.extend(char.escape_default());
        } else {
            out.push(char);
        }
    }
    out
}

/// The same for JSON, as escapes in strings: the value does not change.
pub fn json(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for char in text.chars() {
        if is_control(char) {
            for unit in char.encode_utf16(&mut [0; 2]) {
                write!(out, "\\u{unit:04x}").expect("a string grows");
            }
        } else {
            out.push(char);
        }
    }
    out
}

/// Escapes each line and terminates it.
pub fn lines(text: &str) -> String {
    text.lines().map(|line| one_line(line) + "\n").collect()
}

/// Control characters (C0, DEL, C1), line and paragraph separators, bidirectional formatting, and
/// characters of zero width.
fn is_control(char: char) -> bool {
    char.is_control()
        || matches!(char,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}'
            | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    const CONTROLS: &str = "\u{1b}[31m\r\n\t\u{7f}\u{9b}2J\u{85}\u{2028}\u{2029}\u{202e}\u{2066}\u{200b}\u{feff}\u{e0041}";

    #[test]
    fn control_characters_are_escaped_and_other_text_is_kept() {
        assert_eq!(
            one_line(CONTROLS),
            "\\u{1b}[31m\\r\\n\\t\\u{7f}\\u{9b}2J\\u{85}\\u{2028}\\u{2029}\\u{202e}\\u{2066}\\u{200b}\
             \\u{feff}\\u{e0041}"
        );
        for plain in ["", "a \"b\" 'c' \\d", "größe 大小 e\u{301} 🦀 […] «»"] {
            assert_eq!(one_line(plain), plain);
        }
    }

    #[test]
    fn no_control_character_remains() {
        for char in (0..=u32::from(char::MAX)).filter_map(char::from_u32) {
            let shown = one_line(&char.to_string());
            assert!(!shown.chars().any(is_control), "{:#x}", u32::from(char));
            assert!(char.is_control() <= (shown.len() > 1));
        }
    }

    #[test]
    fn json_keeps_its_value() {
        let before = serde_json::json!({ CONTROLS: [CONTROLS, "größe"] });
        let shown = json(&before.to_string());
        assert!(!shown.chars().any(is_control));
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&shown).unwrap(),
            before
        );
    }
}
