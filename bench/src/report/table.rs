//! The table for the terminal.

use std::fmt::Write as _;

use comfy_table::{CellAlignment, ContentArrangement, Table, presets};

use super::model::{Report, Row};
use super::{facts, figure};

/// The width that most terminals can have.
const WIDTH_MAX: u16 = 132;
/// Columns with numbers.
const NUMBERS: [usize; 2] = [2, 4];

/// Facts, one line per comparison, remarks.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    if report.quick {
        line(
            &mut text,
            "a quick run: its figures are too short for claims",
        );
    }
    for (name, value) in facts::of_report(report) {
        line(&mut text, &format!("{name}: {value}"));
    }
    line(&mut text, "");
    line(&mut text, &rows(report).trim_fmt());
    let remarks = report.rows.iter().flat_map(|row| {
        let remarks = facts::remarks(row).into_iter();
        remarks.map(|remark| format!("{}: {remark}", row.id))
    });
    for (index, remark) in remarks.enumerate() {
        if index == 0 {
            line(&mut text, "");
        }
        line(&mut text, &remark);
    }
    text
}

fn line(text: &mut String, line: &str) {
    writeln!(text, "{line}").expect("a string takes everything");
}

fn rows(report: &Report) -> Table {
    let mut table = plain();
    table.set_header([
        "row",
        "work",
        "edge",
        "against",
        "theirs",
        "ratio (low … high)",
        "target",
        "",
    ]);
    for column in NUMBERS {
        if let Some(column) = table.column_mut(column) {
            column.set_cell_alignment(CellAlignment::Right);
        }
    }
    for row in &report.rows {
        add(&mut table, row);
    }
    table
}

/// Columns separated by spaces.
pub(super) fn plain() -> Table {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Dynamic)
        .set_width(WIDTH_MAX);
    table
}

fn add(table: &mut Table, row: &Row) {
    let mut head = [
        row.id.clone(),
        row.title().to_owned(),
        figure::measure(&row.ours),
    ];
    if row.against.is_empty() {
        table.add_row(head.into_iter().chain([figure::none()]));
        return;
    }
    for against in &row.against {
        let beside = [
            against.name.clone(),
            figure::optional(against.theirs, &row.ours.unit),
            figure::ratio(against),
            figure::target(against),
            figure::met(against.met).into(),
        ];
        // The first line names the row.
        table.add_row(std::mem::take(&mut head).into_iter().chain(beside));
    }
}
