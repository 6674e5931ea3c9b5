//! What each attack cost, and what it changed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::thread;

use serde_json::{Value, json};

use super::life::Measured;
use super::reader::{End, Fetch};
use super::tally::{Amount, Tally};
use crate::stage::Outcome;

/// Whether it was kept, and what it is or how it was broken.
pub(super) type Promise = (bool, String);

pub(super) struct Attacker {
    pub(super) seconds: f64,
    pub(super) spent: Amount,
    pub(super) answered: Amount,
    /// From so many sources.
    pub(super) addresses: usize,
}

pub(super) struct EdgeCost {
    pub(super) cpu_seconds: f64,
    /// To everybody, the legitimate reader too.
    pub(super) emitted: Amount,
    pub(super) origin_fetches: u64,
    /// That rose, by stage; of the legitimate reader too.
    pub(super) reasons: BTreeMap<String, u64>,
}

impl EdgeCost {
    pub(super) fn new(cpu_seconds: f64, emitted: Amount, reasons: BTreeMap<String, u64>) -> Self {
        Self {
            cpu_seconds,
            emitted,
            origin_fetches: reasons.get("origin fetches").copied().unwrap_or(0),
            reasons,
        }
    }
}

pub(super) struct Row {
    pub(super) name: &'static str,
    pub(super) does: &'static str,
    pub(super) attacker: Attacker,
    /// None where the edge itself is the attacker.
    pub(super) edge: Option<EdgeCost>,
    pub(super) reader: Vec<Fetch>,
    pub(super) notes: Vec<String>,
    pub(super) promises: Vec<Promise>,
}

impl Row {
    /// Of an attack that was fought against an edge with readers beside it.
    pub(super) fn fought(
        (name, does): (&'static str, &'static str),
        tally: &Tally,
        reasons: BTreeMap<String, u64>,
        told: Vec<String>,
        measured: Measured,
        mut promises: Vec<Promise>,
    ) -> Self {
        let spent = tally.spent();
        promises.push((spent.packets > 0, String::from("there was an attack")));
        Self {
            name,
            does,
            attacker: Attacker {
                seconds: measured.seconds,
                spent,
                answered: tally.answered(),
                addresses: tally.addresses(),
            },
            edge: Some(EdgeCost::new(measured.cpu_seconds, tally.emitted, reasons)),
            notes: measured.notes(told),
            reader: measured.fetches,
            promises,
        }
    }

    /// An attack that could not be carried through.
    pub(super) fn broken(name: &'static str, does: &'static str, error: &anyhow::Error) -> Self {
        Self {
            name,
            does,
            attacker: Attacker {
                seconds: 0.0,
                spent: Amount::default(),
                answered: Amount::default(),
                addresses: 0,
            },
            edge: None,
            reader: Vec::new(),
            notes: Vec::new(),
            promises: vec![(false, format!("{error:#}"))],
        }
    }

    fn ok(&self) -> bool {
        self.promises.iter().all(|(kept, _)| *kept)
    }

    fn fetches(&self, cold: bool, attacked: bool) -> impl Iterator<Item = &Fetch> {
        let of = self.reader.iter();
        of.filter(move |fetch| fetch.cold == cold && fetch.attacked == attacked)
    }

    /// Median of the fetches that succeeded, in seconds.
    fn median(&self, cold: bool, attacked: bool) -> Option<f64> {
        let whole = self
            .fetches(cold, attacked)
            .filter(|fetch| fetch.end == End::Whole);
        let mut seconds: Vec<f64> = whole.map(|fetch| fetch.seconds).collect();
        seconds.sort_by(f64::total_cmp);
        seconds.get(seconds.len() / 2).copied()
    }

    /// What failed fetches said, each sentence once.
    fn said(&self) -> BTreeMap<String, usize> {
        let mut said = BTreeMap::new();
        for fetch in self.reader.iter().filter(|fetch| fetch.end != End::Whole) {
            *said.entry(fetch.end.told()).or_insert(0) += 1;
        }
        said
    }

