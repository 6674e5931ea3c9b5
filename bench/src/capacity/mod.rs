//! The highest rate that a running edge sustains within limits of loss and latency. Run it from
//! another host, against an edge of your own.

/// Chooses the next rate.
mod search;
/// One rate, offered for some time.
mod step;
/// The load on the generator's own host.
mod own;
/// The result as a sentence.
mod sentence;
/// The result as a report.
mod document;

use std::collections::BTreeMap;
use std::io::{Write, stderr};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use edge_testbed::paths;
use edge_user::client::handshake::Session;
use edge_user::clock;
use edge_user::object::ticket::PublicTicket;
use serde_json::{Value, json};

use self::document::Facts;
use self::search::{Next, Outcome, Plan, Search};
use self::sentence::{Bound, Found};
use self::step::{Generator, Limits, Step, Way};
use crate::host;
use crate::load::bulk::Bulk;
use crate::load::catalogue::{self, Chunk};
use crate::load::mix::Mix;
use crate::load::tally::Tally;
use crate::output;
use crate::report::assemble::assemble;
use crate::report::figure::{self, float};
use crate::report::model::{Host, Saturated};
use crate::report::{self, page};
use crate::seed;

/// Chunks per second of the first step.
const FIRST_RATE: f64 = 64.0;
/// Smaller receive buffers limit the generator.
const ROOM_ENOUGH: usize = 8;

/// Warms and verifies the edge, and finds the highest rate within the limits. Use it only against
/// an edge of your own; against any other it is an attack.
#[derive(Args)]
pub struct Capacity {
    /// Address and port of the edge
    #[arg(long, value_name = "ADDR")]
    target: SocketAddr,
    /// The same address again, to confirm that you may load this host
    #[arg(long, value_name = "ADDR")]
    confirm_target: Option<SocketAddr>,
    /// File with public tickets of its objects, one per line
    #[arg(long, value_name = "FILE")]
    tickets: PathBuf,
    /// Distribution of requests: zipf:EXPONENT, uniform, scan or hot
    #[arg(long, default_value = "zipf:0.9")]
    mix: Mix,
    /// Maximum share of lost segments
    #[arg(long, default_value_t = 0.001, value_parser = share)]
    loss_max: f64,
    /// Maximum 99th percentile of chunk latency, from the intended time of the request
    #[arg(long, default_value = "50ms", value_parser = humantime::parse_duration)]
    p99_max: Duration,
    /// Duration of a step
    #[arg(long, default_value = "5s", value_parser = step_time)]
    seconds: Duration,
    /// Stop when a rate succeeds and a rate higher by this share fails
    #[arg(long, default_value_t = 0.05, value_parser = precision)]
    precision: f64,
    /// Maximum offered rate, such as 10Gb/s or 500MB/s
    #[arg(long, value_name = "SPEED")]
    rate_max: Option<Speed>,
    /// Client threads; one sustains a few GB/s
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256))]
    threads: u32,
    /// Sockets per thread
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// Report file; an existing one is removed before the search
    #[arg(short, long, value_name = "REPORT.json")]
    output: Option<PathBuf>,
    /// HTML page of the report; an existing one is removed before the search
    #[arg(long, value_name = "REPORT.html")]
    page: Option<PathBuf>,
}

/// The target was not confirmed.
#[derive(Debug, thiserror::Error)]
#[error(
    "a load test against a machine that is not yours is an attack{}: if {target} is yours, add \
     --confirm-target {target}",
    .confirmed.map_or_else(String::new, |other| format!(", and {other} was confirmed"))
)]
pub struct Unconfirmed {
    target: SocketAddr,
    confirmed: Option<SocketAddr>,
}

fn share(text: &str) -> Result<f64, String> {
    let share = text.parse().ok();
    share
        .filter(|share| (0.0..1.0).contains(share))
        .ok_or_else(|| format!("{text} is not a share; write 0.001 for 0.1 %"))
}

fn precision(text: &str) -> Result<f64, String> {
    share(text)?;
    let share = text.parse().ok();
    share
        .filter(|share| (0.01..1.0).contains(share))
        .ok_or_else(|| format!("{text} is too small; write 0.01 or more"))
}

/// `5`, `5s` or `500ms`.
fn step_time(text: &str) -> Result<Duration, String> {
    let time = text.parse().ok().map(Duration::try_from_secs_f64);
    let time = match time {
        Some(time) => time.map_err(|error| error.to_string())?,
        None => humantime::parse_duration(text).map_err(|error| error.to_string())?,
    };
    let bounds = Duration::from_millis(100)..=Duration::from_hours(1);
    if !bounds.contains(&time) {
        return Err("a step takes from 0.1 s to 1 h".into());
    }
    Ok(time)
}

