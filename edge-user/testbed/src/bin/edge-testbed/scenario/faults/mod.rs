//! A table of faults, each injected into a busy edge: what was done, expected and seen, and the
//! time until the service recovered.

/// The tools of the rows.
mod session;
/// Faults of `edged`.
mod daemon;
/// Faults of the interface.
mod link;
/// Exhaustion of rings, memory and the admin socket.
mod pressure;
/// Faults of the origin.
mod origin;
/// Faults of the reader.
mod reader;
/// The results.
mod report;

use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use edge_testbed::{
    host_guard::HostGuard,
    stop::{self, Stop},
};
use rand::SeedableRng as _;
use rand::rngs::SmallRng;

use self::report::{Report, Row};
use self::session::Session;
use super::load::Load;
use super::random_files;
use super::selection::{self, Selection};
use crate::testbed::{self, Testbed};

/// Small, for a quick start; everything the scenario publishes fits.
const ARENA_BYTES: u64 = 160 << 20;
/// Size of the object that the background reader fetches.
const LOAD_BYTES: usize = 3_000_000;

/// Messages of readers while the edge is unreachable.
const UNREACHABLE: &[&str] = &[
    "nothing listens at this address and port",
    "the edge does not answer",
    "the edge answers HELLO, but not GET",
    "this host cannot send to the edge: ",
];
/// Every reader succeeds.
const NOTHING: &[&str] = &[];

/// A row of the table.
struct Fault {
    name: &'static str,
    done: &'static str,
    expected: &'static str,
    /// Messages with which the background reader may fail.
    excuses: &'static [&'static str],
    run: fn(&mut Session<'_>) -> Result<String>,
}

#[derive(Args)]
pub(crate) struct Faults {
    #[command(flatten)]
    testbed: testbed::Options,
    #[command(flatten)]
    selection: Selection<Table>,
}

#[derive(Clone)]
pub(super) struct Table;

impl selection::Table for Table {
    fn rows() -> Vec<(&'static str, &'static str)> {
        table().map(|fault| (fault.name, fault.done)).collect()
    }
}

/// All rows, in the order they run.
fn table() -> impl Iterator<Item = &'static Fault> {
    let parts = [
        daemon::FAULTS,
        link::FAULTS,
        pressure::FAULTS,
        origin::FAULTS,
        reader::FAULTS,
    ];
    parts.into_iter().flatten()
}

pub(super) fn faults(options: &Faults) -> Result<()> {
    if options.selection.listed() {
        return Ok(());
    }
    testbed::perform(
        &options.testbed,
        "the scenario creates network namespaces and loads an XDP program; it",
        "the edge did not survive every fault",
        |machine| run(options, machine),
    )
}

fn run(options: &Faults, machine: &mut HostGuard) -> Result<Report> {
    let mut rng = SmallRng::seed_from_u64(1);
    let choose = |folder: &Path| random_files(folder, "load", LOAD_BYTES, 1, &mut rng);
    let mut testbed = Testbed::new(&options.testbed, machine, choose)?;
    testbed.settings.arena_bytes = ARENA_BYTES;
    let mut session = Session::begin(&testbed, rng)?;
    let mut report = Report {
        mode: session.counts()?.mode().clone(),
        ..Report::default()
    };
    for fault in table().filter(|fault| options.selection.has(fault.name)) {
        eprintln!("--- {}: {}", fault.name, fault.done);
        let row = row(&mut session, fault, &mut report);
        if stop::came() {
            return Err(Stop::interrupted());
        }
        if !row.ok {
            eprintln!("{}: {}", fault.name, row.seen);
            session.start_over()?;
        }
        report.rows.push(row);
    }
    report.wrong_at_end = session.end()?;
    Ok(report)
}

/// Runs one fault while a reader fetches in the background, then audits the edge.
fn row(session: &mut Session<'_>, fault: &'static Fault, report: &mut Report) -> Row {
    session.took = None;
    let seen = under_load(session, fault, report).and_then(|seen| {
        session.audit()?;
        session.took.context("the row did not check for recovery")?;
        Ok(seen)
    });
    let (ok, seen) = match seen {
        Ok(seen) => (true, seen),
        Err(error) => (false, format!("{error:#}")),
    };
    Row {
        fault: fault.name,
        done: fault.done,
        expected: fault.expected,
        seen,
        took: session.took,
        ok,
    }
}

fn under_load(
    session: &mut Session<'_>,
    fault: &'static Fault,
    report: &mut Report,
) -> Result<String> {
    let load = Load::new(session.testbed).excused_by(fault.excuses);
    let ran = thread::scope(|scope| {
        let reader = scope.spawn(|| load.run());
        let stop = load.stop_guard();
        let ran = session
            .while_read(&load, 1)
            .and_then(|()| (fault.run)(session))
            // It reads throughout, and afterwards.
            .and_then(|seen| session.while_read(&load, load.fetches() + 2).map(|()| seen));
        drop(stop);
        let read = reader.join();
        // An error of the edge is the better explanation than a reader without replies.
        let ran = ran?;
        read.map_err(|_panic| anyhow!("the reader panicked"))??;
        Ok::<_, anyhow::Error>(ran)
    });
    report.fetches += load.fetches();
    let excused = load.excused();
    report.gave_up += excused.len();
    let seen = ran?;
    Ok(match excused.last() {
        Some(last) => format!(
            "{seen}; background readers that gave up: {}, the last with \"{last}\"",
            excused.len()
        ),
        None => seen,
    })
}
