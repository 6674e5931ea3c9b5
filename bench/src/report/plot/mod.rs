//! Plots, as SVG, each with its figures as a table and each drawn twice: for wide and for narrow
//! screens.

/// Colours, and the sides they stand for.
pub(super) mod palette;
/// Scales and their ticks.
mod axis;
/// One drawing.
mod canvas;
/// Bars that lie.
mod bars;
/// Ratios with their spread.
mod ratio;
/// Latency by percentile.
mod percentile;
/// Goodput and p99 by offered load.
mod load;
/// Processor time by side.
mod cpu;

use anyhow::Result;

use super::model::{Report, Row};
use canvas::Size;
use palette::{Key, Sides};

pub(super) use canvas::Drawing;
pub(super) use cpu::of_run as cost_of_run;
pub(super) use percentile::at as quantile;

/// One figure of the page.
pub(super) struct Plot {
    pub(super) title: String,
    /// For whoever cannot see it.
    pub(super) description: String,
    pub(super) keys: Vec<Key>,
    pub(super) wide: Drawing,
    pub(super) narrow: Drawing,
    pub(super) figures: Figures,
}

/// The same in numbers.
#[derive(Clone)]
pub(super) struct Figures {
    pub(super) head: Vec<String>,
    pub(super) rows: Vec<Vec<String>>,
}

impl Figures {
    pub(super) fn new(head: &[&str]) -> Self {
        Self {
            head: head.iter().map(|name| (*name).to_owned()).collect(),
            rows: Vec::new(),
        }
    }
}

/// A group of plots under one heading.
pub(super) struct Chapter {
    pub(super) title: &'static str,
    pub(super) plots: Vec<Plot>,
}

/// All there is to draw; chapters without a plot are left out.
pub(super) fn all(report: &Report) -> Result<Vec<Chapter>> {
    let sides = Sides::of(report);
    let each = |plot: &dyn Fn(&Row) -> Result<Vec<Plot>>| -> Result<Vec<Plot>> {
        let plots: Result<Vec<Vec<Plot>>> = report.rows.iter().map(plot).collect();
        Ok(plots?.into_iter().flatten().collect())
    };
    let chapters = [
        Chapter {
            title: "Ratios",
            plots: ratio::plot(report)?.into_iter().collect(),
        },
        Chapter {
            title: "Latency by percentile",
            plots: each(&|row| percentile::plot(row, &sides))?,
        },
        Chapter {
            title: "Goodput and latency by offered load",
            plots: each(&|row| load::plots(report, row, &sides))?,
        },
        Chapter {
            title: "Processor time per GB",
            plots: each(&|row| cpu::plot(row))?,
        },
    ];
    let drawn = chapters.into_iter();
    Ok(drawn.filter(|chapter| !chapter.plots.is_empty()).collect())
}

/// Draws it for both kinds of screen.
fn both(draw: impl Fn(Size) -> Result<Drawing>) -> Result<(Drawing, Drawing)> {
    Ok((draw(Size::Wide)?, draw(Size::Narrow)?))
}