    fn to_json(&self) -> Value {
        let seconds = |cold| {
            json!({
                "quiet": self.median(cold, false),
                "attacked": self.median(cold, true),
            })
        };
        json!({
            "attack": self.name,
            "does": self.does,
            "ok": self.ok(),
            "attacker": {
                "seconds": self.attacker.seconds,
                "addresses": self.attacker.addresses,
                "packets": self.attacker.spent.packets,
                "bytes": self.attacker.spent.bytes,
                "packets_back": self.attacker.answered.packets,
                "bytes_back": self.attacker.answered.bytes,
            },
            "edge": self.edge.as_ref().map(|edge| json!({
                "cpu_seconds": edge.cpu_seconds,
                "packets_sent": edge.emitted.packets,
                "bytes_sent": edge.emitted.bytes,
                "origin_fetches": edge.origin_fetches,
                "reasons": edge.reasons,
            })),
            "reader": {
                "fetches": self.reader.len(),
                "whole": self.reader.iter().filter(|fetch| fetch.end == End::Whole).count(),
                "hot_median_seconds": seconds(false),
                "cold_median_seconds": seconds(true),
                "said": self.said(),
                "each": self.reader.iter().map(Fetch::to_json).collect::<Vec<_>>(),
            },
            "notes": self.notes,
            "promises": self.promises.iter().map(|(kept, told)| json!({
                "kept": kept,
                "promise": told,
            })).collect::<Vec<_>>(),
        })
    }
}

pub(super) struct Report {
    pub(super) rows: Vec<Row>,
    pub(super) mode: Value,
    pub(super) seconds: f64,
}

impl Outcome for Report {
    fn promises(&self) -> Vec<(bool, String)> {
        let all = self.rows.iter().flat_map(|row| {
            let told = |(kept, told): &Promise| (*kept, format!("{}: {told}", row.name));
            row.promises.iter().map(told)
        });
        all.collect()
    }

    fn to_json(&self) -> Value {
        json!({
            "ok": self.ok(),
            "mode": self.mode,
            "host": host(),
            "seconds": self.seconds,
            "rows": self.rows.iter().map(Row::to_json).collect::<Vec<_>>(),
        })
    }

    fn story(&self) -> String {
        let mut story = String::from("\nWhat do attacks cost, and whom?\n");
        let mut say = |text: &str| writeln!(story, "{text}").expect("a String grows");
        let host = host();
        say("Each attack meets an edge of its own. It goes on and off, and all the while a reader");
        say("fetches a file the edge has (hot) and files it must get from the origin (cold).");
        say(&format!(
            "Attacker, edge and reader share this machine: {} CPUs, {}, Linux {}.\n",
            host["cpus"],
            host["cpu"].as_str().unwrap_or("?"),
            host["kernel"].as_str().unwrap_or("?")
        ));
        say(
            "                     attacker sent       came back        edge          reader, seconds: quiet > attacked",
        );
        say(
            "                   packets/s   MB/s       MB/s        CPU  sent MB/s      hot              cold",
        );
        for row in &self.rows {
            say(&row.line());
        }
        say("");
        for row in &self.rows {
            say(&format!(
                "  {:5} {}: {}",
                if row.ok() { "ok" } else { "WRONG" },
                row.name,
                row.does
            ));
            for note in &row.notes {
                say(&format!("        {note}"));
            }
            for (said, times) in row.said() {
                say(&format!("        a reader {said} ({times} times)"));
            }
            for (_, promise) in row.promises.iter().filter(|(kept, _)| !kept) {
                say(&format!("        WRONG: {promise}"));
            }
        }
        let wrong = self.rows.iter().filter(|row| !row.ok()).count();
        let count = self.rows.len();
        say(&format!(
            "\n{} of {count} attacks changed nothing that was promised. It took {:.0} s.",
            count - wrong,
            self.seconds
        ));
        say(
            "CPU is that of the edge's own threads, in cores; the XDP program runs in the kernel's",
        );
        say("soft interrupts, on the attacker's account here.");
        story
    }
}

impl Row {
    fn line(&self) -> String {
        let per_second = |count: u64| rate(count, self.attacker.seconds);
        let seconds = |cold, attacked| {
            let median = self.median(cold, attacked);
            let some = self.fetches(cold, attacked).count() > 0;
            match median {
                Some(median) => format!("{median:.2}"),
                None if some => "failed".into(),
                None => "-".into(),
            }
        };
        let pair = |cold| format!("{} > {}", seconds(cold, false), seconds(cold, true));
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

#[expect(clippy::cast_precision_loss, reason = "for people to read")]
pub(super) fn rate(count: u64, seconds: f64) -> f64 {
    count as f64 / seconds.max(0.01)
}

/// Without it the numbers say nothing.
fn host() -> Value {
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    json!({
        "kernel": kernel.trim(),
        "cpu": cpu.map_or("unknown", |(_, name)| name.trim()),
        "cpus": thread::available_parallelism().map_or(0, std::num::NonZero::get),
    })
}
