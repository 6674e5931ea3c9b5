//! Compares two reports from one host: a difference counts if the two confidence intervals are
//! disjoint.
//!
//! They are not the ranges from minimum to maximum: those of three pairs are disjoint by chance in
//! one comparison of ten (docs/adr/0015).

use std::fmt;

use serde::Serialize;
use statrs::distribution::{ContinuousCDF as _, StudentsT};
use statrs::statistics::Statistics as _;

use super::assemble::{ratios, values_by_pair};
use super::model::{Better, EDGE, Host, Report, Row};
use super::table;
use super::{facts, figure};

/// The result of a comparison.
#[derive(Debug, Serialize)]
pub struct Comparison {
    a: Which,
    b: Which,
    /// Conditions other than the commit that changed
    notes: Vec<String>,
    rows: Vec<Difference>,
}

/// On unlike hosts, figures of the same name mean different things.
#[derive(Debug, thiserror::Error)]
#[error("these reports come from unlike hosts and are not compared: {}", .0.join("; "))]
pub struct UnlikeHosts(Vec<String>);

#[derive(Debug, Serialize)]
struct Which {
    commit: String,
    started: Option<String>,
}

/// One row of both reports.
#[derive(Debug, Serialize)]
struct Difference {
    id: String,
    name: String,
    /// Whether a ratio with a target moved by more than noise; without such a ratio, whether any
    /// did; without any ratio, the value
    more_than_noise: Option<bool>,
    figures: Vec<Figure>,
}

/// A ratio, or the edge's own value.
#[derive(Debug, Serialize)]
struct Figure {
    name: String,
    unit: Option<String>,
    better: Better,
    a: Option<Interval>,
    b: Option<Interval>,
    verdict: Verdict,
    #[serde(skip_serializing_if = "Option::is_none")]
    why: Option<String>,
}

/// The confidence level of the intervals.
const CONFIDENCE: f64 = 0.95;
/// Maximum distance of an interval's ends from its middle, as a logarithm: a factor of a million.
const REACH_MAX: f64 = 14.0;
/// Minimum: 0.1 %. Memory is counted in pages, so pairs are often equal.
const REACH_MIN: f64 = 0.001;

#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Interval {
    median: f64,
    low: f64,
    high: f64,
    pairs: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
enum Verdict {
    Better,
    Worse,
    Noise,
    Undecided,
}

impl Comparison {
    /// Matches rows by id.
    pub fn of(a: &Report, b: &Report) -> Result<Self, UnlikeHosts> {
        let unlike = unlike(&a.host, &b.host);
        if !unlike.is_empty() {
            return Err(UnlikeHosts(unlike));
        }
        let in_a = a.rows.iter().map(|row| {
            let other = b.rows.iter().find(|other| other.id == row.id);
            difference(Some(row), other, row)
        });
        let only_in_b = b
            .rows
            .iter()
            .filter(|row| a.rows.iter().all(|other| other.id != row.id))
            .map(|row| difference(None, Some(row), row));
        Ok(Self {
            a: which(a),
            b: which(b),
            notes: notes(a, b),
            rows: in_a.chain(only_in_b).collect(),
        })
    }
}

fn which(report: &Report) -> Which {
    Which {
        commit: report.commit.clone(),
        started: report.started.clone(),
    }
}

/// The properties that make two hosts incomparable.
fn unlike(a: &Host, b: &Host) -> Vec<String> {
    let mut pairs = vec![
        ("cpu_model".into(), a.cpu_model.clone(), b.cpu_model.clone()),
        ("cpus".into(), a.cpus.to_string(), b.cpus.to_string()),
        ("kernel".into(), a.kernel.clone(), b.kernel.clone()),
        ("driver".into(), a.driver.clone(), b.driver.clone()),
        (
            "mtu_bytes".into(),
            a.mtu_bytes.to_string(),
            b.mtu_bytes.to_string(),
        ),
        ("queues".into(), a.queues.to_string(), b.queues.to_string()),
    ];
    let state = |host: &Host, name: &str| match host.offloads.get(name) {
        Some(true) => "on".to_owned(),
        Some(false) => "off".to_owned(),
        None => "unknown".to_owned(),
    };
    let only_in_b = b
        .offloads
        .keys()
        .filter(|name| !a.offloads.contains_key(*name));
    for name in a.offloads.keys().chain(only_in_b) {
        pairs.push((format!("offload {name}"), state(a, name), state(b, name)));
    }
    pairs
        .into_iter()
        .filter(|(_, a, b)| a != b)
        .map(|(name, a, b)| format!("{name} is {a} in A and {b} in B"))
        .collect()
}