/// Payload, in bytes a second.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Speed(f64);

impl FromStr for Speed {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let units = [
            ("Gb/s", 1e9 / 8.0),
            ("Mb/s", 1e6 / 8.0),
            ("GB/s", 1e9),
            ("MB/s", 1e6),
        ];
        let speed = units.into_iter().find_map(|(unit, bytes)| {
            let number: f64 = text.strip_suffix(unit)?.trim().parse().ok()?;
            Some(number * bytes)
        });
        speed
            .filter(|speed| (1e3..=1e15).contains(speed))
            .map(Self)
            .ok_or_else(|| format!("{text} is not a data rate; write 10Gb/s or 500MB/s"))
    }
}

/// Prints progress; the result goes to standard output.
fn progress(line: &str) {
    let (Ok(()) | Err(_)) = writeln!(stderr(), "{line}");
}

/// Runs the search and returns the sentence to size hosts with.
pub fn capacity(options: &Capacity) -> Result<String> {
    if options.confirm_target != Some(options.target) {
        bail!(Unconfirmed {
            target: options.target,
            confirmed: options.confirm_target,
        });
    }
    let tickets = catalogue::tickets(&options.tickets)?;
    for file in options.output.iter().chain(&options.page) {
        output::apart(&options.tickets, file)?;
        paths::clear(file)?;
    }
    let mut host = host::facts(&host::interface_to(options.target)?)?;
    host.other.insert("host_of".into(), json!("the generator"));
    let started_seconds = clock::unix_seconds();
    let (bulk, chunks) = prepare(options, &tickets)?;
    let mode = mode(options, bulk.session().context("there is a client")?);
    let work = format!(
        "whole chunks, open loop, {} over {}, {} bytes in total",
        options.mix,
        report::chunks(chunks.len() as u64),
        figure::count(bytes_of(&chunks)),
    );
    let chunk_bytes = float(bytes_of(&chunks)) / float(chunks.len() as u64);
    let limits = Limits {
        loss_max: options.loss_max,
        p99_max: options.p99_max,
    };
    let way = Way {
        target: options.target,
        mix: options.mix,
        threads: options.threads,
        clients: options.clients.into(),
        limits,
    };
    let mut generator = Generator::new(bulk, chunks, &way)?;
    let (steps, outcome) = search(options, &limits, chunk_bytes, &mut generator)?;
    let conclusion = conclude(outcome, &steps, &limits, chunk_bytes, &host);
    let facts = Facts {
        host,
        started_seconds,
        seconds: options.seconds.as_secs_f64(),
        work,
        mode,
        rate: conclusion.rate,
        saturated: conclusion.saturated,
        note: conclusion.sentence.clone(),
        steps: &steps,
    };
    write(options, facts)?;
    if conclusion.is_failure {
        bail!(conclusion.sentence);
    }
    Ok(conclusion.sentence)
}

/// Connects, lists the chunks, and has the edge fetch them all.
fn prepare(options: &Capacity, tickets: &[PublicTicket]) -> Result<(Bulk, Vec<Chunk>)> {
    let mut bulk = Bulk::open(options.target, options.clients.into(), ROOM_ENOUGH)?;
    let room = bulk.chunks_max()?;
    if room < ROOM_ENOUGH {
        bulk.chunks_per_client = room.max(1);
        progress(&format!(
            "each receive buffer holds only {}: run as root, or raise net.core.rmem_max to 16777216",
            report::chunks(room as u64)
        ));
    }
    let chunks = catalogue::chunks(tickets, |chunk| bulk.fetch(chunk))?;
    warm(&mut bulk, &chunks)?;
    Ok((bulk, chunks))
}

/// The session's parameters and the options.
fn mode(options: &Capacity, session: &Session) -> BTreeMap<String, Value> {
    let p99_max = humantime::format_duration(options.p99_max).to_string();
    let facts = [
        ("target", json!(options.target.to_string())),
        ("segment_bytes", json!(session.segment_bytes)),
        ("max_burst", json!(session.max_burst)),
        ("threads", json!(options.threads)),
        ("clients", json!(options.clients)),
        ("loss_max", json!(options.loss_max)),
        ("p99_max", json!(p99_max)),
    ];
    facts.map(|(name, value)| (name.to_owned(), value)).into()
}

