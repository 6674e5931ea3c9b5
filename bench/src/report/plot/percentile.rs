//! Latency by percentile: each step to the right is ten times rarer.

use anyhow::Result;
use hdrhistogram::Histogram;
use plotters::prelude::*;

use super::super::model::Row;
use super::super::{figure, latency};
use super::axis::Axis;
use super::canvas::{self, Drawing, Room, Size, drawn};
use super::palette::Sides;
use super::{Figures, Plot, both};

/// Up to 99.999 %.
const NINES_MAX: u32 = 5;
/// Points of a curve in each step of ten.
const POINTS_PER_NINE: u32 = 25;

/// One side, all its pairs in one.
struct Curve {
    side: String,
    latency: Histogram<u64>,
}

/// None for a row whose load changes: that one is drawn by load.
pub(super) fn plot(row: &Row, sides: &Sides) -> Result<Vec<Plot>> {
    let curves = curves(row);
    let loads = row.loads();
    if curves.is_empty() || loads.len() > 1 {
        return Ok(Vec::new());
    }
    let (wide, narrow) = both(|size| drawing(size, &curves, sides))?;
    let offered = loads
        .first()
        .map(|load| format!(", {} requests/s offered", figure::number(*load)));
    Ok(vec![Plot {
        title: format!("{}: {}{}", row.id, row.title(), offered.unwrap_or_default()),
        description:
            "Latency from the intended time of sending, by percentile, one curve for each \
                      side. Both axes are logarithmic. The table below has the same figures."
                .into(),
        keys: curves.iter().map(|curve| sides.key(&curve.side)).collect(),
        wide,
        narrow,
        figures: figures(&curves),
    }])
}

fn curves(row: &Row) -> Vec<Curve> {
    let mut names: Vec<&str> = Vec::new();
    for run in row.runs.iter().filter(|run| run.latency.is_some()) {
        if !names.contains(&run.side.as_str()) {
            names.push(&run.side);
        }
    }
    let merged = |side: &str| {
        let runs = row.runs.iter().filter(|run| run.side == side);
        let parts: Vec<_> = runs.filter_map(|run| run.latency.as_ref()).collect();
        latency::merged(&parts)
    };
    let curves = names.into_iter().map(|side| Curve {
        side: side.to_owned(),
        latency: merged(side),
    });
    curves.filter(|curve| !curve.latency.is_empty()).collect()
}

fn drawing(size: Size, curves: &[Curve], sides: &Sides) -> Result<Drawing> {
    let most = curves.iter().map(|curve| curve.latency.len()).max();
    let nines = nines(most.unwrap_or(1));
    let x = Axis::given(f64::from(nines), ticks(nines), "percentile, %");
    let lowest = curves.iter().map(|curve| curve.latency.min()).min();
    let highest = curves
        .iter()
        .filter_map(|curve| points(&curve.latency, nines).pop())
        .map(|(_, nanoseconds)| nanoseconds)
        .fold(1.0, f64::max);
    let lowest = figure::float(lowest.unwrap_or(1).max(1));
    let y = Axis::logarithmic(lowest, highest, 9, "latency", tick);
    let room = Room::of_lines(size);
    canvas::draw(size, size.choose(360, 300), room, (&x, &y), |_, chart| {
        for curve in curves {
            let points = points(&curve.latency, nines).into_iter();
            let line = LineSeries::new(
                points.map(|(x, nanoseconds)| (x, nanoseconds.max(lowest))),
                sides.colour(&curve.side).light.stroke_width(2),
            );
            chart.draw_series(line).map_err(drawn)?;
        }
        Ok(())
    })
}

/// Ticks are round: no digits after the point.
pub(super) fn tick(nanoseconds: f64) -> String {
    match nanoseconds {
        _ if nanoseconds < 1e3 => format!("{nanoseconds:.0} ns"),
        _ if nanoseconds < 1e6 => format!("{:.0} µs", nanoseconds / 1e3),
        _ if nanoseconds < 1e9 => format!("{:.0} ms", nanoseconds / 1e6),
        _ => format!("{:.0} s", nanoseconds / 1e9),
    }
}

/// How far to the right so many samples reach.
fn nines(samples: u64) -> u32 {
    samples.checked_ilog10().unwrap_or(0).clamp(2, NINES_MAX)
}

fn ticks(nines: u32) -> Vec<(f64, String)> {
    let labels = ["0", "90", "99", "99.9", "99.99", "99.999"];
    let decades = (0..=nines).map(f64::from).zip(labels.map(str::to_owned));
    decades.chain([(2_f64.log10(), "50".to_owned())]).collect()
}

/// Position and nanoseconds, as far as there are samples.
fn points(latency: &Histogram<u64>, nines: u32) -> Vec<(f64, f64)> {
    let reach = figure::float(latency.len()).log10();
    let positions = (0..=nines * POINTS_PER_NINE)
        .map(|index| f64::from(index) / f64::from(POINTS_PER_NINE))
        .take_while(|position| *position <= reach);
    positions
        .map(|position| {
            let quantile = 1.0 - 10_f64.powf(-position);
            (position, figure::float(latency.value_at_quantile(quantile)))
        })
        .collect()
}

fn figures(curves: &[Curve]) -> Figures {
    let mut figures = Figures::new(&[
        "side", "samples", "p50", "p90", "p99", "p99.9", "p99.99", "max",
    ]);
    for curve in curves {
        let latency = &curve.latency;
        let mut cells = vec![curve.side.clone(), figure::count(latency.len())];
        let quantiles = [0.5, 0.9, 0.99, 0.999, 0.9999, 1.0];
        cells.extend(quantiles.map(|quantile| at(latency, quantile)));
        figures.rows.push(cells);
    }
    figures
}

pub(in super::super) fn at(latency: &Histogram<u64>, quantile: f64) -> String {
    figure::nanoseconds(figure::float(latency.value_at_quantile(quantile)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_curve_ends_where_its_samples_end() {
        let mut hundred = latency::empty();
        for nanoseconds in 1..=100 {
            hundred.record(nanoseconds).expect("it grows");
        }
        let points = points(&hundred, 5);
        assert_eq!(points.first().map(|point| point.0), Some(0.0));
        assert_eq!(points.last().copied(), Some((2.0, 99.0)));
        assert_eq!(
            (nines(100), nines(1_000_000_000), nines(0)),
            (2, NINES_MAX, 2)
        );
    }
}
