//! One drawing: two axes, and something between them.

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use super::axis::Axis;
use super::palette::{Colour, GRID, INK, MUTED};

/// For which screen. Text is as large on both, so there is less room for it on one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Size {
    Wide,
    Narrow,
}

impl Size {
    pub(super) fn width(self) -> u32 {
        match self {
            Self::Wide => 800,
            Self::Narrow => 360,
        }
    }

    pub(super) fn choose<T>(self, wide: T, narrow: T) -> T {
        match self {
            Self::Wide => wide,
            Self::Narrow => narrow,
        }
    }
}

/// SVG, complete.
pub(in super::super) struct Drawing {
    pub(in super::super) width: u32,
    pub(in super::super) height: u32,
    pub(in super::super) svg: String,
}

/// Room around the axes, for labels and titles.
#[derive(Clone, Copy)]
pub(super) struct Room {
    pub(super) left: u32,
    pub(super) bottom: u32,
    pub(super) right: u32,
    /// Lines behind, at the ticks of the upright axis too.
    pub(super) upright_grid: bool,
}

impl Room {
    /// Of a plot of lines over a quantity.
    pub(super) fn of_lines(size: Size) -> Self {
        Self {
            left: size.choose(80, 78),
            bottom: 42,
            right: size.choose(30, 26),
            upright_grid: true,
        }
    }
}

pub(super) type Chart<'a> = ChartContext<'a, SVGBackend<'a>, Cartesian2d<Axis, Axis>>;
pub(super) type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// In plotters' measure, which is 1.24 times that of SVG.
const TEXT_SIZE: f64 = 16.0;

/// Draws the axes, then what `fill` adds.
pub(super) fn draw(
    size: Size,
    height: u32,
    room: Room,
    (x, y): (&Axis, &Axis),
    fill: impl FnOnce(&Area<'_>, &mut Chart<'_>) -> Result<()>,
) -> Result<Drawing> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, (size.width(), height)).into_drawing_area();
        let mut chart = ChartBuilder::on(&area)
            .margin_top(10)
            .margin_right(room.right)
            .set_label_area_size(LabelAreaPosition::Left, room.left)
            .set_label_area_size(LabelAreaPosition::Bottom, room.bottom)
            .build_cartesian_2d(x.clone(), y.clone())
            .map_err(drawn)?;
        mesh(&mut chart, room, x, y)?;
        fill(&area, &mut chart)?;
        area.present().map_err(drawn)?;
    }
    Ok(Drawing {
        width: size.width(),
        height,
        svg,
    })
}

fn mesh(chart: &mut Chart<'_>, room: Room, x: &Axis, y: &Axis) -> Result<()> {
    let mut mesh = chart.configure_mesh();
    if !room.upright_grid {
        mesh.disable_y_mesh();
    }
    mesh.bold_line_style(GRID.light)
        .light_line_style(TRANSPARENT)
        .axis_style(MUTED.light)
        .label_style(text(INK))
        .axis_desc_style(text(MUTED))
        .x_desc(x.title())
        .y_desc(y.title())
        .draw()
        .map_err(drawn)
}

pub(super) fn text(colour: Colour) -> TextStyle<'static> {
    ("sans-serif", TEXT_SIZE).into_font().color(&colour.light)
}

/// A string takes every drawing, so this is our own mistake.
pub(super) fn drawn<E: std::error::Error + Send + Sync>(
    error: DrawingAreaErrorKind<E>,
) -> anyhow::Error {
    anyhow!("cannot draw: {error}")
}
