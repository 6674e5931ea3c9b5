//! Line plots as SVG: latency by percentile, and goodput and p99 by offered load. The page's list
//! of runs has the same data as numbers.

use std::ops::Range;

use anyhow::{Result, anyhow};
use hdrhistogram::Histogram;
use plotters::coord::combinators::LogCoord;
use plotters::coord::ranged1d::{AsRangedCoord, ValueFormatter};
use plotters::prelude::*;

use super::assemble::median;
use super::figure::{self, GB, float};
use super::latency;
use super::model::{Report, Row, Run};

const SIZE: (u32, u32) = (800, 340);
/// Dark enough on white; the first is the edge's.
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x0b, 0x62, 0xb0),
    RGBColor(0xc4, 0x50, 0x0c),
    RGBColor(0x1a, 0x7f, 0x4b),
    RGBColor(0x8a, 0x3f, 0xb5),
    RGBColor(0x86, 0x6a, 0x00),
    RGBColor(0xb8, 0x2e, 0x74),
];
/// In plotters' units, 1.24 times those of SVG.
const TEXT: (&str, u32) = ("sans-serif", 15);
/// Percentiles are drawn up to 99.999 %.
const NINES_MAX: u32 = 5;
/// Points of a curve per decade.
const POINTS_PER_NINE: u32 = 25;

/// A plot of the page.
pub(super) struct Plot {
    pub(super) title: String,
    /// For screen readers.
    pub(super) description: String,
    pub(super) svg: String,
}

/// The line of one side.
struct Line<'a> {
    side: &'a str,
    points: Vec<Point>,
}

/// Median, minimum and maximum of the pairs; all equal without a spread.
#[derive(Clone, Copy)]
struct Point {
    x: f64,
    y: f64,
    low: f64,
    high: f64,
}

/// A scale, its title, and the format of its ticks.
struct Axis<S> {
    scale: S,
    title: &'static str,
    tick: fn(f64) -> String,
}

/// Latencies of rows with one load, by percentile: each step to the right is ten times rarer.
pub(super) fn percentiles(row: &Row) -> Result<Option<Plot>> {
    let merged = |side| {
        let runs = row.runs.iter().filter(|run| run.side == side);
        let parts: Vec<_> = runs.filter_map(|run| run.latency.as_ref()).collect();
        latency::merged(&parts)
    };
    let sides = sides(row).into_iter();
    let curves: Vec<_> = sides
        .map(|side| (side, merged(side)))
        .filter(|(_, latency)| !latency.is_empty())
        .collect();
    let loads = row.loads();
    if curves.is_empty() || loads.len() > 1 {
        return Ok(None);
    }
    let most = curves.iter().map(|(_, latency)| latency.len()).max();
    let nines = most.and_then(u64::checked_ilog10).unwrap_or(0);
    let nines = nines.clamp(2, NINES_MAX);
    let lines: Vec<Line> = curves
        .iter()
        .map(|(side, latency)| Line {
            side,
            points: curve(latency, nines),
        })
        .collect();
    let x = Axis {
        scale: (1.0..10_f64.powf(f64::from(nines))).log_scale(),
        title: "percentile, %",
        tick: |rarity| figure::tidy(100.0 - 100.0 / rarity).to_string(),
    };
    let offered = loads.first();
    let offered = offered.map(|load| format!(", {} requests/s offered", figure::number(*load)));
    let title = format!("{}: {}{}", row.id, row.title(), offered.unwrap_or_default());
    draw(title, "Latency by percentile", &lines, x, latencies(&lines)).map(Some)
}

/// As far as there are samples.
fn curve(latency: &Histogram<u64>, nines: u32) -> Vec<Point> {
    let rarities = (0..=nines * POINTS_PER_NINE)
        .map(|step| 10_f64.powf(f64::from(step) / f64::from(POINTS_PER_NINE)))
        .take_while(|rarity| *rarity <= float(latency.len()));
    rarities
        .map(|x| {
            let y = float(latency.value_at_quantile(1.0 - 1.0 / x).max(1));
            let [low, high] = [y; 2];
            Point { x, y, low, high }
        })
        .collect()
}

/// Rows with several loads.
pub(super) fn loads(report: &Report, row: &Row) -> Result<Vec<Plot>> {
    if row.loads().len() < 2 {
        return Ok(Vec::new());
    }
    let lines = |of: fn(&Report, &Run) -> Option<f64>| -> Vec<Line> {
        let lines = sides(row).into_iter().map(|side| Line {
            side,
            points: points(report, row, side, of),
        });
        lines.filter(|line| !line.points.is_empty()).collect()
    };
    let x = || Axis {
        scale: 0.0..row.loads().into_iter().fold(0.0, f64::max),
        title: "offered, thousand requests/s",
        tick: |offered| figure::tidy(offered / 1e3).to_string(),
    };
    let mut plots = Vec::new();
    let goodput = lines(goodput);
    if !goodput.is_empty() {
        let y = Axis {
            // Space above the lines for the legend.
            scale: 0.0..span(&goodput).end * 1.4,
            title: "goodput, Gb/s",
            tick: |gigabits| figure::tidy(gigabits).to_string(),
        };
        let title = format!("{}: {}, goodput by offered load", row.id, row.title());
        plots.push(draw(title, "Goodput by offered load", &goodput, x(), y)?);
    }
    let p99 = lines(p99);
    if !p99.is_empty() {
        let title = format!("{}: {}, p99 latency by offered load", row.id, row.title());
        let y = latencies(&p99);
        plots.push(draw(title, "p99 latency by offered load", &p99, x(), y)?);
    }
    Ok(plots)
}

