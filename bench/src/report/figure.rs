//! Formats numbers: three significant digits, thousands separators, units.

use super::model::{Against, Better, Measure};

/// Bytes per GB (decimal).
pub(crate) const GB: f64 = 1e9;

/// Converts a count for division.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact up to 2^53, rounded by 10^-16 above"
)]
pub(crate) fn float(count: u64) -> f64 {
    count as f64
}

/// All digits.
pub(crate) fn count(count: u64) -> String {
    separated(&count.to_string())
}

/// Three significant digits, or all before the decimal point.
pub(crate) fn number(value: f64) -> String {
    let size = value.abs();
    if size >= 999.5 {
        return grouped(value);
    }
    let decimals = match size {
        0.0 => 0,
        _ if size >= 99.95 => 0,
        _ if size >= 9.995 => 1,
        _ if size >= 0.9995 => 2,
        _ if size >= 0.0995 => 3,
        _ => 4,
    };
    format!("{value:.decimals$}")
}

fn grouped(value: f64) -> String {
    let sign = if value < 0.0 { "-" } else { "" };
    sign.to_owned() + &separated(&format!("{:.0}", value.abs()))
}

fn separated(digits: &str) -> String {
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Nanoseconds and bytes get a suitable unit; other units are kept.
pub(super) fn with_unit(value: f64, unit: &str) -> String {
    let (divisor, unit) = match unit {
        "ns" if value >= 1e9 => (1e9, "s"),
        "ns" if value >= 1e6 => (1e6, "ms"),
        "ns" if value >= 1e3 => (1e3, "µs"),
        "B/s" if value >= 1e9 => (GB, "GB/s"),
        "B/s" if value >= 1e6 => (1e6, "MB/s"),
        unit => (1.0, unit),
    };
    format!("{} {unit}", number(value / divisor))
}

pub(crate) fn nanoseconds(value: f64) -> String {
    with_unit(value, "ns")
}

/// Of a share.
pub(crate) fn percent(share: f64) -> String {
    format!("{} %", number(share * 100.0))
}

/// Stands for a missing figure.
pub(super) fn none() -> String {
    "—".into()
}

pub(super) fn optional(value: Option<f64>, unit: &str) -> String {
    value.map_or_else(none, |value| with_unit(value, unit))
}

pub(super) fn measure(measure: &Measure) -> String {
    optional(measure.value, &measure.unit)
}

/// Three fifths are 0.6 and not 0.6000000000000001.
pub(super) fn tidy(value: f64) -> f64 {
    (value * 1e9).round() / 1e9
}

/// `1.62 (1.55 … 1.70)`, or why it is absent.
pub(super) fn ratio(against: &Against) -> String {
    match (&against.absent, against.ratio, against.low, against.high) {
        (Some(reason), ..) => format!("absent: {reason}"),
        (None, Some(ratio), Some(low), Some(high)) => interval(ratio, low, high),
        (None, ..) => none(),
    }
}

pub(super) fn interval(middle: f64, low: f64, high: f64) -> String {
    format!("{} ({} … {})", number(middle), number(low), number(high))
}

/// `≥ 1.5`
pub(super) fn target(against: &Against) -> String {
    let sign = match against.better {
        Better::Higher => "≥",
        Better::Lower => "≤",
    };
    against
        .target
        .map_or_else(none, |target| format!("{sign} {target}"))
}

/// In words, as not everyone distinguishes colours.
pub(super) fn met(met: Option<bool>) -> &'static str {
    match met {
        Some(true) => "met",
        Some(false) => "missed",
        None => "—",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_have_three_digits_or_all_before_the_point() {
        let rows = [
            (0.0, "0"),
            (0.0123, "0.0123"),
            (0.8612, "0.861"),
            (0.99999, "1.00"),
            (1.594, "1.59"),
            (9.999, "10.0"),
            (15.84, "15.8"),
            (99.97, "100"),
            (999.4, "999"),
            (999.9, "1,000"),
            (421_345.4, "421,345"),
            (-1_234_567.0, "-1,234,567"),
        ];
        for (value, text) in rows {
            assert_eq!(number(value), text);
        }
        assert_eq!((count(1), count(65_536)), ("1".into(), "65,536".into()));
        assert_eq!(nanoseconds(48_211.0), "48.2 µs");
        assert_eq!(nanoseconds(2.5e9), "2.50 s");
        assert_eq!(with_unit(2_478_210_581.0, "B/s"), "2.48 GB/s");
        assert_eq!(with_unit(434e6, "B/s"), "434 MB/s");
    }
}
