//! Cost of the XDP program per packet, by the kernel's test runs.

use std::collections::BTreeMap;
use std::path::PathBuf;

use anyhow::{Context as _, Result, bail};
use aya::programs::{TestRun as _, TestRunOptions, Xdp};
use edge_ebpf::golden::{self, Case, Expect};
use edge_user::daemon::nic::program::{Maps, Program, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use serde_json::{Value, json};

use crate::cold::{BARE, ROUNDS, load, middle, nanoseconds, program};

/// Runs of one packet per figure and round.
const RUNS: u32 = 100_000;
const SLOTS: u32 = 64;
const HIT: &str = "a hit over IPv4";
/// Packets that are not sent back: those would be rewritten by each run, and could not be repeated.
const CASES: [&str; 4] = [
    "another port",
    "a GET over IPv4 for a chunk that is not here",
    HIT,
    "a hit over IPv6",
];
const BARE_HIT: &str = "bare parse, lookup and redirect";

/// Measures the XDP program on sample packets, with the kernel's test runs, in nanoseconds.
#[derive(clap::Args)]
pub struct Verdicts {
    /// Object file with the programs, built by `cargo xtask build`
    #[arg(long, value_name = "FILE")]
    programs: PathBuf,
}

/// Nanoseconds per run for some golden packets, and for the least that a hit takes. Caches are
/// warm: each run has the same packet.
pub fn verdicts(options: &Verdicts) -> Result<Value> {
    let world = golden::world();
    let mut loaded = load(&options.programs, SLOTS, [(world.id, world.resident)])?;
    let bare = program(&mut loaded.beside, BARE)?;

    let cases = golden::all();
    let case = |name: &str| {
        let case = cases.iter().find(|case| case.name == name);
        case.with_context(|| format!("no golden packet {name}"))
    };
    let mut figures: BTreeMap<&str, [f64; ROUNDS]> = BTreeMap::new();
    for round in 0..ROUNDS {
        for name in CASES {
            figures.entry(name).or_default()[round] =
                timed(&mut loaded.edge, &loaded.maps, case(name)?)?;
        }
        figures.entry(BARE_HIT).or_default()[round] = timed_bare(bare, case(HIT)?)?;
    }
    let middles = figures
        .into_iter()
        .map(|(name, rounds)| (name.to_owned(), json!(middle(rounds))));
    Ok(Value::Object(middles.collect()))
}

fn timed(edge: &mut Program, maps: &Maps, case: &Case) -> Result<f64> {
    let wanted = match case.expect {
        Expect::Pass(_) => XDP_PASS,
        Expect::Drop(_) => XDP_DROP,
        Expect::Reply(..) => XDP_TX,
        Expect::Steer(_) => XDP_REDIRECT,
    };
    let counted = || -> u64 {
        let reasons = maps.counters.of_queue(0, 0);
        reasons.values().map(|count| count.packets).sum()
    };
    let before = counted();
    let (action, time) = edge.time(&case.frame, RUNS)?;
    let runs = counted() - before;
    if action != wanted || runs != u64::from(RUNS) {
        let name = case.name;
        bail!("{name}: action {action} instead of {wanted}, {runs} of {RUNS} runs counted");
    }
    nanoseconds(time)
}

/// Checks the action only, as the bare program has no counters: a packet that was no hit would not
/// be redirected in the last run either.
fn timed_bare(bare: &mut Xdp, case: &Case) -> Result<f64> {
    let result = bare.test_run(TestRunOptions {
        data_in: Some(&case.frame),
        repeat: RUNS,
        ..TestRunOptions::new()
    })?;
    let action = result.return_value;
    if action != XDP_REDIRECT {
        let name = case.name;
        bail!("{name}, bare: action {action} instead of {XDP_REDIRECT}");
    }
    nanoseconds(result.duration)
}