fn notes(a: &Report, b: &Report) -> Vec<String> {
    let sender = |report: &Report| report.sender.map_or("unknown", |sender| sender.name());
    let seconds = |report: &Report| {
        report
            .seconds_a_side
            .map_or_else(|| "unknown".into(), |seconds| format!("{seconds} s"))
    };
    let mut notes = Vec::new();
    let mut note = |what: &str, a: &str, b: &str| {
        if a != b {
            notes.push(format!("{what} is {a} in A and {b} in B"));
        }
    };
    note("the sender", sender(a), sender(b));
    note("the time each side ran", &seconds(a), &seconds(b));
    for (name, report) in [("A", a), ("B", b)] {
        if report.quick {
            notes.push(format!("{name} was a quick run: too short for claims"));
        }
    }
    for row in &a.rows {
        let other = b.rows.iter().find(|other| other.id == row.id);
        if other.is_some_and(|other| other.mode != row.mode) {
            notes.push(format!("the mode of {} is not the same in A and B", row.id));
        }
    }
    notes
}

/// `named` is the row that exists.
fn difference(a: Option<&Row>, b: Option<&Row>, named: &Row) -> Difference {
    // A fixed mark did not run: the ratio to it repeats the value.
    let sides = |row: Option<&Row>| -> Vec<String> {
        let against = row.map_or(&[][..], |row| &row.against);
        let sides = against
            .iter()
            .filter(|side| side.absent.is_some() || row.is_some_and(|row| ran(row, &side.name)));
        sides.map(|side| side.name.clone()).collect()
    };
    let mut peers = sides(a);
    for name in sides(b) {
        if !peers.contains(&name) {
            peers.push(name);
        }
    }
    let mut figures: Vec<Figure> = peers
        .iter()
        .map(|peer| {
            let (before, after) = (beside(a, peer), beside(b, peer));
            let better = better(a, peer).or(better(b, peer)).unwrap_or(named.better);
            figure(format!("ratio to {peer}"), None, better, before, after)
        })
        .collect();
    let unit = named.ours.unit.clone();
    let own = figure("value".into(), Some(unit), named.better, value(a), value(b));
    let wanted = |peer: &String| is_wanted(a, peer) || is_wanted(b, peer);
    let judged: Vec<&Figure> = if figures.is_empty() {
        vec![&own]
    } else if peers.iter().any(wanted) {
        let figures = peers.iter().zip(&figures);
        let figures = figures.filter(|(peer, _)| wanted(peer));
        figures.map(|(_, figure)| figure).collect()
    } else {
        figures.iter().collect()
    };
    let decided = || {
        let verdicts = judged.iter().map(|figure| figure.verdict);
        verdicts.filter(|verdict| *verdict != Verdict::Undecided)
    };
    let more_than_noise =
        (decided().count() > 0).then(|| decided().any(|verdict| verdict != Verdict::Noise));
    figures.push(own);
    Difference {
        id: named.id.clone(),
        name: named.title().to_owned(),
        more_than_noise,
        figures,
    }
}

/// An interval, or why there is none.
type Found = Result<Interval, String>;

fn beside(row: Option<&Row>, peer: &str) -> Found {
    let row = usable(row)?;
    let against = row.against.iter().find(|against| against.name == peer);
    let against = against.ok_or("has no such peer")?;
    if let Some(reason) = &against.absent {
        return Err(format!("has no such peer: {reason}"));
    }
    let median = against.ratio.ok_or("has no ratio")?;
    let [ours, theirs] = [EDGE, peer].map(|side| values_by_pair(&row.runs, side));
    Interval::of(median, &ratios(&ours, &theirs))
}

/// Whether the ratio to this side has a target.
fn is_wanted(row: Option<&Row>, side: &str) -> bool {
    let mut against = row.map_or(&[][..], |row| &row.against).iter();
    against.any(|against| against.name == side && against.target.is_some())
}

fn ran(row: &Row, side: &str) -> bool {
    row.runs.iter().any(|run| run.side == side)
}

fn value(row: Option<&Row>) -> Found {
    let row = usable(row)?;
    let median = row.ours.value.ok_or("has no runs")?;
    let values: Vec<f64> = values_by_pair(&row.runs, EDGE).into_values().collect();
    Interval::of(median, &values)
}

