//! The XDP program, by the kernel's test runs.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::field::{Field, programs};
use super::growing::Growing;
use super::{NO_BUCKETS, Row};
use crate::process;

/// The golden packet that P3 is about.
const HIT: &str = "a hit over IPv4";
const BARE: &str = "bare parse, lookup and redirect";
const ALLOWED: &str = "1.3 × bare parse, lookup and redirect + 150 ns";
const SAME_KEY: &str = "the same key each time";

/// The same packet each time.
pub(super) fn hot(row: &'static Row, field: &Field<'_>, _: Option<&str>) -> Result<Value> {
    let mut row = Growing::of(row, "ns", "lower");
    row.mark("the mark of 220 ns", 220.0);
    row.notes.push(NO_BUCKETS.into());
    for pair in 1..=field.plan.pairs {
        let mut verdicts = field.edge_bench(&field.ground.edge);
        let text = process::output(verdicts.arg("verdicts"))?;
        let figures: Value = serde_json::from_str(&text)?;
        let value = figures[HIT].as_f64().context("no figure of a hit came")?;
        eprintln!("   P3 pair {pair}: {figures}");
        row.figure("edge", pair, value);
        row.mode = figures;
    }
    Ok(row.finish())
}

/// Another chunk and source each time.
pub(super) fn cold(row: &'static Row, field: &Field<'_>, resident: u32) -> Result<Value> {
    let mut row = Growing::of(row, "ns", "lower");
    row.target(ALLOWED, 1.0, None);
    row.notes.push(NO_BUCKETS.into());
    let mut cold = field.edge_bench(&field.ground.edge);
    cold.args(["cold", "--resident", &resident.to_string()]);
    cold.args(["--pairs", &field.plan.pairs.to_string(), "--programs"]);
    let text = process::output(cold.arg(programs()))?;
    let figures: Value = serde_json::from_str(&text)?;
    eprintln!("   {}: {figures}", row.row.id);
    for pair in 1..=field.plan.pairs {
        let figure = |name: &str| {
            let figure = figures[name][pair as usize - 1].as_f64();
            figure.with_context(|| format!("no {name} of pair {pair} came"))
        };
        let bare = figure("bare_ns")?;
        for (side, value) in [
            ("edge", figure("edge_ns")?),
            (ALLOWED, 1.3 * bare + 150.0),
            (BARE, bare),
            (SAME_KEY, figure("same_key_ns")?),
        ] {
            row.figure(side, pair, value);
        }
    }
    row.mode = figures;
    Ok(row.finish())
}
