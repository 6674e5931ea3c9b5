//! Where each value was set: a line of the file, or an environment variable.

use std::collections::BTreeMap;
use std::env;
use std::num::ParseIntError;
use std::ops::Range;
use std::str::ParseBoolError;

use toml::de::{DeTable, DeValue};
use toml::{Table, Value};

use crate::terminal::one_line;

/// The prefix of variables, followed by section, two underscores and key.
const PREFIX: &str = "SEALEDGE_";

/// One line: the place, the key, the error and the remedy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {message}")]
pub struct ConfigError {
    place: String,
    message: String,
}

impl ConfigError {
    /// `EX_CONFIG`.
    pub const EXIT_CODE: u8 = 78;

    pub(super) fn new(place: &str, message: &str) -> Self {
        // One line, for grep, even if a parser's message has several.
        let lines: Vec<_> = message.lines().map(str::trim).collect();
        Self {
            place: one_line(place),
            message: one_line(&lines.join("; ")),
        }
    }
}

/// The type of a variable's value.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Text,
    Number,
    Switch,
    /// Separated by commas.
    List,
    /// Separated by commas; each value becomes a section.
    Sections,
}

/// All keys, with the types that environment variables lack. A test compares this with the example
/// file.
const KEYS: &[(&str, &str, Kind)] = &[
    ("service", "interfaces", Kind::List),
    ("service", "listen", Kind::List),
    ("service", "segment_bytes", Kind::Number),
    ("service", "max_burst", Kind::Number),
    ("service", "sender", Kind::Text),
    ("xdp", "mode", Kind::Text),
    ("xdp", "bind", Kind::Text),
    ("xdp", "vlans", Kind::List),
    ("xdp", "busy_poll", Kind::Switch),
    ("cookie", "secret_file", Kind::Text),
    ("store", "arena", Kind::Text),
    ("store", "size", Kind::Text),
    ("store", "hugepages", Kind::Text),
    ("origin", "url", Kind::Sections),
    ("admin", "socket", Kind::Text),
    ("admin", "metrics", Kind::Text),
    ("log", "filter", Kind::Text),
    ("log", "format", Kind::Text),
];

/// The line of the file or the variable that set each key.
#[derive(Clone, Debug, Default)]
pub(super) struct Source {
    file: String,
    lines: BTreeMap<String, usize>,
    variables: BTreeMap<String, String>,
    ignored: Vec<String>,
}

/// The variables of this process with our prefix.
pub(super) fn environment() -> Result<Vec<(String, String)>, ConfigError> {
    let mut found = Vec::new();
    for (name, value) in env::vars_os() {
        let Some(name) = name.to_str().filter(|name| name.starts_with(PREFIX)) else {
            continue;
        };
        match value.into_string() {
            Ok(value) => found.push((String::from(name), value)),
            Err(_) => {
                return Err(ConfigError::new(
                    name,
                    "is not UTF-8; set it again or unset it",
                ));
            }
        }
    }
    Ok(found)
}

impl Source {
    /// The file's table overridden by the environment, and where each value was set.
    pub(super) fn read(
        name: &str,
        text: &str,
        environment: &[(String, String)],
    ) -> Result<(Table, Self), ConfigError> {
        let mut source = Self {
            file: String::from(name),
            ..Self::default()
        };
        let syntax = |error: toml::de::Error| {
            let place = match error.span() {
                Some(span) => format!("{name}:{}", line_of(text, &span)),
                None => String::from(name),
            };
            ConfigError::new(&place, &format!("not TOML: {}", error.message()))
        };
        let spans = DeTable::parse(text).map_err(syntax)?;
        source.note_table("", spans.get_ref(), text);
        let mut table: Table = text.parse().map_err(syntax)?;
        for (variable, value) in environment {
            source.overlay(&mut table, variable, value)?;
        }
        Ok((table, source))
    }

    fn note_table(&mut self, path: &str, table: &DeTable<'_>, text: &str) {
        for (key, value) in table {
            let dot = if path.is_empty() { "" } else { "." };
            let child = format!("{path}{dot}{}", key.get_ref());
            self.lines.insert(child.clone(), line_of(text, &key.span()));
            self.note_value(&child, value.get_ref(), text);
        }
    }

    #[expect(clippy::wildcard_enum_match_arm, reason = "all others are leaves")]
    fn note_value(&mut self, path: &str, value: &DeValue<'_>, text: &str) {
        match value {
            DeValue::Table(table) => self.note_table(path, table, text),
            DeValue::Array(array) => {
                for (index, element) in array.iter().enumerate() {
                    let child = format!("{path}[{index}]");
                    self.lines
                        .insert(child.clone(), line_of(text, &element.span()));
                    self.note_value(&child, element.get_ref(), text);
                }
            }
            _ => {}
        }
    }