/// Fetches and verifies every chunk once.
fn warm(bulk: &mut Bulk, chunks: &[Chunk]) -> Result<()> {
    let bytes = bytes_of(chunks);
    progress(&format!(
        "warming: {}, {} bytes",
        report::chunks(chunks.len() as u64),
        figure::count(bytes)
    ));
    bulk.tally = Tally::default();
    let bar = seed::bar(bytes)?;
    bulk.fetch_all(chunks, |bytes| bar.inc(bytes.into()))?;
    bar.finish_and_clear();
    match bulk.tally.wrong {
        0 => Ok(()),
        wrong => bail!(
            "{wrong} of {} were corrupt: the edge is broken, or there is an attacker on the path",
            report::chunks(chunks.len() as u64)
        ),
    }
}

/// Runs steps until the search ends, or a corrupt chunk arrives.
fn search(
    options: &Capacity,
    limits: &Limits,
    chunk_bytes: f64,
    generator: &mut Generator,
) -> Result<(Vec<Step>, Option<Outcome>)> {
    let mut search = Search::new(Plan {
        first: FIRST_RATE,
        most: options.rate_max.map(|speed| speed.0 / chunk_bytes),
        precision: options.precision,
    });
    let mut steps = Vec::new();
    loop {
        let rate = match search.next() {
            Next::Done(outcome) => return Ok((steps, Some(outcome))),
            Next::Try(rate) => rate,
        };
        let step = generator.offer(rate, options.seconds)?;
        progress(&sentence::line(&step, limits));
        let (holds, wrong) = (step.missed(limits).is_none(), step.tally.wrong);
        steps.push(step);
        if wrong > 0 {
            return Ok((steps, None));
        }
        search.note(holds);
    }
}

/// The result in words and figures.
struct Conclusion {
    sentence: String,
    is_failure: bool,
    rate: Option<f64>,
    saturated: Option<Saturated>,
}

/// No outcome means that a corrupt chunk arrived.
fn conclude(
    outcome: Option<Outcome>,
    steps: &[Step],
    limits: &Limits,
    chunk_bytes: f64,
    host: &Host,
) -> Conclusion {
    let failure = |sentence, rate| Conclusion {
        sentence,
        is_failure: true,
        rate,
        saturated: None,
    };
    match outcome {
        None => {
            let last = steps.last();
            let wrong = last.map_or(0, |step| step.tally.wrong);
            let sentence = format!(
                "{} corrupt under load: the rate counts as 0; the edge is broken, or there is an \
                 attacker on the path",
                report::chunks(wrong)
            );
            failure(sentence, last.map(|step| step.rate))
        }
        Some(Outcome::Nothing) => {
            let first = steps.first().map_or(0.0, |step| step.rate);
            failure(sentence::nothing(first, steps, limits), None)
        }
        Some(Outcome::Found { rate, end }) => {
            let link = host.other.get("link_mbit");
            let link = link.and_then(Value::as_f64);
            let found = Found::new(rate, end, steps, limits, link);
            let own = matches!(found.bound, Bound::Generator | Bound::Link);
            Conclusion {
                sentence: found.sentence(chunk_bytes, limits),
                is_failure: false,
                rate: Some(rate),
                saturated: own.then_some(Saturated::Generator),
            }
        }
    }
}

fn write(options: &Capacity, facts: Facts<'_>) -> Result<()> {
    let report = assemble(facts.runs())?;
    if let Some(file) = &options.output {
        output::write(file, &report::json(&report)?)?;
    }
    if let Some(file) = &options.page {
        output::write(file, &page::page(&report)?)?;
    }
    Ok(())
}

fn bytes_of(chunks: &[Chunk]) -> u64 {
    chunks.iter().map(|chunk| u64::from(chunk.bytes)).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn speeds_have_a_unit() {
        assert_eq!("10Gb/s".parse(), Ok(Speed(1.25e9)));
        assert_eq!("500 MB/s".parse(), Ok(Speed(5e8)));
        for wrong in [
            "10",
            "Gb/s",
            "-1Gb/s",
            "0Mb/s",
            "1e-300GB/s",
            "infGB/s",
            "10 Gbit",
        ] {
            assert!(wrong.parse::<Speed>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn steps_and_shares_have_bounds() {
        assert_eq!(step_time("5"), Ok(Duration::from_secs(5)));
        assert_eq!(step_time("200ms"), Ok(Duration::from_millis(200)));
        for wrong in ["0", "-1", "2h", "soon"] {
            assert!(step_time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(share("0.001"), Ok(0.001));
        for wrong in ["1", "-0.1", "0.1%"] {
            assert!(share(wrong).is_err(), "{wrong}");
        }
        assert!(precision("0.001").is_err());
    }
}
