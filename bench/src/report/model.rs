//! The report, field by field; docs/PERFORMANCE.md describes it. Unknown fields are ignored, so
//! that an older `edge-bench` reads a newer report; a field whose meaning changes raises `SCHEMA`.

use std::collections::BTreeMap;

use hdrhistogram::Histogram;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::latency;

/// Of reports and of runs.
pub const SCHEMA: u32 = 1;
/// The name of the edge's side.
pub const EDGE: &str = "edge";

fn schema() -> u32 {
    SCHEMA
}

/// One benchmark on one host.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Document<R> {
    /// `SCHEMA`
    #[serde(default = "schema")]
    pub schema: u32,
    /// Where it was measured
    pub host: Host,
    /// What was measured
    pub commit: String,
    /// When it began, RFC 3339 in UTC
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<String>,
    /// Too short for claims
    #[serde(default)]
    pub quick: bool,
    /// How long each side ran in each pair
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds_a_side: Option<f64>,
    /// How the edge's hits left
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sender: Option<Sender>,
    /// One for each target or group of targets
    pub rows: Vec<R>,
}

impl<R> Document<R> {
    /// With other rows.
    pub(super) fn try_map<S, E>(
        self,
        row: impl FnMut(R) -> Result<S, E>,
    ) -> Result<Document<S>, E> {
        Ok(Document {
            schema: self.schema,
            host: self.host,
            commit: self.commit,
            started: self.started,
            quick: self.quick,
            seconds_a_side: self.seconds_a_side,
            sender: self.sender,
            rows: self.rows.into_iter().map(row).collect::<Result<_, _>>()?,
        })
    }
}

/// What tables, pages and comparisons are made from.
pub type Report = Document<Row>;
/// What a benchmark hands over.
pub type Runs = Document<Measured>;

/// How hits leave: `service.sender` of the edge.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Sender {
    /// By the kernel's stack
    Gso,
    /// By the `AF_XDP` socket
    Xsk,
}

impl Sender {
    /// As the configuration writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gso => "gso",
            Self::Xsk => "xsk",
        }
    }
}

/// The named fields make hosts alike or unlike; the rest is shown.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Host {
    /// Logical processors
    pub cpus: u32,
    /// As the processor calls itself
    pub cpu_model: String,
    /// Its release
    pub kernel: String,
    /// Of the interface the packets go through
    pub driver: String,
    /// Of that interface
    pub mtu_bytes: u32,
    /// Of that interface
    pub queues: u32,
    /// Of that interface, by the names ethtool uses
    pub offloads: BTreeMap<String, bool>,
    /// Memory, RPS, whether it is a virtual machine, and what else there is to say
    #[serde(flatten)]
    pub other: BTreeMap<String, Value>,
}

/// One piece of work, ours beside theirs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// Of the target, such as `P1`
    pub id: String,
    /// A short title
    #[serde(default)]
    pub name: String,
    /// What was done, in a sentence
    pub work: String,
    /// The edge's median
    pub ours: Measure,
    /// Which way is good
    #[serde(default)]
    pub better: Better,
    /// Peers, ceilings and fixed marks
    pub against: Vec<Against>,
    /// All that have a target are met; null if none is missed but some are unknown
    pub met: Option<bool>,
    /// Which side could do no more
    pub saturated: Option<Saturated>,
    /// Configuration of the edge that matters here
    #[serde(default)]
    pub mode: BTreeMap<String, Value>,
    /// Runs of the edge
    pub pairs: u32,
    /// Chunks the edge delivered wrong. Any at all make the row count as 0
    #[serde(default)]
    pub wrong: u64,
    /// Why something is absent, or what to know when reading the figures
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
    /// What all of this was made from
    #[serde(default)]
    pub runs: Vec<Run>,
}

impl Row {
    /// What it was made from.
    pub(super) fn into_measured(self) -> Measured {
        let runs = self.runs;
        let ran = |side: &str| runs.iter().any(|run| run.side == side);
        let targets = self.against.into_iter().map(|against| {
            let is_mark = against.absent.is_none() && !ran(&against.name);
            Target {
                target: against.target,
                better: Some(against.better),
                absent: against.absent.filter(|_| !ran(&against.name)),
                theirs: against.theirs.filter(|_| is_mark),
                name: against.name,
            }
        });
        Measured {
            targets: targets.collect(),
            id: self.id,
            name: self.name,
            work: self.work,
            unit: self.ours.unit,
            better: self.better,
            mode: self.mode,
            saturated: self.saturated,
            note: self.note,
            runs,
        }
    }

    /// The short title, or what was done.
    pub fn title(&self) -> &str {
        if self.name.is_empty() {
            &self.work
        } else {
            &self.name
        }
    }

