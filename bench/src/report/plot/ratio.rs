//! Ratios with their spread, on a logarithmic axis: twice and half are equally far from alike.

use anyhow::Result;

use super::super::figure;
use super::super::model::{Against, Report, Row};
use super::axis::Axis;
use super::bars::{self, Bar};
use super::palette::{BESIDE, INK, Key, MET, MISSED, Shape};
use super::{Figures, Plot, both};

pub(super) fn plot(report: &Report) -> Result<Option<Plot>> {
    // Over several loads the spread is no noise.
    let comparable = report.rows.iter().filter(|row| row.loads().len() < 2);
    let all: Vec<(&Row, &Against)> = comparable
        .flat_map(|row| row.against.iter().map(move |against| (row, against)))
        .filter(|(_, against)| against.low.is_some_and(|low| low > 0.0))
        .collect();
    if all.is_empty() {
        return Ok(None);
    }
    let bars: Vec<Bar> = all.iter().filter_map(|(row, one)| bar(row, one)).collect();
    let values = || {
        let ends = all
            .iter()
            .flat_map(|(_, one)| [one.low, one.high, one.target]);
        ends.flatten().filter(|value| *value > 0.0).chain([1.0])
    };
    let low = values().fold(1.0, f64::min);
    let high = values().fold(1.0, f64::max);
    let (wide, narrow) = both(|size| {
        let ticks = size.choose(10, 8);
        let title = "ratio, ours to theirs";
        let x = Axis::logarithmic(low, high, ticks, title, |tick| tick.to_string());
        bars::draw(size, &x, &bars)
    })?;
    Ok(Some(Plot {
        title: "Ours to theirs, with spread and target".into(),
        description: format!(
            "Bars of {} ratios from 1 to the median of the pairs, with the least and the greatest \
             ratio and the target. The table below has the same figures.",
            bars.len()
        ),
        keys: keys(),
        wide,
        narrow,
        figures: figures(&all),
    }))
}

fn bar(row: &Row, against: &Against) -> Option<Bar> {
    let ratio = against.ratio?;
    let colour = match against.met {
        Some(true) => MET,
        Some(false) => MISSED,
        None => BESIDE,
    };
    Some(Bar {
        name: format!("{} / {}", row.id, against.name),
        segments: vec![(ratio.min(1.0), ratio.max(1.0), colour)],
        spread: Some((against.low?, against.high?)),
        mark: against.target,
        text: figure::number(ratio),
    })
}

fn keys() -> Vec<Key> {
    [
        (MET, Shape::Bar, "met"),
        (MISSED, Shape::Bar, "missed"),
        (BESIDE, Shape::Bar, "no target"),
        (INK, Shape::Spread, "least to greatest of the pairs"),
        (INK, Shape::Mark, "target"),
    ]
    .map(|(colour, shape, text)| Key {
        colour,
        shape,
        text: text.into(),
    })
    .into()
}

fn figures(all: &[(&Row, &Against)]) -> Figures {
    let mut figures = Figures::new(&["row", "against", "ratio (low … high)", "target", "result"]);
    figures.rows.extend(all.iter().map(|(row, against)| {
        vec![
            row.id.clone(),
            against.name.clone(),
            figure::ratio(against),
            figure::target(against),
            figure::met(against.met).into(),
        ]
    }));
    figures
}