impl Interval {
    /// Student's t on logarithms: halving is as far from 1 as doubling.
    fn of(median: f64, values: &[f64]) -> Found {
        // The logarithm of 0 is undefined.
        if values
            .iter()
            .any(|value| !value.is_finite() || *value <= 0.0)
        {
            return Err("measured 0 in a pair".into());
        }
        let pairs = u32::try_from(values.len()).map_err(|error| error.to_string())?;
        let [mut low, mut high] = [median; 2];
        if pairs > 1 {
            let freedom = f64::from(pairs - 1);
            let t = StudentsT::new(0.0, 1.0, freedom).map_err(|error| error.to_string())?;
            let logarithms = || values.iter().map(|value| value.ln());
            let error = logarithms().std_dev() / f64::from(pairs).sqrt();
            let reach = t.inverse_cdf(f64::midpoint(CONFIDENCE, 1.0)) * error;
            if reach > REACH_MAX {
                return Err("measured pairs too far apart for an interval".into());
            }
            let reach = reach.max(REACH_MIN);
            let middle = logarithms().mean();
            [low, high] = [(middle - reach).exp(), (middle + reach).exp()];
        }
        Ok(Self {
            median,
            low,
            high,
            pairs,
        })
    }
}

fn usable(row: Option<&Row>) -> Result<&Row, String> {
    let row = row.ok_or("has no such row")?;
    if row.wrong > 0 {
        return Err(format!("delivered {} wrong", facts::chunks(row.wrong)));
    }
    if row.ours.value.is_none() {
        return Err("did not measure it".into());
    }
    if row.loads().len() > 1 {
        return Err("measured it at several loads".into());
    }
    Ok(row)
}

fn better(row: Option<&Row>, peer: &str) -> Option<Better> {
    let against = row?.against.iter().find(|against| against.name == peer);
    against.map(|against| against.better)
}

fn figure(name: String, unit: Option<String>, better: Better, a: Found, b: Found) -> Figure {
    let why = match (&a, &b) {
        (Err(reason), _) => Some(format!("A {reason}")),
        (Ok(_), Err(reason)) => Some(format!("B {reason}")),
        (Ok(a), Ok(b)) if a.pairs < 2 || b.pairs < 2 => {
            Some("one pair has no spread: measure two or more".into())
        }
        (Ok(_), Ok(_)) => None,
    };
    let (a, b) = (a.ok(), b.ok());
    let verdict = match (a, b) {
        (Some(a), Some(b)) if why.is_none() => verdict(a, b, better),
        _ => Verdict::Undecided,
    };
    Figure {
        name,
        unit,
        better,
        a,
        b,
        verdict,
        why,
    }
}

/// Touching intervals overlap.
fn verdict(a: Interval, b: Interval, better: Better) -> Verdict {
    let up = b.low > a.high;
    let down = b.high < a.low;
    match (up, down, better) {
        (true, _, Better::Higher) | (_, true, Better::Lower) => Verdict::Better,
        (true, _, Better::Lower) | (_, true, Better::Higher) => Verdict::Worse,
        (false, false, _) => Verdict::Noise,
    }
}

impl fmt::Display for Comparison {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, which) in [("A", &self.a), ("B", &self.b)] {
            let started = which.started.as_deref().unwrap_or("at an unknown time");
            writeln!(to, "{name}: {}, {started}", which.commit)?;
        }
        for note in &self.notes {
            writeln!(to, "note: {note}")?;
        }
        let mut table = table::plain();
        table.set_header([
            "row",
            "work",
            "figure",
            "A (95 % interval)",
            "B (95 % interval)",
            "B is",
        ]);
        for row in &self.rows {
            let mut head = [row.id.clone(), row.name.clone()];
            for figure in &row.figures {
                let cells = [
                    figure.name.clone(),
                    figure.text(figure.a),
                    figure.text(figure.b),
                    figure.words(),
                ];
                // The first line names the row.
                table.add_row(std::mem::take(&mut head).into_iter().chain(cells));
            }
        }
        writeln!(to, "\n{}\n", table.trim_fmt())?;
        self.sum_up(to, "more than noise", Some(true))?;
        self.sum_up(to, "within noise", Some(false))?;
        self.sum_up(to, "undecided", None)
    }
}

impl Comparison {
    fn sum_up(&self, to: &mut fmt::Formatter<'_>, what: &str, noise: Option<bool>) -> fmt::Result {
        let rows = self.rows.iter().filter(|row| row.more_than_noise == noise);
        let ids: Vec<&str> = rows.map(|row| row.id.as_str()).collect();
        if ids.is_empty() {
            return Ok(());
        }
        writeln!(to, "{what}: {}", ids.join(", "))
    }
}

impl Figure {
    fn text(&self, interval: Option<Interval>) -> String {
        let Some(Interval {
            median, low, high, ..
        }) = interval
        else {
            return "—".into();
        };
        let text = figure::interval(median, low, high);
        match &self.unit {
            Some(unit) => format!("{text} {unit}"),
            None => text,
        }
    }

