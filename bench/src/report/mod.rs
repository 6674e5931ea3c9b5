//! Turns runs into a report, and reports into tables, pages and comparisons.

/// The report, field by field.
pub mod model;
/// The latency histograms of a report.
pub mod latency;
/// From runs to medians, ratios and verdicts.
pub mod assemble;
/// Constraints on a report.
pub mod check;
/// Reads files; errors name the row and the field.
mod read;
/// Formats numbers.
pub(crate) mod figure;
/// Facts and remarks in words.
mod facts;
/// The table for the terminal.
pub mod table;
/// Compares two reports of one host.
pub mod compare;
/// Processor time per GB.
mod cost;
/// Plots, as SVG.
mod plot;
/// The HTML page.
pub mod page;

use std::path::PathBuf;

use anyhow::Result;
use serde::Serialize;

use compare::{Comparison, UnlikeHosts};

use crate::output::{apart, print, write};

pub(crate) use facts::chunks;
pub use read::{ReadError, report as read_report};

/// The subcommands about reports.
#[derive(Debug, clap::Subcommand)]
pub enum Command {
    /// Create a report from the runs of all sides
    Assemble {
        /// Runs, in the format described in docs/PERFORMANCE.md
        runs: PathBuf,
        /// Report file
        #[arg(short, long, value_name = "REPORT.json")]
        output: PathBuf,
    },
    /// Print a report as a table
    Table {
        /// The report
        report: PathBuf,
    },
    /// Create a self-contained HTML page with plots from a report
    Report {
        /// The report
        report: PathBuf,
        /// HTML file
        #[arg(short, long, value_name = "REPORT.html")]
        output: PathBuf,
    },
    /// Report for each row whether B differs from A by more than noise; requires equal hosts
    Compare {
        /// Report before the change
        a: PathBuf,
        /// Report after the change
        b: PathBuf,
        /// Print a JSON object
        #[arg(long)]
        json: bool,
    },
}

/// Runs a subcommand.
pub fn run(command: &Command) -> Result<()> {
    match command {
        Command::Assemble { runs, output } => {
            apart(runs, output)?;
            write(output, &json(&read::assembled(runs)?)?)
        }
        Command::Table { report } => print(&table::table(&read_report(report)?)),
        Command::Report { report, output } => {
            apart(report, output)?;
            write(output, &page::page(&read_report(report)?)?)
        }
        Command::Compare { a, b, json: false } => {
            print(&Comparison::of(&read_report(a)?, &read_report(b)?)?.to_string())
        }
        Command::Compare { a, b, json: true } => {
            print(&json(&Comparison::of(&read_report(a)?, &read_report(b)?)?)?)
        }
    }
}

/// 1, or 2 if the question itself was wrong.
pub fn exit_code(error: &anyhow::Error) -> u8 {
    if error.is::<UnlikeHosts>() { 2 } else { 1 }
}

pub(crate) fn json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}
