//! Latency of hits, by an open loop.

use std::process::Command;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::client::Ran;
use super::super::field::Field;
use super::growing::Growing;
use super::{REFLECTOR, Turn, WINDOW};
use crate::place;
use crate::process;

pub(super) const XDP_OFF: &str = "the edge with XDP off";
const OWN_SENDER: &str = "xsk";
/// Sender and XDP of an edge whose answers all leave by the kernel's stack.
const SLOWER_PATH: (&str, &str) = ("gso", "off");

/// At half of what the slower path can do.
pub(super) fn at_half(row: &mut Growing, field: &Field<'_>, turn: Turn<'_>) -> Result<()> {
    if row.rates.is_empty() {
        find_rates(row, field, SLOWER_PATH, &[0.5])?;
    }
    let stalls = stalls(field)?;
    row.notes.push(format!("pair {}: {stalls}", turn.pair));
    at_rates(row, field, turn.sender, turn.pair, |ran| {
        ran.result["latency_ns"]["p99"]
            .as_f64()
            .context("the generator gave no latency")
    })
}

/// At rates up to what the edge can do, and above.
pub(super) fn under_load(row: &mut Growing, field: &Field<'_>, turn: Turn<'_>) -> Result<()> {
    if turn.pair > field.plan.load_rounds {
        return Ok(());
    }
    if row.rates.is_empty() {
        let fastest = (turn.sender.unwrap_or(OWN_SENDER), "native");
        find_rates(row, field, fastest, field.plan.load_shares)?;
    }
    // A number of its own for each load.
    let loads = u32::try_from(row.rates.len())?;
    let first = (turn.pair - 1) * loads + 1;
    at_rates(row, field, turn.sender, first, |ran| ran.rate("answers"))
}

/// These shares of what an edge can do, found once.
fn find_rates(
    row: &mut Growing,
    field: &Field<'_>,
    (sender, xdp): (&str, &str),
    shares: &[f64],
) -> Result<()> {
    let (edged, _) = field.warm_edge(sender, xdp)?;
    let ran = field.singles(&field.edge(), &["--window", WINDOW], &edged)?;
    edged.stop()?;
    let most = ran.rate("answers")?;
    let of = format!("closed loop, sender {sender}, XDP {xdp}: {most:.0} answers/s");
    row.notes.push(of);
    let rate = |share: &f64| (share * most).floor().to_string();
    row.rates = shares.iter().map(rate).collect();
    Ok(())
}

/// The edge, the edge with XDP off, and the reflector, at each of the row's rates.
fn at_rates(
    row: &mut Growing,
    field: &Field<'_>,
    sender: Option<&str>,
    first: u32,
    value: fn(&Ran) -> Result<f64>,
) -> Result<()> {
    let rates = row.rates.clone();
    let own = (sender.unwrap_or(OWN_SENDER), "native");
    for (side, (sender, xdp)) in [("edge", own), (XDP_OFF, SLOWER_PATH)] {
        let (edged, mode) = field.warm_edge(sender, xdp)?;
        row.keep_mode(side, mode);
        for (pair, rate) in (first..).zip(&rates) {
            let ran = field.singles(&field.edge(), &["--rate", rate], &edged)?;
            row.push(side, pair, &ran, value(&ran)?);
        }
        edged.stop()?;
    }
    let reflector = field.reflector()?;
    let to = field.ceiling_address();
    for (pair, rate) in (first..).zip(&rates) {
        let ran = field.singles(&to, &["--rate", rate, "--any"], &reflector)?;
        row.push(REFLECTOR, pair, &ran, value(&ran)?);
    }
    reflector.stop()?;
    Ok(())
}

/// What the machine itself takes, shortly before: no side can be better in a hundredth of the time
/// than its CPU is.
fn stalls(field: &Field<'_>) -> Result<String> {
    let mut stalls = Command::new(place::release("edge-bench"));
    stalls.args([
        "stalls",
        "--cpus",
        &field.cpus.map(|cpu| cpu.to_string()).join(","),
    ]);
    let told: Value = serde_json::from_str(&process::output(&mut stalls)?)?;
    let mut words = Vec::new();
    for cpu in told["cpus"].as_array().context("no CPU was looked at")? {
        let number = |name: &str| {
            cpu[name]
                .as_f64()
                .with_context(|| format!("no {name} came"))
        };
        words.push(format!(
            "CPU {} with nothing to do stood still for {:.2} % of a second, {:.1} ms at most",
            cpu["cpu"],
            number("stalled_seconds")? * 100.0,
            number("longest_seconds")? * 1e3,
        ));
    }
    Ok(words.join(", "))
}
