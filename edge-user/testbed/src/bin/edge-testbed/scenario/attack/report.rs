//! The cost and effect of each attack.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;

use procfs::Current as _;
use serde::Serialize;
use serde_json::{Value, json};

use super::run::Reasons;
use super::tally::{Amount, Tally};
use super::victim::Measured;
use crate::reader::End;
use crate::testbed::{Outcome, Promise};

/// What the attacker sent and received.
#[derive(Default, Serialize)]
pub(super) struct Cost {
    pub(super) seconds: f64,
    pub(super) spent: Amount,
    pub(super) answered: Amount,
    /// Number of source addresses.
    pub(super) addresses: usize,
}

#[derive(Serialize)]
pub(super) struct EdgeCost {
    pub(super) cpu_seconds: f64,
    /// To all, including the legitimate reader.
    pub(super) emitted: Amount,
    /// Including the legitimate reader's.
    pub(super) reasons: Reasons,
}

#[derive(Serialize)]
pub(super) struct Fetch {
    /// Not resident at the edge.
    pub(super) cold: bool,
    /// Started during the attack.
    pub(super) attacked: bool,
    pub(super) seconds: f64,
    pub(super) end: End,
}

#[derive(Serialize)]
pub(super) struct Row {
    #[serde(rename = "attack")]
    pub(super) name: &'static str,
    pub(super) does: &'static str,
    pub(super) attacker: Cost,
    /// None if the edge itself is the attacker.
    pub(super) edge: Option<EdgeCost>,
    pub(super) reader: Vec<Fetch>,
    pub(super) notes: Vec<String>,
    pub(super) promises: Vec<Promise>,
}

impl Row {
    pub(super) fn new(name: &'static str, does: &'static str) -> Self {
        Self {
            name,
            does,
            attacker: Cost::default(),
            edge: None,
            reader: Vec::new(),
            notes: Vec::new(),
            promises: Vec::new(),
        }
    }

    /// An attack on an edge that has readers.
    pub(super) fn fought(
        (name, does): (&'static str, &'static str),
        tally: &Tally,
        reasons: Reasons,
        notes: Vec<String>,
        measured: Measured,
        mut promises: Vec<Promise>,
    ) -> Self {
        let spent = tally.spent();
        promises.push((
            spent.packets > 0,
            String::from("the attack was carried out"),
        ));
        Self {
            attacker: Cost {
                seconds: measured.seconds,
                spent,
                answered: tally.answered(),
                addresses: tally.addresses(),
            },
            edge: Some(EdgeCost {
                cpu_seconds: measured.cpu_seconds,
                emitted: tally.emitted,
                reasons,
            }),
            notes: measured.notes(notes),
            reader: measured.fetches,
            promises,
            ..Self::new(name, does)
        }
    }

    /// An attack that could not be carried out.
    pub(super) fn broken(name: &'static str, does: &'static str, error: &anyhow::Error) -> Self {
        Self {
            promises: vec![(false, format!("{error:#}"))],
            ..Self::new(name, does)
        }
    }

    /// All its promises as one, with notes.
    fn promise(&self) -> Promise {
        let mut text = format!("{}: {}", self.name, self.does);
        let mut add = |line: &str| write!(text, "\n         {line}").expect("a String grows");
        self.notes.iter().for_each(|note| add(note));
        let mut ends = BTreeMap::new();
        for fetch in self.reader.iter().filter(|fetch| fetch.end != End::Whole) {
            *ends.entry(fetch.end.to_string()).or_insert(0) += 1;
        }
        for (end, times) in ends {
            add(&format!("a reader {end} ({times} times)"));
        }
        let mut broken = self.promises.iter().filter(|(kept, _)| !kept).peekable();
        let kept = broken.peek().is_none();
        broken.for_each(|(_, promise)| add(&format!("WRONG: {promise}")));
        (kept, text)
    }

    /// Median duration in seconds of the successful fetches of a kind.
    fn median(&self, cold: bool, attacked: bool) -> String {
        let of = |fetch: &&Fetch| fetch.cold == cold && fetch.attacked == attacked;
        let of: Vec<&Fetch> = self.reader.iter().filter(of).collect();
        let whole = of.iter().filter(|fetch| fetch.end == End::Whole);
        let mut seconds: Vec<f64> = whole.map(|fetch| fetch.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        match seconds.get(seconds.len() / 2) {
            Some(median) => format!("{median:.2}"),
            None if of.is_empty() => "-".into(),
            None => "failed".into(),
        }
    }

    fn line(&self) -> String {
        let per_second = |count: u64| rate(count, self.attacker.seconds);
        let pair = |cold| {
            let [quiet, attacked] = [false, true].map(|attacked| self.median(cold, attacked));
            format!("{quiet} > {attacked}")
        };
        let (cpu, sent) = self.edge.as_ref().map_or(("-".into(), "-".into()), |edge| {
            (
                format!("{:.2}", edge.cpu_seconds / self.attacker.seconds.max(0.01)),
                format!("{:.1}", per_second(edge.emitted.bytes) / 1e6),
            )
        });
        format!(
            "  {:16} {:>9.0} {:>7.1} {:>10.1} {:>11} {:>10}   {:>15}  {:>15}",
            self.name,
            per_second(self.attacker.spent.packets),
            per_second(self.attacker.spent.bytes) / 1e6,
            per_second(self.attacker.answered.bytes) / 1e6,
            cpu,
            sent,
            pair(false),
            pair(true),
        )
    }
}

#[derive(Serialize)]
pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    pub(super) mode: Value,
    /// The numbers depend on it.
    pub(super) host: Value,
    pub(super) seconds: f64,
}

impl Outcome for Report {
    fn promises(&self) -> Vec<Promise> {
        self.rows.iter().map(Row::promise).collect()
    }

    fn story(&self) -> String {
        let lines: Vec<String> = self.rows.iter().map(Row::line).collect();
        format!(
            "
What do attacks cost, and whom?
Each attack has an edge of its own, and is switched on and off. Throughout, a reader
fetches a resident file (hot) and files that the edge must fetch first (cold).
Attacker, edge and reader share this host: {} CPUs, {}, Linux {}.

                     attacker sent       received         edge          reader, seconds: quiet > attacked
                   packets/s   MB/s       MB/s        CPU  sent MB/s      hot              cold
{}

CPU is that of the edge's own threads, in cores; the XDP program runs in the kernel's
soft interrupts, which count as the attacker's here. It took {:.0} s.
",
            self.host["cpus"],
            self.host["cpu"].as_str().unwrap_or("?"),
            self.host["kernel"].as_str().unwrap_or("?"),
            lines.join("\n"),
            self.seconds
        )
    }
}

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
pub(super) fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(0.01)
}

pub(super) fn host() -> Value {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpus = procfs::CpuInfo::current().ok();
    json!({
        "kernel": kernel.trim(),
        "cpu": cpus.as_ref().and_then(|cpus| cpus.model_name(0)),
        "cpus": cpus.as_ref().map(procfs::CpuInfo::num_cores),
    })
}
