//! The result of each fault.

use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::testbed::{Outcome, Promise};

/// The result of one fault.
#[derive(Serialize)]
pub(super) struct Row {
    pub(super) fault: &'static str,
    pub(super) done: &'static str,
    pub(super) expected: &'static str,
    pub(super) seen: String,
    /// From the end of the fault until a cold object was received; none if it was not.
    pub(super) took: Option<Duration>,
    pub(super) ok: bool,
}

#[derive(Default, Serialize)]
pub(super) struct Report {
    pub(super) mode: Value,
    pub(super) rows: Vec<Row>,
    /// Objects received intact in the background.
    pub(super) fetches: u64,
    /// Background readers that failed with an expected message.
    pub(super) gave_up: usize,
    /// What was wrong after the edge was stopped.
    pub(super) wrong_at_end: Vec<String>,
}

impl Outcome for Report {
    fn promises(&self) -> Vec<Promise> {
        let rows = self.rows.iter().map(|row| {
            let result = match row.took {
                Some(took) if row.ok => format!("recovered after {}", in_seconds(took)),
                Some(_) | None => row.seen.clone(),
            };
            (row.ok, format!("{:<18} {result}", row.fault))
        });
        let end = if self.wrong_at_end.is_empty() {
            "at the end: no frame is missing, the edge stops with exit code 0, nothing is left"
                .to_owned()
        } else {
            self.wrong_at_end.join("; ")
        };
        rows.chain([(self.wrong_at_end.is_empty(), end)]).collect()
    }

    fn story(&self) -> String {
        let rows = self.rows.iter().map(|row| {
            let (fault, done, expected, seen) = (row.fault, row.done, row.expected, &row.seen);
            format!("\n{fault}\n  done      {done}\n  expected  {expected}\n  seen      {seen}\n")
        });
        format!(
            "{} faults, each in a busy edge: sender {}, xdp {}.\n\
             Meanwhile background readers received {} objects intact; {} gave up, each with a \
             message.\n{}",
            self.rows.len(),
            self.mode["sender"].as_str().unwrap_or("?"),
            self.mode["xdp"].as_str().unwrap_or("?"),
            self.fetches,
            self.gave_up,
            rows.collect::<String>()
        )
    }
}

pub(super) fn in_seconds(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(ok: bool, wrong_at_end: &[&str]) -> Report {
        let row = Row {
            fault: "killed",
            done: "SIGKILL",
            expected: "a restart serves",
            seen: "it does".to_owned(),
            took: Some(Duration::from_millis(250)),
            ok,
        };
        Report {
            rows: vec![row],
            wrong_at_end: wrong_at_end.iter().map(ToString::to_string).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn a_bad_row_or_a_bad_end_fails_the_report() {
        assert!(report(true, &[]).ok());
        assert!(!report(false, &[]).ok());
        assert!(!report(true, &["exit code 1"]).ok());
    }

    #[test]
    fn json_and_text_have_each_row() {
        let report = report(false, &[]);
        let json = report.to_json();
        assert_eq!(json["ok"], false);
        assert_eq!(json["rows"][0]["fault"], "killed");
        let text = report.to_text();
        assert!(text.contains("WRONG  killed") && text.contains("a restart serves"));
    }
}
