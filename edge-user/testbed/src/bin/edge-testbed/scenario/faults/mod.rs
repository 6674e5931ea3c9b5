//! A table of faults, each at an edge at work: what was done, what was expected, what came, and
//! how soon the service was good again.

/// One row's means.
mod play;
/// What happens to `edged`.
mod daemon;
/// What happens to the interface.
mod link;
/// More than rings, memory and the operator's door hold.
mod pressure;
/// What happens to the origin.
mod origin;
/// What happens to the reader.
mod reader;
/// As much of the protocol as it takes to ask faster than anybody needs.
mod flood;
/// What came out.
mod report;

use std::path::Path;
use std::thread;

use anyhow::{Context as _, Result, anyhow};
use clap::Args;
use clap::builder::PossibleValuesParser;
use edge_testbed::{
    machine::Machine,
    objects::files,
    stop::{self, Stop},
};

use self::play::Play;
use self::report::{Report, Row};
use super::load::Load;
use crate::stage::{self, Stage};

/// Small, so that a start is quick; everything the scenario publishes fits.
const ARENA_BYTES: u64 = 160 << 20;
/// What the reader in the background fetches.
const LOAD_BYTES: u64 = 3_000_000;

/// What readers may say while the edge is not to be reached.
const UNREACHABLE: &[&str] = &[
    "nothing listens at this address and port",
    "the edge does not answer",
    "the edge answers HELLO, but not GET",
    "this host cannot send to the edge: ",
];
/// Where every reader finishes.
const NOTHING: &[&str] = &[];

/// A row of the table.
struct Fault {
    name: &'static str,
    done: &'static str,
    expected: &'static str,
    /// What the reader in the background may say instead of finishing.
    excuses: &'static [&'static str],
    play: fn(&mut Play<'_>) -> Result<String>,
}

#[derive(Args)]
pub(crate) struct Faults {
    #[command(flatten)]
    stage: stage::Options,
    /// Only these rows, separated by commas
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        value_parser = names(),
        hide_possible_values = true
    )]
    only: Vec<String>,
    /// Tell the rows and end
    #[arg(long)]
    list: bool,
}

/// Every row there is, in the order it is played.
fn table() -> impl Iterator<Item = &'static Fault> {
    [
        daemon::FAULTS,
        link::FAULTS,
        pressure::FAULTS,
        origin::FAULTS,
        reader::FAULTS,
    ]
    .into_iter()
    .flatten()
}

pub(super) fn faults(options: &Faults) -> Result<()> {
    let chosen = chosen(&options.only);
    if options.list {
        for fault in chosen {
            println!("{:<18} {}", fault.name, fault.done);
        }
        return Ok(());
    }
    stage::perform(
        &options.stage,
        "the scenario makes network namespaces and loads an XDP program; it",
        "not every fault is survived",
        |machine| play(&options.stage, &chosen, machine),
    )
}

fn names() -> PossibleValuesParser {
    table().map(|fault| fault.name).into()
}

fn chosen(only: &[String]) -> Vec<&'static Fault> {
    let wanted = |fault: &&Fault| only.is_empty() || only.iter().any(|name| name == fault.name);
    table().filter(wanted).collect()
}

fn play(
    options: &stage::Options,
    faults: &[&'static Fault],
    machine: &mut Machine,
) -> Result<Report> {
    let choose = |folder: &Path| {
        let path = folder.join("load");
        play::write_random(&path, LOAD_BYTES)?;
        files::choose(&[path], folder)
    };
    let mut stage = Stage::set(options, machine, choose)?;
    stage.settings.arena_bytes = ARENA_BYTES;
    let mut play = Play::begin(&stage)?;
    let mut report = Report {
        mode: play.counts()?.mode().clone(),
        ..Report::default()
    };
    for fault in faults {
        eprintln!("--- {}: {}", fault.name, fault.done);
        let row = row(&mut play, fault, &mut report);
        if stop::came() {
            return Err(Stop::interrupted());
        }
        if !row.ok {
            eprintln!("{}: {}", fault.name, row.seen);
            play.start_over()?;
        }
        report.rows.push(row);
    }
    report.wrong_at_end = play.end()?;
    Ok(report)
}

/// Plays one fault while a reader fetches in the background, then audits the edge.
fn row(play: &mut Play<'_>, fault: &'static Fault, report: &mut Report) -> Row {
    play.seconds = None;
    let seen = under_load(play, fault, report).and_then(|seen| {
        play.audit()?;
        play.seconds
            .context("nobody looked whether the service is good again")?;
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
        seconds: play.seconds,
        ok,
    }
}

fn under_load(play: &mut Play<'_>, fault: &'static Fault, report: &mut Report) -> Result<String> {
    let load = Load::new(play.stage).excused_by(fault.excuses);
    let played = thread::scope(|scope| {
        let reader = scope.spawn(|| load.run());
        let leash = load.leash();
        let played = play
            .while_read(&load, 1)
            .and_then(|()| (fault.play)(play))
            // It has read all the time, and reads again.
            .and_then(|seen| play.while_read(&load, load.fetches() + 2).map(|()| seen));
        drop(leash);
        let read = reader.join();
        // What happened to the edge is the better reason than a reader that got no answer.
        let played = played?;
        read.map_err(|_panic| anyhow!("the reader panicked"))??;
        Ok::<_, anyhow::Error>(played)
    });
    report.fetches += load.fetches();
    let excused = load.excused();
    report.excused += excused.len();
    let seen = played?;
    Ok(match excused.last() {
        Some(last) => format!(
            "{seen}; readers in the background that gave up: {}, the last with \"{last}\"",
            excused.len()
        ),
        None => seen,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_fault_has_a_name_of_its_own_and_can_be_chosen_by_it() {
        let mut names: Vec<&str> = table().map(|fault| fault.name).collect();
        let only: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        assert_eq!(chosen(&only).len(), names.len());
        assert_eq!(chosen(&[]).len(), names.len());
        assert_eq!(chosen(&only[1..2])[0].name, names[1]);
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), only.len());
    }
}