    fn overlay(
        &mut self,
        table: &mut Table,
        variable: &str,
        text: &str,
    ) -> Result<(), ConfigError> {
        let Some(rest) = variable.strip_prefix(PREFIX) else {
            return Ok(());
        };
        // Names without the double underscore have other uses (the build uses SEALEDGE_COMMIT).
        let Some((section, key)) = rest.split_once("__") else {
            return Ok(());
        };
        let (section, key) = (section.to_ascii_lowercase(), key.to_ascii_lowercase());
        let keys: Vec<_> = KEYS.iter().filter(|known| known.0 == section).collect();
        if keys.is_empty() {
            self.ignored.push(one_line(variable));
            return Ok(());
        }
        let Some((_, _, kind)) = keys.iter().find(|known| known.1 == key) else {
            let names: Vec<_> = keys.iter().map(|known| known.1).collect();
            let message = format!(
                "[{section}] has no key `{key}`; it has {}",
                names.join(", ")
            );
            return Err(ConfigError::new(variable, &message));
        };
        let value = convert(text, *kind).map_err(|message| {
            ConfigError::new(variable, &format!("{section}.{key}: {message}"))
        })?;
        if matches!(kind, Kind::Sections) {
            self.forget(&section);
            self.variables
                .insert(section.clone(), String::from(variable));
            let sections = text_list(text)
                .into_iter()
                .map(|text| Value::Table(Table::from_iter([(key.clone(), Value::String(text))])));
            table.insert(section, Value::Array(sections.collect()));
            return Ok(());
        }
        let path = format!("{section}.{key}");
        self.forget(&path);
        self.variables.insert(path, String::from(variable));
        let entry = table
            .entry(section)
            .or_insert_with(|| Value::Table(Table::new()));
        // If the file has something other than a section here, deserialising reports it.
        if let Value::Table(section) = entry {
            section.insert(key, value);
        }
        Ok(())
    }

    /// Drops the lines of a value that a variable overrides.
    fn forget(&mut self, path: &str) {
        let (dot, bracket) = (format!("{path}."), format!("{path}["));
        self.lines
            .retain(|key, _| !key.starts_with(&dot) && !key.starts_with(&bracket));
    }

    /// An error about a key, with the place that set the key or the nearest one enclosing it.
    pub(super) fn error(&self, key: &str, message: &str) -> ConfigError {
        let place = enclosing(key)
            .find_map(|around| {
                let variable = self.variables.get(around).cloned();
                variable.or_else(|| Some(format!("{}:{}", self.file, self.lines.get(around)?)))
            })
            .unwrap_or_else(|| self.file.clone());
        // The parser's path "." means the whole file.
        if key == "." {
            ConfigError::new(&place, message)
        } else {
            ConfigError::new(&place, &format!("{key}: {message}"))
        }
    }

    pub(super) fn ignored_variables(&self) -> &[String] {
        &self.ignored
    }
}

/// `origin[0].url`, `origin[0]`, `origin`.
fn enclosing(key: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(key), |key| {
        key.rfind(['.', '[']).map(|end| &key[..end])
    })
}

fn line_of(text: &str, span: &Range<usize>) -> usize {
    let start = text.floor_char_boundary(span.start);
    // Counted from one, as in editors.
    text[..start].matches('\n').count() + 1
}

fn convert(text: &str, kind: Kind) -> Result<Value, String> {
    match kind {
        Kind::Text => Ok(Value::String(String::from(text))),
        Kind::Number => text
            .parse()
            .map(Value::Integer)
            .map_err(|error: ParseIntError| format!("\"{text}\" is not a whole number: {error}")),
        Kind::Switch => text
            .parse()
            .map(Value::Boolean)
            .map_err(|error: ParseBoolError| format!("\"{text}\": {error}")),
        Kind::List | Kind::Sections => Ok(Value::Array(
            text_list(text).into_iter().map(Value::String).collect(),
        )),
    }
}

fn text_list(text: &str) -> Vec<String> {
    text.split(',')
        .map(str::trim)
        .filter(|item| !item.is_empty())
        .map(String::from)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::config::Config;

    #[test]
    fn the_example_sets_every_key() {
        let example = include_str!("../../../docs/edged.example.toml");
        let (table, source) = Source::read("example", example, &[]).unwrap();
        let written: BTreeSet<_> = source
            .lines
            .keys()
            .map(|key| key.replace("[0]", ""))
            .filter(|key| key.contains('.') && !key.contains('['))
            .collect();
        let known: BTreeSet<_> = KEYS
            .iter()
            .map(|(section, key, _)| format!("{section}.{key}"))
            .collect();
        assert_eq!(written, known);
        assert_eq!(table.len(), 7);
    }

    #[test]
    fn the_environment_can_set_every_key_of_the_schema() {
        let listed: BTreeSet<_> = KEYS
            .iter()
            .map(|(section, key, _)| format!("{section}.{key}"))
            .collect();
        let mut accepted = BTreeSet::new();
        for (section, ..) in KEYS {
            let header = if *section == "origin" {
                "[[origin]]"
            } else {
                &format!("[{section}]")
            };
            let text = format!("{header}\nunknown = 1");
            let error = toml::from_str::<Config>(&text).unwrap_err().to_string();
            // unknown field `unknown`, expected one of `mode`, `bind`, …
            let (_, fields) = error.split_once("expected").unwrap();
            let names = fields.split('`').skip(1).step_by(2);
            accepted.extend(names.map(|name| format!("{section}.{name}")));
        }
        assert_eq!(accepted, listed);
    }

    #[test]
    fn an_error_names_the_nearest_enclosing_line() {
        let (_, source) = Source::read("f", "\n[a]\nb = [\n 1,\n 2]\n", &[]).unwrap();
        assert_eq!(source.error("a.b[1]", "x").to_string(), "f:5: a.b[1]: x");
        assert_eq!(source.error("a.b[7]", "x").to_string(), "f:3: a.b[7]: x");
        assert_eq!(source.error("a.c", "x").to_string(), "f:2: a.c: x");
        assert_eq!(source.error("z", "x\n  y").to_string(), "f: z: x; y");
    }
}
