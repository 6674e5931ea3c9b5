//! Scales and their ticks.

use std::ops::{Range, RangeInclusive};

use plotters::coord::ranged1d::{
    KeyPointHint, KeyPointWeight, NoDefaultFormatting, Ranged, ValueFormatter,
};
use plotters::coord::types::RangedCoordf64;

/// From values to places.
#[derive(Clone)]
pub(super) struct Axis {
    scale: Scale,
    from: f64,
    to: f64,
    /// Value and label.
    ticks: Vec<(f64, String)>,
    title: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Scale {
    Linear,
    Logarithmic,
}

/// What a decade is divided into.
const STEPS: [f64; 3] = [1.0, 2.0, 5.0];
/// Farther than anything measured.
const DECADES: RangeInclusive<i32> = -9..=18;

impl Axis {
    /// From 0 to a tick above `max`.
    pub(super) fn linear(
        max: f64,
        tick_count_max: u32,
        title: &str,
        label: impl Fn(f64) -> String,
    ) -> Self {
        let fits = |step: &f64| max / step <= f64::from(tick_count_max);
        let step = steps().find(fits).unwrap_or(max);
        let last = (max / step).ceil().max(1.0);
        let ticks = (0..=tick_count_max)
            .map(f64::from)
            .take_while(|count| *count <= last)
            .map(|count| (count * step, label(tidy(count * step))))
            .collect();
        Self {
            scale: Scale::Linear,
            from: 0.0,
            to: last * step,
            ticks,
            title: title.to_owned(),
        }
    }

    /// From a tick below `low`, which is above 0, to a tick above `high`.
    pub(super) fn logarithmic(
        low: f64,
        high: f64,
        tick_count_max: usize,
        title: &str,
        label: impl Fn(f64) -> String,
    ) -> Self {
        let below = steps().take_while(|step| *step <= low).last();
        let above = steps().find(|step| *step >= high);
        let from = below.unwrap_or(low);
        let to = above.unwrap_or(high).max(from * 2.0);
        let within = |step: &f64| (from..=to).contains(step);
        let mut ticks: Vec<f64> = steps().filter(within).collect();
        for every in 1..=3 {
            let fewer: Vec<f64> = decades(every).filter(within).collect();
            // One tick is no scale.
            if ticks.len() > tick_count_max && fewer.len() > 1 {
                ticks = fewer;
            }
        }
        Self {
            scale: Scale::Logarithmic,
            from,
            to,
            ticks: ticks
                .into_iter()
                .map(|tick| (tick, label(tidy(tick))))
                .collect(),
            title: title.to_owned(),
        }
    }

    /// From 0, with ticks where the caller says.
    pub(super) fn given(to: f64, ticks: Vec<(f64, String)>, title: &str) -> Self {
        Self {
            scale: Scale::Linear,
            from: 0.0,
            to,
            ticks,
            title: title.to_owned(),
        }
    }

    pub(super) fn title(&self) -> &str {
        &self.title
    }

    /// On which all steps are alike.
    fn place(&self, value: f64) -> f64 {
        match self.scale {
            Scale::Linear => value,
            Scale::Logarithmic => value.log10(),
        }
    }
}

impl Ranged for Axis {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        let places = RangedCoordf64::from(self.place(self.from)..self.place(self.to));
        places.map(&self.place(*value), limit)
    }

    fn key_points<H: KeyPointHint>(&self, hint: H) -> Vec<f64> {
        match hint.weight() {
            KeyPointWeight::Bold => self.ticks.iter().map(|(value, _)| *value).collect(),
            // Lines between the ticks say nothing.
            KeyPointWeight::Any => Vec::new(),
        }
    }

    fn range(&self) -> Range<f64> {
        self.from..self.to
    }
}

impl ValueFormatter<f64> for Axis {
    /// The label of the tick there.
    fn format_ext(&self, value: &f64) -> String {
        let found = self
            .ticks
            .iter()
            .find(|(tick, _)| tick.total_cmp(value).is_eq());
        found.map_or_else(String::new, |(_, label)| label.clone())
    }
}

/// Three fifths are 0.6 and not 0.6000000000000001.
fn tidy(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

fn decades(every: usize) -> impl Iterator<Item = f64> {
    DECADES.step_by(every).map(|decade| 10_f64.powi(decade))
}

fn steps() -> impl Iterator<Item = f64> {
    decades(1).flat_map(|decade| STEPS.map(|step| step * decade))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(axis: &Axis) -> Vec<&str> {
        axis.ticks.iter().map(|(_, label)| label.as_str()).collect()
    }

    fn short(value: f64) -> String {
        value.to_string()
    }

    #[test]
    fn a_linear_axis_begins_at_zero_and_covers_all() {
        let axis = Axis::linear(23.0, 6, "", short);
        assert_eq!(values(&axis), ["0", "5", "10", "15", "20", "25"]);
        assert!(axis.to >= 23.0);
        assert_eq!(
            values(&Axis::linear(0.03, 4, "", short)),
            ["0", "0.01", "0.02", "0.03"]
        );
        let fifths = Axis::linear(1.0, 5, "", short);
        assert_eq!(values(&fifths), ["0", "0.2", "0.4", "0.6", "0.8", "1"]);
    }

    #[test]
    fn a_logarithmic_axis_covers_all_with_few_ticks() {
        let axis = Axis::logarithmic(0.4, 16.0, 8, "", short);
        assert_eq!(values(&axis), ["0.2", "0.5", "1", "2", "5", "10", "20"]);
        assert_eq!(axis.range(), 0.2..20.0);
        // Twice as much is equally far everywhere, but for rounding.
        let at = |value| axis.map(&value, (0, 2000));
        assert!((at(0.4) - at(0.2)).abs_diff(at(20.0) - at(10.0)) <= 1);
        let wide = Axis::logarithmic(900.0, 3e7, 6, "", short);
        assert_eq!(
            values(&wide),
            ["1000", "10000", "100000", "1000000", "10000000"]
        );
        let point = Axis::logarithmic(1.0, 1.0, 6, "", short);
        assert_eq!(values(&point), ["1", "2"]);
    }
}