    fn words(&self) -> String {
        match self.verdict {
            Verdict::Better => "better".into(),
            Verdict::Worse => "worse".into(),
            Verdict::Noise => "within noise".into(),
            Verdict::Undecided => {
                let why = self.why.as_deref().unwrap_or_default();
                format!("undecided: {why}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng as _;
    use rand::rngs::SmallRng;
    use rand_distr::{Distribution as _, LogNormal};

    use super::*;

    fn interval(low: f64, high: f64, pairs: u32) -> Interval {
        Interval {
            median: f64::midpoint(low, high),
            low,
            high,
            pairs,
        }
    }

    fn verdict_of(a: Found, b: Found, better: Better) -> (Verdict, Option<String>) {
        let figure = figure("ratio".into(), None, better, a, b);
        (figure.verdict, figure.why)
    }

    #[test]
    fn an_interval_is_of_students_t() {
        // Three values around 1, adjacent ones a factor of 1.1 apart: t is 4.303.
        let values = [1.0 / 1.1, 1.0, 1.1];
        let interval = Interval::of(1.0, &values).unwrap();
        let reach = 1.1_f64.ln() * 4.303 / 3.0_f64.sqrt();
        assert!((interval.high.ln() - reach).abs() < 1e-3, "{interval:?}");
        assert!((interval.low.ln() + reach).abs() < 1e-3, "{interval:?}");
        let same = Interval::of(0.5, &[0.5; 5]).unwrap();
        let width = (same.high / same.low).ln();
        assert!((width - 2.0 * REACH_MIN).abs() < 1e-9, "{same:?}");
        let one = Interval::of(0.5, &[0.5]).unwrap();
        assert_eq!((one.low, one.high, one.pairs), (0.5, 0.5, 1));
        assert!(Interval::of(0.5, &[0.0, 0.5, 1.0]).is_err());
        assert!(Interval::of(0.5, &[1e-9, 1e18]).is_err());
        assert!(Interval::of(0.5, &[0.5, 0.5 / 0.0]).is_err());
    }

    /// With two runs of the same build, one figure in two hundred differs.
    #[test]
    fn chance_alone_is_seldom_more_than_noise() {
        let mut random = SmallRng::seed_from_u64(3);
        let mut interval = || {
            let noise = LogNormal::new(0.0, 0.1).unwrap();
            let values: [f64; 3] = std::array::from_fn(|_| noise.sample(&mut random));
            Interval::of(1.0, &values)
        };
        let differs = (0..10_000)
            .filter(|_| verdict_of(interval(), interval(), Better::Higher).0 != Verdict::Noise)
            .count();
        assert!((20..100).contains(&differs), "{differs}");
    }

    #[test]
    fn a_page_of_memory_more_is_noise_and_a_hundredth_is_not() {
        let same = |value| Interval::of(value, &[value; 3]);
        let verdict = |value| verdict_of(same(2.656), same(value), Better::Lower).0;
        assert_eq!(verdict(2.656), Verdict::Noise);
        assert_eq!(verdict(2.6561), Verdict::Noise);
        assert_eq!(verdict(2.68), Verdict::Worse);
        assert_eq!(verdict(2.63), Verdict::Better);
    }

    #[test]
    fn only_disjoint_intervals_are_more_than_noise() {
        let a = || Ok(interval(1.0, 1.2, 3));
        let rows = [
            (1.3, 1.5, Verdict::Better, Verdict::Worse),
            (0.7, 0.9, Verdict::Worse, Verdict::Better),
            (1.1, 1.5, Verdict::Noise, Verdict::Noise),
            (0.5, 2.0, Verdict::Noise, Verdict::Noise),
            (1.2, 1.5, Verdict::Noise, Verdict::Noise),
        ];
        for (low, high, higher, lower) in rows {
            let b = || Ok(interval(low, high, 3));
            assert_eq!(
                verdict_of(a(), b(), Better::Higher),
                (higher, None),
                "{low} {high}"
            );
            assert_eq!(
                verdict_of(a(), b(), Better::Lower),
                (lower, None),
                "{low} {high}"
            );
        }
    }

    #[test]
    fn one_pair_or_no_figure_decides_nothing() {
        let (verdict, why) = verdict_of(
            Ok(interval(1.0, 1.0, 1)),
            Ok(interval(2.0, 2.0, 3)),
            Better::Higher,
        );
        assert_eq!(verdict, Verdict::Undecided);
        assert!(why.is_some_and(|why| why.starts_with("one pair")));
        let gone = Err("has no such row".into());
        let (verdict, why) = verdict_of(Ok(interval(1.0, 1.0, 3)), gone, Better::Higher);
        assert_eq!(verdict, Verdict::Undecided);
        assert_eq!(why.as_deref(), Some("B has no such row"));
    }
}
