//! Constraints on runs and reports beyond the types of their fields.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::RangeInclusive;

use super::model::{Cpu, Document, EDGE, Measured, Run, SCHEMA};

/// Far beyond what can be measured; results computed from these stay finite.
const FIGURES: RangeInclusive<f64> = 1e-9..=1e18;
/// Likewise of latencies in one run.
const SAMPLES_MAX: u64 = 1 << 40;

/// A field with an invalid value.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub struct Fault {
    row: Option<String>,
    field: String,
    problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(row) = &self.row {
            write!(to, "row {row}: ")?;
        }
        write!(to, "{}: {}", self.field, self.problem)
    }
}

impl Fault {
    pub(super) fn new(field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            row: None,
            field: field.into(),
            problem: problem.into(),
        }
    }

    pub(super) fn in_row(row: &str, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self {
            row: Some(row.to_owned()),
            ..Self::new(field, problem)
        }
    }
}

/// Why a figure is invalid, if it is.
fn beyond(figure: f64) -> Option<String> {
    let [least, most] = [FIGURES.start(), FIGURES.end()];
    (!FIGURES.contains(&figure)).then(|| format!("{figure:?} is not from {least:?} to {most:?}"))
}

/// The same where 0 is allowed, as nothing may have been measured.
fn beyond_and_not_zero(figure: f64) -> Option<String> {
    beyond(figure).filter(|_| figure != 0.0)
}

/// Checks what runs and reports share.
pub(super) fn document<R>(document: &Document<R>, id: impl Fn(&R) -> &String) -> Result<(), Fault> {
    if document.schema != SCHEMA {
        let problem = format!("{} is not {SCHEMA}, the one known here", document.schema);
        return Err(Fault::new("schema", problem));
    }
    if document.commit.is_empty() {
        return Err(Fault::new("commit", "is empty"));
    }
    if let Some(started) = &document.started
        && let Err(error) = humantime::parse_rfc3339(started)
    {
        return Err(Fault::new("started", format!("{started}: {error}")));
    }
    if let Some(problem) = document.seconds_a_side.and_then(beyond) {
        return Err(Fault::new("seconds_a_side", problem));
    }
    let mut seen = BTreeSet::new();
    for (index, id) in document.rows.iter().map(id).enumerate() {
        let field = format!("rows[{index}].id");
        if id.is_empty() {
            return Err(Fault::new(field, "is empty"));
        }
        if !seen.insert(id) {
            return Err(Fault::new(field, format!("{id} is there twice")));
        }
    }
    Ok(())
}

/// A difference of two clocks can be negative by rounding.
fn is_time(cpu: Cpu) -> bool {
    let parts = [cpu.user_seconds, cpu.system_seconds, cpu.softirq_seconds];
    parts.iter().all(|part| part.abs() <= *FIGURES.end())
}

/// Checks a row's runs: valid values in one unit, each side once per pair.
pub(super) fn runs(row: &str, unit: &str, runs: &[Run]) -> Result<(), Fault> {
    let mut seen = BTreeSet::new();
    for (index, run) in runs.iter().enumerate() {
        let fault = |field: &str, problem: String| {
            Err(Fault::in_row(
                row,
                format!("runs[{index}].{field}"),
                problem,
            ))
        };
        if run.side.is_empty() {
            return fault("side", "is empty".into());
        }
        if let Some(problem) = beyond_and_not_zero(run.value) {
            return fault("value", problem);
        }
        if run.unit != unit {
            return fault("unit", format!("{} is not the row's {unit}", run.unit));
        }
        for (field, figure) in [("seconds", run.seconds), ("offered", run.offered)] {
            if let Some(problem) = figure.and_then(beyond) {
                return fault(field, problem);
            }
        }
        if let Some(problem) = run.loss.and_then(beyond_and_not_zero) {
            return fault("loss", problem);
        }
        let sides = run.cpu.iter().flat_map(|cpu| [cpu.server, cpu.client]);
        if !sides.flatten().all(is_time) {
            return fault("cpu", "has more seconds than can have been used".into());
        }
        if run
            .latency
            .as_ref()
            .is_some_and(|latency| latency.len() > SAMPLES_MAX)
        {
            return fault(
                "latency",
                "has more samples than can have been taken".into(),
            );
        }
        if !seen.insert((&run.side, run.pair)) {
            return fault(
                "pair",
                format!("{} ran in pair {} before", run.side, run.pair),
            );
        }
    }
    Ok(())
}

/// Checks a row's targets: each is measured, fixed or absent.
pub(super) fn targets(measured: &Measured) -> Result<(), Fault> {
    let ran = |side: &str| measured.runs.iter().any(|run| run.side == side);
    if !ran(EDGE) && measured.note.is_none() {
        let problem = "is needed: a row without runs of the edge says why";
        return Err(Fault::in_row(&measured.id, "note", problem));
    }
    let mut seen = BTreeSet::new();
    for (index, target) in measured.targets.iter().enumerate() {
        let fault = |field: &str, problem: &str| {
            let field = format!("targets[{index}]{field}");
            Err(Fault::in_row(&measured.id, field, problem))
        };
        if target.name.is_empty() || target.name == EDGE || !seen.insert(&target.name) {
            return fault(".name", "is empty, the edge itself, or there twice");
        }
        if target.absent.is_some() && (ran(&target.name) || target.theirs.is_some()) {
            return fault(".absent", "stands beside figures of that side");
        }
        if target.theirs.is_some() && ran(&target.name) {
            return fault(".theirs", "stands beside runs of that side");
        }
        for (field, figure) in [(".theirs", target.theirs), (".target", target.target)] {
            if let Some(problem) = figure.and_then(beyond) {
                return fault(field, &problem);
            }
        }
        let figures = ran(&target.name) || target.theirs.is_some();
        if ran(EDGE) && !figures && target.absent.is_none() {
            return fault("", "has no runs: give them, or say why in `absent`");
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::latency;
    use super::*;

    #[test]
    fn more_latencies_than_can_be_added_up_are_refused() {
        let mut latency = latency::empty();
        let mut samples = |count| {
            latency.record_n(1, count).expect("it grows");
            let run = Run {
                side: EDGE.into(),
                latency: Some(latency.clone()),
                ..Run::default()
            };
            runs("P1", "", &[run]).map_err(|fault| fault.to_string())
        };
        assert_eq!(samples(SAMPLES_MAX), Ok(()));
        let fault = samples(u64::MAX / 2).expect_err("too many");
        assert!(fault.starts_with("row P1: runs[0].latency: "), "{fault}");
    }
}
