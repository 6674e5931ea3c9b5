//! Facts and remarks about a report and its rows, for the table and the page.

use std::collections::BTreeMap;

use serde_json::Value;

use super::figure;
use super::model::{Host, Report, Row, Saturated};

/// Name and value.
pub(super) type Fact = (String, String);

/// About the whole report.
pub(super) fn of_report(report: &Report) -> Vec<Fact> {
    let mut facts = vec![fact("commit", &report.commit)];
    facts.extend(report.started.as_ref().map(|at| fact("started", at)));
    facts.extend(report.sender.map(|sender| fact("sender", sender.name())));
    facts.extend(
        report
            .seconds_a_side
            .map(|seconds| fact("each side ran", &format!("{seconds} s"))),
    );
    facts.extend(of_host(&report.host));
    facts
}

fn of_host(host: &Host) -> Vec<Fact> {
    let mut facts = vec![
        fact("cpu", &format!("{} × {}", host.cpus, host.cpu_model)),
        fact("kernel", &host.kernel),
        fact("driver", &host.driver),
        fact("mtu", &format!("{} bytes", host.mtu_bytes)),
        fact("queues", &host.queues.to_string()),
        fact("offloads", &offloads(&host.offloads)),
    ];
    facts.extend(host.other.iter().map(|(name, value)| named(name, value)));
    facts
}

/// The offloads that are on, and those that are off.
fn offloads(offloads: &BTreeMap<String, bool>) -> String {
    let list = |wanted: bool| {
        let names = offloads.iter().filter(|(_, on)| **on == wanted);
        let names: Vec<&str> = names.map(|(name, _)| name.as_str()).collect();
        if names.is_empty() {
            "none".into()
        } else {
            names.join(", ")
        }
    };
    format!("on: {}; off: {}", list(true), list(false))
}

/// About one row.
pub(super) fn of_mode(row: &Row) -> Vec<Fact> {
    let mode = row.mode.iter();
    mode.map(|(name, value)| named(name, value)).collect()
}

/// Reservations about a row.
pub(super) fn remarks(row: &Row) -> Vec<String> {
    let mut remarks = Vec::new();
    if row.wrong > 0 {
        remarks.push(format!(
            "{} delivered wrong: the row counts as 0",
            chunks(row.wrong)
        ));
    }
    remarks.extend(row.note.clone());
    match row.saturated {
        Some(Saturated::Generator) => {
            remarks.push("the generator was saturated: ours is a lower bound".into());
        }
        Some(Saturated::Server) => remarks.push("the server was saturated".into()),
        Some(Saturated::Neither) => remarks.push("neither side was saturated".into()),
        None => {}
    }
    let loads = row.loads().len();
    if loads > 1 {
        remarks.push(format!(
            "measured at {loads} loads: value and ratios are medians over all"
        ));
    }
    if row.pairs == 1 {
        remarks.push("one pair only: the spread is unknown".into());
    }
    for against in &row.against {
        if against.ratio.is_some() && against.pairs < row.pairs {
            let (name, theirs, ours) = (&against.name, against.pairs, row.pairs);
            remarks.push(format!("{name} ran in {theirs} of {ours} pairs"));
        }
    }
    remarks
}

/// `1 chunk`, `2 chunks`
pub(crate) fn chunks(count: u64) -> String {
    let noun = if count == 1 { "chunk" } else { "chunks" };
    format!("{} {noun}", figure::count(count))
}

fn fact(name: &str, value: &str) -> Fact {
    (name.to_owned(), value.to_owned())
}

/// A name that ends in its unit, as in JSON, is shown with the unit after the value.
fn named(name: &str, value: &Value) -> Fact {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Bool(true) => "yes".into(),
        Value::Bool(false) => "no".into(),
        Value::Number(count) => count
            .as_u64()
            .map_or_else(|| count.to_string(), figure::count),
        Value::Null | Value::Array(_) | Value::Object(_) => value.to_string(),
    };
    match name.strip_suffix("_bytes") {
        Some(bare) => (words(bare), format!("{text} bytes")),
        None => (words(name), text),
    }
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_unit_stands_behind_its_value() {
        let memory = named("memory_bytes", &json!(8_589_934_592_u64));
        assert_eq!(memory, fact("memory", "8,589,934,592 bytes"));
        assert_eq!(named("virtual", &json!(true)), fact("virtual", "yes"));
        assert_eq!(
            named("rps", &json!({"rx-0": "2"})),
            fact("rps", r#"{"rx-0":"2"}"#)
        );
    }
}