    /// What was offered, in order: none of a closed loop, several of a sweep.
    pub fn loads(&self) -> Vec<f64> {
        let mut loads: Vec<f64> = self.runs.iter().filter_map(|run| run.offered).collect();
        loads.sort_by(f64::total_cmp);
        loads.dedup();
        loads
    }
}

/// A row before it is compared.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measured {
    /// As in [`Row`]
    pub id: String,
    /// As in [`Row`]
    #[serde(default)]
    pub name: String,
    /// As in [`Row`]
    pub work: String,
    /// Of every run
    pub unit: String,
    /// As in [`Row`]
    #[serde(default)]
    pub better: Better,
    /// As in [`Row`]
    #[serde(default)]
    pub mode: BTreeMap<String, Value>,
    /// As in [`Row`]
    #[serde(default)]
    pub saturated: Option<Saturated>,
    /// As in [`Row`]; a row without runs of the edge must say why
    #[serde(default)]
    pub note: Option<String>,
    /// What it is compared with
    #[serde(default)]
    pub targets: Vec<Target>,
    /// Of all sides, in the order they ran
    #[serde(default)]
    pub runs: Vec<Run>,
}

/// A side the edge is compared with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Target {
    /// As the side is called in its runs
    pub name: String,
    /// The ratio wanted; null for a figure that only stands beside
    #[serde(default)]
    pub target: Option<f64>,
    /// Which way the ratio is good; as in the row if null
    #[serde(default)]
    pub better: Option<Better>,
    /// Why this side could not be had; it has no runs then
    #[serde(default)]
    pub absent: Option<String>,
    /// A fixed mark in the row's unit instead of runs
    #[serde(default)]
    pub theirs: Option<f64>,
}

/// Which way is good.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Better {
    /// More is better
    #[default]
    Higher,
    /// Less is better
    Lower,
}

/// Which side could do no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Saturated {
    /// The edge or its peer: what is wanted
    Server,
    /// The load generator: the figure is a lower bound
    Generator,
    /// None, as with a given rate
    Neither,
}

impl Saturated {
    /// As the report writes it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Server => "server",
            Self::Generator => "generator",
            Self::Neither => "neither",
        }
    }
}

/// A value, if there is one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Measure {
    /// Null if nothing was measured
    pub value: Option<f64>,
    /// Of the value
    pub unit: String,
}

/// The edge beside one other.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Against {
    /// The peer, ceiling or mark
    pub name: String,
    /// Their median
    pub theirs: Option<f64>,
    /// Median of the pairs' ratios, ours to theirs
    pub ratio: Option<f64>,
    /// The least of them
    pub low: Option<f64>,
    /// The greatest of them
    pub high: Option<f64>,
    /// The ratio wanted; null for a figure that only stands beside
    pub target: Option<f64>,
    /// Which way the ratio is good
    #[serde(default)]
    pub better: Better,
    /// Null without a target or without a ratio
    pub met: Option<bool>,
    /// Why there are no figures of this side
    pub absent: Option<String>,
    /// Pairs in which both sides ran
    #[serde(default)]
    pub pairs: u32,
}

/// One side, once.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Run {
    /// `edge`, or the name of a peer or ceiling
    pub side: String,
    /// Runs of one pair followed each other
    pub pair: u32,
    /// What counts
    pub value: f64,
    /// The row's
    pub unit: String,
    /// How long it took; `seconds_a_side` if null
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seconds: Option<f64>,
    /// What it cost
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cpu: Option<Sides>,
    /// Payload delivered into user memory
    #[serde(default)]
    pub bytes: u64,
    /// Requests a second, of an open loop
    #[serde(default)]
    pub offered: Option<f64>,
    /// Segments that did not come in time, to those asked for
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub loss: Option<f64>,
    /// In nanoseconds from the intended time of sending: base64 of an HDR histogram, V2 with deflate
    #[serde(default, with = "latency::field")]
    pub latency: Option<Histogram<u64>>,
    /// Chunks, or answers, that were checked and were right
    #[serde(default)]
    pub verified: u64,
    /// Those that were not
    #[serde(default)]
    pub wrong: u64,
}

/// Processor time on both ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sides {
    /// The edge or its peer
    #[serde(default)]
    pub server: Option<Cpu>,
    /// The load generator
    #[serde(default)]
    pub client: Option<Cpu>,
}

/// Processor time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Cpu {
    /// In the program
    pub user_seconds: f64,
    /// In the kernel for the program
    pub system_seconds: f64,
    /// In soft interrupts
    pub softirq_seconds: f64,
}

impl Cpu {
    /// All of it.
    pub fn seconds(&self) -> f64 {
        self.user_seconds + self.system_seconds + self.softirq_seconds
    }
}
