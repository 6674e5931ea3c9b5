//! What the XDP program costs for one packet, by the kernel's own test runs.

use anyhow::{Context as _, Result, bail};
use edge_ebpf::golden::{self, Expect};
use edge_user::attach::{Program, XDP_DROP, XDP_PASS, XDP_REDIRECT, XDP_TX};
use edge_user::limits::XSK;
use edge_user::sys::bpf::{ChunkIdKey, CookiesValue, ResidentValue};
use edge_user::sys::mapping::Mapping;
use edge_user::sys::xsk::Xsk;
use serde_json::{Map, Value, json};

/// Runs of one packet for one figure.
const RUNS: u32 = 200_000;
/// Packets that leave by the way they came are made anew for each run, so only these can be
/// repeated.
const CASES: [&str; 4] = [
    "another port",
    "a GET over IPv4 for a chunk that is not here",
    "a hit over IPv4",
    "a hit over IPv6",
];

/// Nanoseconds for each of some golden packets. Memory is warm: it is the same packet each time.
pub fn verdicts() -> Result<Value> {
    let (mut program, mut maps) = Program::load(64)?;
    let world = golden::world();
    program.serve(world.settings)?;
    maps.cookies.set(0, CookiesValue(world.cookies), 0)?;
    maps.resident
        .insert(ChunkIdKey(world.id), ResidentValue(world.resident), 0)?;
    let xsk = Xsk::new(Mapping::anonymous(XSK.umem_bytes(), false)?, XSK)?;
    program.set_socket(0, xsk.share_fd())?;

    let cases = golden::all();
    let mut figures = Map::new();
    for name in CASES {
        let case = cases.iter().find(|case| case.name == name);
        let case = case.with_context(|| format!("there is no golden packet called {name}"))?;
        let wanted = match case.expect {
            Expect::Pass(_) => XDP_PASS,
            Expect::Drop(_) => XDP_DROP,
            Expect::Reply(..) => XDP_TX,
            Expect::Steer(_) => XDP_REDIRECT,
        };
        let counted = |maps: &edge_user::attach::Maps| -> u64 {
            let reasons = maps.counters.of_queue(0);
            reasons.values().map(|count| count.packets).sum()
        };
        let before = counted(&maps);
        let (action, time) = program.time(&case.frame, RUNS)?;
        let runs = counted(&maps) - before;
        if action != wanted || runs != u64::from(RUNS) {
            bail!("{name}: action {action} instead of {wanted}, {runs} of {RUNS} runs counted");
        }
        let nanoseconds = u64::try_from(time.as_nanos())?;
        figures.insert(name.to_owned(), json!(nanoseconds));
    }
    Ok(Value::Object(figures))
}
