//! Bars that lie, so that there is room for their names.

use anyhow::Result;
use plotters::coord::ranged1d::Ranged as _;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::axis::Axis;
use super::canvas::{self, Chart, Drawing, Room, Size, drawn};
use super::palette::{Colour, INK};

pub(super) struct Bar {
    pub(super) name: String,
    /// From, to, colour.
    pub(super) segments: Vec<(f64, f64, Colour)>,
    /// Low and high.
    pub(super) spread: Option<(f64, f64)>,
    /// A value to be compared with.
    pub(super) mark: Option<f64>,
    /// At the end of the line.
    pub(super) text: String,
}

const AXIS_HEIGHT: u32 = 60;
/// Of a letter, on the average, generously.
const LETTER_WIDTH: u32 = 8;
/// Between text and what it belongs to.
const GAP: u32 = 8;

/// How bars and their names share the height of a line.
struct Line {
    height: u32,
    /// Of the bar, from the middle of the line, as part of its height.
    offset: f64,
    /// Half of the bar, likewise.
    reach: f64,
    /// Of a name that stands above its bar, for want of room before it.
    name: Option<f64>,
}

fn line(size: Size) -> Line {
    let wide = Line {
        height: 34,
        offset: 0.0,
        reach: 0.3,
        name: None,
    };
    let narrow = Line {
        height: 46,
        offset: -0.2,
        reach: 0.2,
        name: Some(0.26),
    };
    size.choose(wide, narrow)
}

pub(super) fn draw(size: Size, x: &Axis, bars: &[Bar]) -> Result<Drawing> {
    let line = line(size);
    let room = Room {
        left: size.choose(230, 18),
        bottom: 42,
        right: size.choose(110, 68),
        upright_grid: false,
    };
    let count = u32::try_from(bars.len())?;
    let lines = || {
        bars.iter()
            .zip((0..count).rev().map(|at| f64::from(at) + 0.5))
    };
    let before = lines().filter(|_| line.name.is_none());
    let before = before.map(|(bar, middle)| (middle, short(&bar.name, room.left)));
    let y = Axis::given(f64::from(count), before.collect(), "");
    let height = count * line.height + AXIS_HEIGHT;
    canvas::draw(size, height, room, (x, &y), |area, chart| {
        for (bar, middle) in lines() {
            shape(chart, bar, middle + line.offset, line.reach)?;
            let write = |text: &str, left: u32, at: f64| {
                let (_, at) = chart.backend_coord(&(x.range().end, at));
                let style = canvas::text(INK).pos(Pos::new(HPos::Left, VPos::Center));
                let left = i32::try_from(left).unwrap_or(i32::MAX);
                let text = Text::new(text.to_owned(), (left, at), style);
                area.draw(&text).map_err(drawn)
            };
            write(
                &bar.text,
                size.width() - room.right + GAP,
                middle + line.offset,
            )?;
            if let Some(above) = line.name {
                let name = short(&bar.name, size.width());
                write(&name, room.left + GAP / 2, middle + above)?;
            }
        }
        Ok(())
    })
}

/// The bar, its spread and its mark.
fn shape(chart: &mut Chart<'_>, bar: &Bar, middle: f64, reach: f64) -> Result<()> {
    let ink = INK.light.stroke_width(2);
    let across = |value, reach| {
        PathElement::new(vec![(value, middle - reach), (value, middle + reach)], ink)
    };
    let segments = bar.segments.iter().map(|(from, to, colour)| {
        let corners = [(*from, middle - reach), (*to, middle + reach)];
        Rectangle::new(corners, colour.light.filled())
    });
    chart.draw_series(segments).map_err(drawn)?;
    if let Some((low, high)) = bar.spread {
        let along = PathElement::new(vec![(low, middle), (high, middle)], ink);
        let ends = [along, across(low, reach / 2.0), across(high, reach / 2.0)];
        chart.draw_series(ends).map_err(drawn)?;
    }
    if let Some(mark) = bar.mark {
        chart
            .draw_series([across(mark, reach * 1.4)])
            .map_err(drawn)?;
    }
    Ok(())
}

/// As much as there is room for; the table has all of it.
fn short(name: &str, room: u32) -> String {
    let fits = usize::try_from(room / LETTER_WIDTH).unwrap_or_default();
    if name.chars().count() <= fits {
        return name.to_owned();
    }
    let kept: String = name.chars().take(fits - 1).collect();
    kept.trim_end().to_owned() + "…"
}
