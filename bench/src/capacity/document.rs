//! The result as a report.

use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

use serde_json::Value;

use super::sentence::same;
use super::step::Step;
use crate::report::model::{
    Better, Cpu, Document, EDGE, Host, Measured, Run, Runs, SCHEMA, Saturated, Sides,
};

/// Shorter steps are too short for claims.
const CLAIM_SECONDS: f64 = 4.0;
const UNIT: &str = "B/s";

/// The parts of a report.
pub(super) struct Facts<'a> {
    pub(super) host: Host,
    pub(super) started_seconds: u64,
    pub(super) seconds: f64,
    pub(super) work: String,
    /// Facts about the edge, and the limits.
    pub(super) mode: BTreeMap<String, Value>,
    /// The rate found.
    pub(super) rate: Option<f64>,
    pub(super) saturated: Option<Saturated>,
    pub(super) note: String,
    pub(super) steps: &'a [Step],
}

impl Facts<'_> {
    /// Two rows: the rate found, and every step of the search.
    pub(super) fn runs(self) -> Runs {
        let row = |id: &str, name: &str, runs, note| Measured {
            id: id.into(),
            name: name.into(),
            work: self.work.clone(),
            unit: UNIT.into(),
            better: Better::Higher,
            mode: self.mode.clone(),
            saturated: self.saturated,
            note,
            targets: Vec::new(),
            runs,
        };
        let found = self.steps.iter().filter(|step| {
            let rate = self.rate;
            rate.is_some_and(|rate| same(rate, step.rate))
        });
        let rows = vec![
            row(
                "capacity",
                "highest rate within the limits",
                numbered(found.collect()),
                Some(self.note.clone()),
            ),
            row(
                "capacity-search",
                "every step of the search",
                numbered(self.steps.iter().collect()),
                None,
            ),
        ];
        let started = UNIX_EPOCH + Duration::from_secs(self.started_seconds);
        Document {
            schema: SCHEMA,
            host: self.host,
            // An edge does not report its version.
            commit: format!("edge-bench {}", env!("CARGO_PKG_VERSION")),
            started: Some(humantime::format_rfc3339_seconds(started).to_string()),
            quick: self.seconds < CLAIM_SECONDS,
            seconds_a_side: Some(self.seconds),
            sender: None,
            rows,
        }
    }
}

fn numbered(steps: Vec<&Step>) -> Vec<Run> {
    (1..)
        .zip(steps)
        .map(|(pair, step)| run(pair, step))
        .collect()
}

fn run(pair: u32, step: &Step) -> Run {
    let client = Cpu {
        user_seconds: step.cpu.user,
        system_seconds: step.cpu.system,
        softirq_seconds: 0.0,
    };
    Run {
        side: EDGE.into(),
        pair,
        value: step.goodput(),
        unit: UNIT.into(),
        seconds: Some(step.seconds),
        cpu: Some(Sides {
            server: None,
            client: Some(client),
        }),
        bytes: step.bytes,
        offered: Some(step.rate),
        loss: Some(step.tally.loss()),
        latency: Some(step.tally.latencies_ns.0.clone()),
        verified: step.tally.verified,
        wrong: step.tally.wrong,
    }
}