fn goodput(report: &Report, run: &Run) -> Option<f64> {
    let seconds = run.seconds.or(report.seconds_a_side)?;
    let bits = float(run.bytes) * 8.0;
    (bits > 0.0).then_some(bits / seconds / GB)
}

fn p99(_: &Report, run: &Run) -> Option<f64> {
    let nanoseconds = float(run.latency.as_ref()?.value_at_quantile(0.99));
    (nanoseconds > 0.0).then_some(nanoseconds)
}

/// The line of one side, one point per load.
fn points(
    report: &Report,
    row: &Row,
    side: &str,
    of: fn(&Report, &Run) -> Option<f64>,
) -> Vec<Point> {
    let point = |load: f64| {
        let runs = row.runs.iter().filter(|run| run.side == side);
        let runs = runs.filter(|run| run.offered == Some(load));
        let values: Vec<f64> = runs.filter_map(|run| of(report, run)).collect();
        Some(Point {
            x: load,
            y: median(values.iter().copied())?,
            low: values.iter().copied().min_by(f64::total_cmp)?,
            high: values.iter().copied().max_by(f64::total_cmp)?,
        })
    };
    row.loads().into_iter().filter_map(point).collect()
}

/// In the order they ran.
pub(super) fn sides(row: &Row) -> Vec<&str> {
    let mut sides: Vec<&str> = Vec::new();
    for run in &row.runs {
        if !sides.contains(&run.side.as_str()) {
            sides.push(&run.side);
        }
    }
    sides
}

/// From minimum to maximum.
fn span(lines: &[Line]) -> Range<f64> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let low = points().map(|point| point.low).fold(f64::MAX, f64::min);
    low..points().map(|point| point.high).fold(0.0, f64::max)
}

fn latencies(lines: &[Line]) -> Axis<LogCoord<f64>> {
    let Range { start, end } = span(lines);
    Axis {
        // Space above the lines for the legend.
        scale: (start..end.max(start) * 10.0).log_scale().into(),
        title: "latency",
        tick: figure::nanoseconds,
    }
}

fn draw<X, Y>(title: String, what: &str, lines: &[Line], x: Axis<X>, y: Axis<Y>) -> Result<Plot>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let mut svg = String::new();
    paint(&mut svg, lines, x, y).map_err(|error| anyhow!("cannot draw: {error}"))?;
    let sides: Vec<&str> = lines.iter().map(|line| line.side).collect();
    Ok(Plot {
        title,
        description: format!("{what}, a line for each of: {}.", sides.join(", ")),
        svg,
    })
}

fn paint<X, Y>(
    svg: &mut String,
    lines: &[Line],
    x: Axis<X>,
    y: Axis<Y>,
) -> Result<(), Box<dyn std::error::Error>>
where
    X: AsRangedCoord<Value = f64>,
    Y: AsRangedCoord<Value = f64>,
    X::CoordDescType: ValueFormatter<f64>,
    Y::CoordDescType: ValueFormatter<f64>,
{
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .margin_right(35)
        .set_label_area_size(LabelAreaPosition::Left, 80)
        .set_label_area_size(LabelAreaPosition::Bottom, 45)
        .build_cartesian_2d(x.scale, y.scale)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .label_style(TEXT)
        .x_desc(x.title)
        .y_desc(y.title)
        .x_label_formatter(&|value| (x.tick)(*value))
        .y_label_formatter(&|value| (y.tick)(*value))
        .draw()?;
    for (index, line) in lines.iter().enumerate() {
        let colour = COLOURS[index % COLOURS.len()].stroke_width(2);
        let series = LineSeries::new(line.points.iter().map(|it| (it.x, it.y)), colour);
        let key = move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], colour);
        chart.draw_series(series)?.label(line.side).legend(key);
        let spread = line.points.iter().filter(|point| point.low < point.high);
        let spread =
            spread.map(|it| PathElement::new(vec![(it.x, it.low), (it.x, it.high)], colour));
        chart.draw_series(spread)?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(TEXT)
        .background_style(WHITE.mix(0.8))
        .draw()?;
    area.present()?;
    Ok(())
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
        let curve = curve(&hundred, 5);
        assert_eq!(curve.len(), 51);
        assert_eq!(curve.last().map(|point| point.y), Some(99.0));
    }
}
