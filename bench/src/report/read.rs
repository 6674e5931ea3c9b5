//! Reads runs and reports; errors name the row and the field.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use edge_user::terminal::one_line;
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;

use super::assemble::assemble;
use super::check::{self, Fault};
use super::model::{Report, Row, Runs};

/// Why a file cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not there, or not to be read
    #[error("cannot read {}", path.display())]
    File {
        /// Which
        path: PathBuf,
        /// Why
        source: io::Error,
    },
    /// It is not JSON
    #[error("{} is not JSON", path.display())]
    Syntax {
        /// Which
        path: PathBuf,
        /// Where and why
        source: serde_json::Error,
    },
    /// It is JSON, but not this
    #[error("{}: {fault}", path.display())]
    Field {
        /// Which
        path: PathBuf,
        /// Where and why
        fault: Fault,
    },
}

/// Reads an assembled report. Its figures are computed again from its runs.
pub fn report(path: &Path) -> Result<Report, ReadError> {
    let report: Report = typed(&value(path)?).map_err(field(path))?;
    again(report).map_err(field(path))
}

fn again(report: Report) -> Result<Report, Fault> {
    check::document(&report, |row| &row.id)?;
    report.try_map(|row| Row::from_runs(row.into_measured()))
}

/// Assembles a report from runs.
pub(super) fn assembled(path: &Path) -> Result<Report, ReadError> {
    let runs: Runs = typed(&value(path)?).map_err(field(path))?;
    check::document(&runs, |row| &row.id).map_err(field(path))?;
    assemble(runs).map_err(field(path))
}

fn value(path: &Path) -> Result<Value, ReadError> {
    let text = fs::read_to_string(path).map_err(|source| ReadError::File {
        path: path.to_owned(),
        source,
    })?;
    let value = serde_json::from_str(&text).map_err(|source| ReadError::Syntax {
        path: path.to_owned(),
        source,
    })?;
    Ok(harmless(value))
}

/// Messages go to a terminal, and a report is untrusted.
fn harmless(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(one_line(&text)),
        Value::Array(parts) => parts.into_iter().map(harmless).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .map(|(name, value)| (one_line(&name), harmless(value)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

fn field(path: &Path) -> impl Fn(Fault) -> ReadError {
    move |fault| ReadError::Field {
        path: path.to_owned(),
        fault,
    }
}

fn typed<T: DeserializeOwned>(value: &Value) -> Result<T, Fault> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let problem = error.inner().to_string();
        let path = error.path().to_string();
        let mut segments = error.path().iter();
        let row = match (segments.next(), segments.next()) {
            (Some(Segment::Map { key }), Some(Segment::Seq { index })) if key == "rows" => {
                value["rows"][index]["id"].as_str().map(|id| (index, id))
            }
            _ => None,
        };
        let Some((index, id)) = row else {
            return Fault::new(path, problem);
        };
        let prefix = format!("rows[{index}]");
        let inside = path.strip_prefix(&prefix).unwrap_or(&path);
        Fault::in_row(id, inside.trim_start_matches('.'), problem)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report_with(row: Value) -> Value {
        json!({
            "host": {"cpus": 2, "cpu_model": "x", "kernel": "6.18", "driver": "veth",
                "mtu_bytes": 1500, "queues": 1, "offloads": {}, "rps": "off"},
            "commit": "abc",
            "rows": [row],
        })
    }

    fn row() -> Value {
        json!({"id": "P1", "work": "w", "ours": {"value": 1.0, "unit": "Gb/s"}, "against": [],
            "met": null, "saturated": null, "mode": {}, "pairs": 1,
            "runs": [{"side": "edge", "pair": 1, "value": 1.0, "unit": "Gb/s"}]})
    }

    #[test]
    fn a_wrong_type_is_named_by_row_and_field() {
        let mut bad = row();
        bad["runs"] = json!([{"side": "edge", "pair": 1, "value": "x", "unit": "Gb/s"}]);
        let fault = typed::<Report>(&report_with(bad)).expect_err("is refused");
        let text = fault.to_string();
        assert!(
            text.starts_with("row P1: runs[0].value: invalid type"),
            "{text}"
        );

        let mut bad = row();
        bad["runs"] =
            json!([{"side": "edge", "pair": 1, "value": 1, "unit": "Gb/s", "latency": "AA=="}]);
        let fault = typed::<Report>(&report_with(bad)).expect_err("is refused");
        let text = fault.to_string();
        assert!(
            text.starts_with("row P1: runs[0].latency: not an HDR"),
            "{text}"
        );

        let mut bad = report_with(row());
        bad["host"]["queues"] = json!(-1);
        let fault = typed::<Report>(&bad).expect_err("is refused");
        assert!(fault.to_string().starts_with("host.queues: "), "{fault}");
    }

    #[test]
    fn fields_of_later_versions_are_skipped_and_facts_of_the_host_are_kept() {
        let mut later = row();
        later["weather"] = json!("fine");
        let report: Report = typed(&report_with(later)).expect("is read");
        assert_eq!(report.host.other["rps"], json!("off"));
        again(report).expect("is good");
    }

    #[test]
    fn what_a_report_says_of_its_runs_is_not_believed() {
        let mut row = row();
        let mark = json!({"name": "the mark", "theirs": 2.0, "ratio": 3.0, "low": 3.0,
            "high": 3.0, "target": 1.5, "met": true});
        row["against"] = json!([mark]);
        row["met"] = json!(true);
        row["ours"]["value"] = json!(6.0);
        let report: Report = typed(&report_with(row)).expect("is read");
        let report = again(report).expect("is good");
        let row = &report.rows[0];
        assert_eq!((row.ours.value, row.met), (Some(1.0), Some(false)));
        assert_eq!(row.against[0].ratio, Some(0.5));
    }
}
