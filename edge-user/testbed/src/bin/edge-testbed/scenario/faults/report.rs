//! What came of each fault, and the two ways to tell it.

use std::fmt::Write as _;

use serde_json::{Value, json};

use crate::stage::Outcome;

/// One fault, as it was played.
pub(super) struct Row {
    pub(super) fault: &'static str,
    pub(super) done: &'static str,
    pub(super) expected: &'static str,
    pub(super) seen: String,
    /// From the end of the fault until a cold object came whole; nothing if none did.
    pub(super) seconds: Option<f64>,
    pub(super) ok: bool,
}

#[derive(Default)]
pub(super) struct Report {
    pub(super) mode: Value,
    pub(super) rows: Vec<Row>,
    /// Objects that came back whole in the background.
    pub(super) fetches: u64,
    /// Readers in the background that gave up with a sentence that was expected.
    pub(super) excused: usize,
    /// What was not as it should be when the edge had been asked to stop.
    pub(super) wrong_at_end: Vec<String>,
}

impl Outcome for Report {
    fn promises(&self) -> Vec<(bool, String)> {
        let rows = self.rows.iter().map(|row| {
            let told = match row.seconds {
                Some(seconds) if row.ok => format!("good again after {}", in_seconds(seconds)),
                Some(_) | None => row.seen.clone(),
            };
            (row.ok, format!("{:<18} {told}", row.fault))
        });
        let end = if self.wrong_at_end.is_empty() {
            "in the end: no frame is missing, the edge stops with exit code 0, nothing is left behind"
                .to_owned()
        } else {
            self.wrong_at_end.join("; ")
        };
        rows.chain([(self.wrong_at_end.is_empty(), end)]).collect()
    }

    fn to_json(&self) -> Value {
        let row = |row: &Row| {
            json!({
                "fault": row.fault,
                "done": row.done,
                "expected": row.expected,
                "seen": row.seen,
                "seconds": row.seconds,
                "ok": row.ok,
            })
        };
        json!({
            "ok": self.ok(),
            "mode": self.mode,
            "fetches": self.fetches,
            "gave_up": self.excused,
            "wrong_at_end": self.wrong_at_end,
            "rows": self.rows.iter().map(row).collect::<Vec<_>>(),
        })
    }

    fn story(&self) -> String {
        let mut story = String::new();
        let mut line = |text: String| writeln!(story, "{text}").expect("a String grows");
        let count = self.rows.len();
        line(format!(
            "{count} faults, each at an edge at work: sender {}, xdp {}.",
            self.mode["sender"].as_str().unwrap_or("?"),
            self.mode["xdp"].as_str().unwrap_or("?"),
        ));
        line(format!(
            "Meanwhile readers in the background fetched {} objects whole; {} gave up, each with a \
             sentence that says why.",
            self.fetches, self.excused
        ));
        for row in &self.rows {
            line(format!("\n{}", row.fault));
            line(format!("  done      {}", row.done));
            line(format!("  expected  {}", row.expected));
            line(format!("  seen      {}", row.seen));
        }
        line(String::new());
        for (kept, promise) in self.promises() {
            let word = if kept { "ok  " } else { "FAIL" };
            line(format!("  {word}   {promise}"));
        }
        story.trim_end().to_owned()
    }
}

pub(super) fn in_seconds(seconds: f64) -> String {
    format!("{seconds:.1} s")
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
            seconds: Some(0.25),
            ok,
        };
        Report {
            rows: vec![row],
            wrong_at_end: wrong_at_end.iter().map(|word| (*word).to_owned()).collect(),
            ..Report::default()
        }
    }

    #[test]
    fn one_bad_row_or_a_bad_end_is_a_bad_end() {
        assert!(report(true, &[]).ok());
        assert!(!report(false, &[]).ok());
        assert!(!report(true, &["exit code 1"]).ok());
    }

    #[test]
    fn both_ways_tell_each_row() {
        let report = report(false, &[]);
        let json = report.to_json();
        assert_eq!(json["ok"], false);
        assert_eq!(json["rows"][0]["fault"], "killed");
        assert_eq!(json["rows"][0]["seconds"], 0.25);
        let story = report.story();
        assert!(story.contains("FAIL   killed") && story.contains("a restart serves"));
    }
}
