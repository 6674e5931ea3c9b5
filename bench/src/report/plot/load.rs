//! Goodput and p99 by offered load, of rows that were measured at several.

use anyhow::Result;
use plotters::prelude::*;

use super::super::assemble::median;
use super::super::figure::{self, GB};
use super::super::model::{Report, Row, Run};
use super::axis::Axis;
use super::canvas::{self, Drawing, Room, Size, drawn};
use super::palette::{INK, Key, Shape, Sides};
use super::percentile::tick;
use super::{Figures, Plot, both};

/// One side at one load.
struct Point {
    side: String,
    offered: f64,
    middle: f64,
    low: f64,
    high: f64,
}

/// What is plotted over the load.
struct Quantity {
    title: &'static str,
    axis: &'static str,
    of: fn(&Report, &Run) -> Option<f64>,
    text: fn(f64) -> String,
    logarithmic: bool,
}

const QUANTITIES: [Quantity; 2] = [
    Quantity {
        title: "goodput by offered load",
        axis: "goodput, Gb/s",
        of: goodput,
        text: gigabits,
        logarithmic: false,
    },
    Quantity {
        title: "p99 latency by offered load",
        axis: "p99 latency",
        of: p99,
        text: figure::nanoseconds,
        logarithmic: true,
    },
];

pub(super) fn plots(report: &Report, row: &Row, sides: &Sides) -> Result<Vec<Plot>> {
    let mut plots = Vec::new();
    for quantity in &QUANTITIES {
        let points = points(report, row, quantity.of);
        let first = points.first().map(|point| point.offered);
        let loads = points.iter().any(|point| Some(point.offered) != first);
        if loads && points.iter().all(|point| point.low > 0.0) {
            plots.push(plot(row, quantity, &points, sides)?);
        }
    }
    Ok(plots)
}

fn goodput(report: &Report, run: &Run) -> Option<f64> {
    let seconds = run.seconds.or(report.seconds_a_side)?;
    let bits = figure::float(run.bytes) * 8.0;
    (bits > 0.0).then_some(bits / seconds / GB)
}

fn gigabits(value: f64) -> String {
    figure::with_unit(value, "Gb/s")
}

fn p99(_: &Report, run: &Run) -> Option<f64> {
    let latency = run.latency.as_ref()?;
    let nanoseconds = figure::float(latency.value_at_quantile(0.99));
    (nanoseconds > 0.0).then_some(nanoseconds)
}

fn points(report: &Report, row: &Row, of: fn(&Report, &Run) -> Option<f64>) -> Vec<Point> {
    let mut kinds: Vec<(&str, f64)> = Vec::new();
    for run in &row.runs {
        if let Some(offered) = run.offered
            && !kinds.contains(&(run.side.as_str(), offered))
        {
            kinds.push((&run.side, offered));
        }
    }
    kinds.sort_by(|a, b| a.1.total_cmp(&b.1));
    let point = |(side, offered): (&str, f64)| {
        let same = row
            .runs
            .iter()
            .filter(|run| run.side == side && run.offered == Some(offered));
        let values: Vec<f64> = same.filter_map(|run| of(report, run)).collect();
        Some(Point {
            side: side.to_owned(),
            offered,
            middle: median(values.iter().copied())?,
            low: values.iter().copied().min_by(f64::total_cmp)?,
            high: values.iter().copied().max_by(f64::total_cmp)?,
        })
    };
    kinds.into_iter().filter_map(point).collect()
}

fn plot(row: &Row, quantity: &Quantity, points: &[Point], sides: &Sides) -> Result<Plot> {
    let mut names: Vec<&str> = Vec::new();
    for point in points {
        if !names.contains(&point.side.as_str()) {
            names.push(&point.side);
        }
    }
    let (wide, narrow) = both(|size| drawing(size, quantity, points, &names, sides))?;
    let mut keys: Vec<Key> = names.iter().map(|side| sides.key(side)).collect();
    keys.push(Key {
        colour: INK,
        shape: Shape::Mark,
        text: "least to greatest of the pairs".into(),
    });
    let mut figures = Figures::new(&["offered", "side", "median", "low", "high"]);
    figures.rows.extend(points.iter().map(|point| {
        vec![
            figure::with_unit(point.offered, "requests/s"),
            point.side.clone(),
            (quantity.text)(point.middle),
            (quantity.text)(point.low),
            (quantity.text)(point.high),
        ]
    }));
    Ok(Plot {
        title: format!("{}: {}, {}", row.id, row.title(), quantity.title),
        description: format!(
            "{} over offered requests a second, one line for each side through the medians of the \
             pairs. The table below has the same figures.",
            quantity.axis
        ),
        keys,
        wide,
        narrow,
        figures,
    })
}

fn drawing(
    size: Size,
    quantity: &Quantity,
    points: &[Point],
    names: &[&str],
    sides: &Sides,
) -> Result<Drawing> {
    let most = points.iter().map(|point| point.offered).fold(0.0, f64::max);
    let low = points
        .iter()
        .map(|point| point.low)
        .fold(f64::MAX, f64::min);
    let high = points.iter().map(|point| point.high).fold(0.0, f64::max);
    let thousand = |tick: f64| (tick / 1e3).to_string();
    let x = Axis::linear(
        most,
        size.choose(10, 5),
        "offered, thousand requests/s",
        thousand,
    );
    let y = if quantity.logarithmic {
        Axis::logarithmic(low, high, 9, quantity.axis, tick)
    } else {
        Axis::linear(high, 8, quantity.axis, |tick| tick.to_string())
    };
    let room = Room::of_lines(size);
    canvas::draw(size, size.choose(320, 280), room, (&x, &y), |_, chart| {
        for side in names {
            let colour = sides.colour(side).light;
            let own = || points.iter().filter(|point| point.side == *side);
            let middle = |point: &Point| (point.offered, point.middle);
            let line = LineSeries::new(own().map(middle), colour.stroke_width(2));
            chart.draw_series(line).map_err(drawn)?;
            let dots = own().map(|point| Circle::new(middle(point), 4, colour.filled()));
            chart.draw_series(dots).map_err(drawn)?;
            let spread = own().map(|point| {
                let ends = vec![(point.offered, point.low), (point.offered, point.high)];
                PathElement::new(ends, INK.light.stroke_width(2))
            });
            chart.draw_series(spread).map_err(drawn)?;
        }
        Ok(())
    })
}
