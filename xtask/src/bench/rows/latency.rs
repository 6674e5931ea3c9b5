//! Latency of hits, by an open loop.

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::client::Ran;
use super::super::field::Field;
use super::growing::{ANSWERS_A_SECOND, Growing};
use super::{REFLECTOR, Row, WINDOW};

const XDP_OFF: &str = "the edge with XDP off";

/// At half of what the slower path can do.
pub(super) fn at_half(row: &'static Row, field: &Field<'_>, sender: Option<&str>) -> Result<Value> {
    let sender = sender.unwrap_or("xsk");
    let mut row = Growing::of(row, "ns", "lower");
    for (name, target) in [(XDP_OFF, 0.5), (REFLECTOR, 1.5)] {
        row.target(name, target, None);
    }
    // With XDP off everything leaves by the kernel's stack.
    let (edged, _) = field.warm_edge("gso", "off")?;
    let ran = field.singles(&field.edge(), &["--window", WINDOW], &edged)?;
    edged.stop()?;
    let rate = (ran.rate("answers")? / 2.0).floor().to_string();
    row.notes.push(format!("{rate} requests/s"));
    let open = ["--rate", &rate];
    for pair in 1..=field.plan.pairs {
        let (edged, mode) = field.warm_edge(sender, "native")?;
        row.mode = mode;
        let ran = field.singles(&field.edge(), &open, &edged)?;
        row.push("edge", pair, &ran, p99(&ran)?);
        edged.stop()?;

        let (edged, _) = field.warm_edge("gso", "off")?;
        let ran = field.singles(&field.edge(), &open, &edged)?;
        row.push(XDP_OFF, pair, &ran, p99(&ran)?);
        edged.stop()?;

        let reflector = field.reflector()?;
        let to = field.ceiling_address();
        let ran = field.singles(&to, &["--rate", &rate, "--any"], &reflector)?;
        row.push(REFLECTOR, pair, &ran, p99(&ran)?);
        reflector.stop()?;
    }
    Ok(row.finish())
}

/// At rates up to what the edge can do, and above.
pub(super) fn under_load(
    row: &'static Row,
    field: &Field<'_>,
    sender: Option<&str>,
) -> Result<Value> {
    let sender = sender.unwrap_or("xsk");
    let mut row = Growing::of(row, ANSWERS_A_SECOND, "higher");
    let shares = field.plan.load_shares;
    let mut rates: Vec<String> = Vec::new();
    for round in 0..field.plan.load_rounds {
        // One number for each load and round.
        let pair = |load: usize| -> Result<u32> {
            Ok(1 + round * u32::try_from(shares.len())? + u32::try_from(load)?)
        };
        for (side, sender, xdp) in [("edge", sender, "native"), (XDP_OFF, "gso", "off")] {
            let (edged, mode) = field.warm_edge(sender, xdp)?;
            row.keep_mode(side, mode);
            if rates.is_empty() {
                let ran = field.singles(&field.edge(), &["--window", WINDOW], &edged)?;
                let most = ran.rate("answers")?;
                row.notes.push(format!("closed loop: {most:.0} answers/s"));
                let rate = |share: &f64| (share * most).floor().to_string();
                rates = shares.iter().map(rate).collect();
            }
            for (load, rate) in rates.iter().enumerate() {
                let ran = field.singles(&field.edge(), &["--rate", rate], &edged)?;
                row.push(side, pair(load)?, &ran, ran.rate("answers")?);
            }
            edged.stop()?;
        }
        let reflector = field.reflector()?;
        let to = field.ceiling_address();
        for (load, rate) in rates.iter().enumerate() {
            let ran = field.singles(&to, &["--rate", rate, "--any"], &reflector)?;
            row.push(REFLECTOR, pair(load)?, &ran, ran.rate("answers")?);
        }
        reflector.stop()?;
    }
    Ok(row.finish())
}

fn p99(ran: &Ran) -> Result<f64> {
    ran.result["latency_ns"]["p99"]
        .as_f64()
        .context("the generator gave no latency")
}
