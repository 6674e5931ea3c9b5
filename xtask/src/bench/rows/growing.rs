//! A row during the measurement.

use serde_json::{Value, json};

use super::super::client::Ran;
use super::super::peers;
use super::{BASELINE, BASELINE_TARGET, Beside, Row};

pub(super) const BYTES_A_SECOND: &str = "B/s";
pub(super) const ANSWERS_A_SECOND: &str = "answers/s";

/// A row that grows pair by pair.
pub(in super::super) struct Growing {
    pub(in super::super) row: &'static Row,
    pub(super) mode: Value,
    saturated: Option<&'static str>,
    pub(super) notes: Vec<String>,
    /// Rates of an open loop, determined once: the same in each pair.
    pub(super) rates: Vec<String>,
    targets: Vec<Value>,
    absent: Vec<&'static str>,
    runs: Vec<Value>,
}

impl Growing {
    /// Compared only with another build, or else with all that the row names; installs missing
    /// peers.
    pub(in super::super) fn of(row: &'static Row, with_baseline: bool) -> Self {
        let mut growing = Self {
            row,
            mode: json!({}),
            saturated: None,
            notes: row.lacks.into_iter().map(Into::into).collect(),
            rates: Vec::new(),
            targets: Vec::new(),
            absent: Vec::new(),
            runs: Vec::new(),
        };
        if with_baseline {
            let target = json!({"name": BASELINE, "target": BASELINE_TARGET});
            growing.targets.push(target);
            return growing;
        }
        for beside in row.beside {
            let target = match *beside {
                Beside::Side(name, target) => json!({"name": name, "target": target}),
                Beside::Peer(name, target, programs) => {
                    let absent = peers::installed(programs).err();
                    growing.absent.extend(absent.is_some().then_some(name));
                    json!({"name": name, "target": target, "absent": absent})
                }
                Beside::Mark(name, mark) => json!({"name": name, "target": 1.0, "theirs": mark}),
            };
            growing.targets.push(target);
        }
        growing
    }

    /// Whether this peer is available.
    pub(super) fn has(&self, peer: &str) -> bool {
        !self.absent.contains(&peer)
    }

    /// Adds a value that was not measured by a generator.
    pub(super) fn figure(&mut self, side: &str, pair: u32, value: f64) {
        let unit = self.row.unit;
        self.runs
            .push(json!({"side": side, "pair": pair, "value": value, "unit": unit}));
    }

    pub(super) fn push(&mut self, side: &str, pair: u32, ran: &Ran, value: f64) {
        let Row { id, unit, .. } = self.row;
        eprintln!("   {id} pair {pair}: {side} {value:.4e} {unit}");
        // At a fixed rate neither side is saturated, though a generator that reads the clock is
        // always busy.
        if side == "edge" && !ran.result["offered"].is_null() {
            self.saturated = Some("neither");
        } else if side == "edge" {
            self.saturated = Some(ran.saturated());
            if ran.saturated() != "server" {
                let note = format!("pair {pair}: {}-bound", ran.saturated());
                self.notes.push(note);
            }
        }
        if let Some(moved) = &ran.moved {
            self.notes.push(format!("pair {pair}, {side}: {moved}"));
        }
        self.runs.push(ran.run(side, pair, value, unit));
    }

    /// A row records the mode of its own side; those of others are in their names.
    pub(super) fn keep_mode(&mut self, side: &str, mode: Value) {
        if side == "edge" {
            self.mode = mode;
        }
    }

    pub(in super::super) fn finish(self) -> Value {
        let note = (!self.notes.is_empty()).then(|| self.notes.join("; "));
        json!({
            "id": self.row.id,
            "name": self.row.name,
            "work": self.row.work,
            "unit": self.row.unit,
            "better": self.row.better,
            "mode": self.mode,
            "saturated": self.saturated,
            "note": note,
            "targets": self.targets,
            "runs": self.runs,
        })
    }
}
