//! The XDP program, by the kernel's test runs.

use anyhow::{Context as _, Result};
use edge_testbed::process;
use serde_json::Value;

use super::super::testbed::{Testbed, programs};
use super::Turn;
use super::growing::Growing;

/// The golden packet of P3.
const HIT: &str = "a hit over IPv4";
const BARE: &str = "bare parse, lookup and redirect";
pub(super) const ALLOWED: &str = "1.3 × bare parse, lookup and redirect + 150 ns";
const SAME_KEY: &str = "the same key each time";

/// The same packet in each run.
pub(super) fn hot(row: &mut Growing, testbed: &Testbed<'_>, turn: Turn<'_>) -> Result<()> {
    let figures = timed(row, testbed, &["verdicts"])?;
    let figures = figures.as_object().context("no figures")?;
    for (name, figure) in figures {
        let side = if name == HIT { "edge" } else { name };
        let value = figure.as_f64().context("a figure is not a number")?;
        row.figure(side, turn.pair, value);
    }
    Ok(())
}

/// Another chunk and source in each run.
pub(super) fn cold(
    row: &mut Growing,
    testbed: &Testbed<'_>,
    turn: Turn<'_>,
    resident: u32,
) -> Result<()> {
    let figures = timed(row, testbed, &["cold", "--resident", &resident.to_string()])?;
    let bare = number(&figures, "bare_ns")?;
    for (side, value) in [
        ("edge", number(&figures, "edge_ns")?),
        (ALLOWED, 1.3 * bare + 150.0),
        (BARE, bare),
        (SAME_KEY, number(&figures, "same_key_ns")?),
    ] {
        row.figure(side, turn.pair, value);
    }
    Ok(())
}

fn timed(row: &Growing, testbed: &Testbed<'_>, what: &[&str]) -> Result<Value> {
    let mut command = testbed.edge_bench(&testbed.bed.edge);
    command.args(what).arg("--programs").arg(programs());
    let text = process::output(&mut command)?;
    eprintln!("   {}: {}", row.row.id, text.trim());
    Ok(serde_json::from_str(&text)?)
}

fn number(figures: &Value, name: &str) -> Result<f64> {
    let number = figures[name].as_f64();
    number.with_context(|| format!("no figure {name}"))
}
