//! A row while it is measured.

use serde_json::{Value, json};

use super::super::client::Ran;
use super::Row;

pub(super) const BYTES_A_SECOND: &str = "B/s";
pub(super) const ANSWERS_A_SECOND: &str = "answers/s";

/// A row as it grows.
pub(super) struct Growing {
    pub(super) row: &'static Row,
    unit: &'static str,
    better: &'static str,
    pub(super) mode: Value,
    saturated: Option<&'static str>,
    pub(super) notes: Vec<String>,
    targets: Vec<Value>,
    runs: Vec<Value>,
}

impl Growing {
    pub(super) fn of(row: &'static Row, unit: &'static str, better: &'static str) -> Self {
        Self {
            row,
            unit,
            better,
            mode: Value::Null,
            saturated: None,
            notes: Vec::new(),
            targets: Vec::new(),
            runs: Vec::new(),
        }
    }

    pub(super) fn target(&mut self, name: &str, target: f64, absent: Option<&String>) {
        self.targets
            .push(json!({"name": name, "target": target, "absent": absent}));
    }

    /// A fixed figure instead of another side, which the edge is not to exceed.
    pub(super) fn mark(&mut self, name: &str, value: f64) {
        self.targets
            .push(json!({"name": name, "target": 1.0, "theirs": value}));
    }

    /// What was not measured by a generator.
    pub(super) fn figure(&mut self, side: &str, pair: u32, value: f64) {
        self.runs
            .push(json!({"side": side, "pair": pair, "value": value, "unit": self.unit}));
    }

    pub(super) fn push(&mut self, side: &str, pair: u32, ran: &Ran, value: f64) {
        eprintln!(
            "   {} pair {pair}: {side} {value:.4e} {}",
            self.row.id, self.unit
        );
        // At a given rate neither side has to do all it can, and a generator that watches the clock
        // is always busy.
        if side == "edge" && !ran.result["offered"].is_null() {
            self.saturated = Some("neither");
        } else if side == "edge" {
            self.saturated = Some(ran.saturated());
            if ran.saturated() != "server" {
                let note = format!("pair {pair}: {}-bound", ran.saturated());
                self.notes.push(note);
            }
        }
        self.runs.push(ran.run(side, pair, value, self.unit));
    }

    /// A row tells the mode of its own side; the others are in their names.
    pub(super) fn keep_mode(&mut self, side: &str, mode: Value) {
        if side == "edge" {
            self.mode = mode;
        }
    }

    pub(super) fn finish(self) -> Value {
        let note = (!self.notes.is_empty()).then(|| self.notes.join("; "));
        json!({
            "id": self.row.id,
            "name": self.row.name,
            "work": self.row.work,
            "unit": self.unit,
            "better": self.better,
            "mode": self.mode,
            "saturated": self.saturated,
            "note": note,
            "targets": self.targets,
            "runs": self.runs,
        })
    }
}
