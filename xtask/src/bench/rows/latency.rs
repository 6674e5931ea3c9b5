//! Latency of hits, in an open loop.

use std::process::Command;
use std::rc::Rc;
use std::slice;

use anyhow::{Context as _, Result};
use edge_testbed::{paths, process};
use serde_json::Value;

use super::super::client::Ran;
use super::super::testbed::Testbed;
use super::growing::Growing;
use super::{REFLECTOR, Turn, WINDOW};

pub(super) const XDP_OFF: &str = "the edge with XDP off";
const OWN_SENDER: &str = "xsk";
/// Sender and XDP mode of an edge whose replies all go through the kernel's stack.
const SLOWER_PATH: (&str, &str) = ("gso", "off");

/// One side at one rate.
struct Measured {
    side: &'static str,
    pair: u32,
    ran: Ran,
}

/// The results of a pair at half the maximum of the slower path.
pub(in super::super) struct AtHalf {
    mode: Value,
    stalls: String,
    sides: Vec<Measured>,
}

/// This percentile at half the maximum of the slower path, such as `p99`.
pub(super) fn at_half(
    row: &mut Growing,
    testbed: &Testbed<'_>,
    turn: Turn<'_>,
    percentile: &str,
) -> Result<()> {
    let half = testbed.at_half(turn)?;
    for Measured { side, pair, ran } in &half.sides {
        let value = ran.result["latency_ns"][percentile].as_f64();
        let value = value.with_context(|| format!("the generator's result has no {percentile}"))?;
        row.push(side, *pair, ran, value);
    }
    row.mode = half.mode.clone();
    let stalls = &half.stalls;
    row.notes.push(format!("pair {}: {stalls}", turn.pair));
    Ok(())
}

impl Testbed<'_> {
    /// Measured once per pair, for all percentiles.
    fn at_half(&self, turn: Turn<'_>) -> Result<Rc<AtHalf>> {
        if let Some(half) = self.at_half.borrow().get(&turn.pair) {
            return Ok(Rc::clone(half));
        }
        let rate = if let Some(rate) = self.half_rate.get() {
            rate
        } else {
            let most = self.most(SLOWER_PATH)?;
            self.half_rate.get_or_init(|| share(0.5, most))
        };
        let stalls = stalls(self)?;
        let (mode, sides) = self.at_rates(slice::from_ref(rate), turn.sender, turn.pair)?;
        let half = Rc::new(AtHalf {
            mode,
            stalls,
            sides,
        });
        let mut all = self.at_half.borrow_mut();
        Ok(Rc::clone(all.entry(turn.pair).or_insert(half)))
    }

    /// Maximum replies per second of an edge with this sender and XDP mode.
    fn most(&self, (sender, xdp): (&str, &str)) -> Result<f64> {
        let (edged, _) = self.warm_edge(sender, xdp)?;
        let ran = self.singles(&self.edge(), &["--window", WINDOW], &edged)?;
        edged.stop()?;
        ran.rate("answers")
    }

    /// The edge, the edge with XDP off, and the reflector, at each of the rates; each rate has a
    /// number of its own.
    fn at_rates(
        &self,
        rates: &[String],
        sender: Option<&str>,
        first: u32,
    ) -> Result<(Value, Vec<Measured>)> {
        let mut sides = Vec::new();
        let own = (sender.unwrap_or(OWN_SENDER), "native");
        let mut own_mode = Value::Null;
        for (side, (sender, xdp)) in [("edge", own), (XDP_OFF, SLOWER_PATH)] {
            let (edged, mode) = self.warm_edge(sender, xdp)?;
            if side == "edge" {
                own_mode = mode;
            }
            for (pair, rate) in (first..).zip(rates) {
                let ran = self.singles(&self.edge(), &["--rate", rate], &edged)?;
                sides.push(Measured { side, pair, ran });
            }
            edged.stop()?;
        }
        let reflector = self.reflector()?;
        let to = self.ceiling_address();
        for (pair, rate) in (first..).zip(rates) {
            let ran = self.singles(&to, &["--rate", rate, "--any"], &reflector)?;
            let side = REFLECTOR;
            sides.push(Measured { side, pair, ran });
        }
        reflector.stop()?;
        Ok((own_mode, sides))
    }
}

fn share(share: f64, most: f64) -> String {
    (share * most).floor().to_string()
}

/// At rates up to the edge's maximum, and above.
pub(super) fn under_load(row: &mut Growing, testbed: &Testbed<'_>, turn: Turn<'_>) -> Result<()> {
    if turn.pair > testbed.plan.load_rounds {
        return Ok(());
    }
    if row.rates.is_empty() {
        let most = testbed.most((turn.sender.unwrap_or(OWN_SENDER), "native"))?;
        row.notes.push(format!("closed loop: {most:.0} replies/s"));
        let shares = testbed.plan.load_shares.iter();
        row.rates = shares.map(|one| share(*one, most)).collect();
    }
    let loads = u32::try_from(row.rates.len())?;
    let first = (turn.pair - 1) * loads + 1;
    let (mode, sides) = testbed.at_rates(&row.rates, turn.sender, first)?;
    for Measured { side, pair, ran } in &sides {
        row.push(side, *pair, ran, ran.rate("answers")?);
    }
    row.mode = mode;
    Ok(())
}

/// Stalls of the CPUs just before: they bound the 99th percentile of every side.
fn stalls(testbed: &Testbed<'_>) -> Result<String> {
    let mut stalls = Command::new(paths::release("edge-bench"));
    stalls.args([
        "stalls",
        "--cpus",
        &testbed.cpus.map(|cpu| cpu.to_string()).join(","),
    ]);
    let result: Value = serde_json::from_str(&process::output(&mut stalls)?)?;
    let seconds = result["seconds"]
        .as_f64()
        .context("no seconds in the result of `edge-bench stalls`")?;
    let mut words = Vec::new();
    for cpu in result["cpus"]
        .as_array()
        .context("no CPUs in the result of `edge-bench stalls`")?
    {
        let number = |name: &str| {
            cpu[name]
                .as_f64()
                .with_context(|| format!("no {name} came"))
        };
        words.push(format!(
            "CPU {} {:.2} % ({:.1} ms at most)",
            cpu["cpu"],
            number("stalled_seconds")? / seconds * 100.0,
            number("longest_seconds")? * 1e3,
        ));
    }
    Ok(format!("stalls on idle CPUs: {}", words.join(", ")))
}
