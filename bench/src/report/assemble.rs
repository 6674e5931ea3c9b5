//! From runs to medians, ratios and verdicts. Programs that measure compute none of these.

use std::collections::BTreeMap;

use super::check::{self, Fault};
use super::facts;
use super::model::{Against, Better, EDGE, Measure, Measured, Report, Row, Run, Runs, Target};

/// Compares every row.
pub fn assemble(runs: Runs) -> Result<Report, Fault> {
    runs.try_map(Row::from_runs)
}

impl Row {
    /// Pairs are matched by number. A side that no target names is shown without a target.
    pub fn from_runs(measured: Measured) -> Result<Self, Fault> {
        check::runs(&measured.id, &measured.unit, &measured.runs)?;
        check::targets(&measured)?;
        let ours = values_by_pair(&measured.runs, EDGE);
        let wrong = wrong_chunks(&measured.runs, EDGE);
        let mut against = Vec::new();
        for target in measured.targets.iter().cloned().chain(unnamed(&measured)) {
            against.push(beside(&measured, target, &ours, wrong)?);
        }
        let median = median(ours.values().copied());
        Ok(Self {
            ours: Measure {
                value: if wrong > 0 { Some(0.0) } else { median },
                unit: measured.unit,
            },
            met: all_met(&against),
            pairs: u32::try_from(ours.len()).unwrap_or(u32::MAX),
            wrong,
            against,
            id: measured.id,
            name: measured.name,
            work: measured.work,
            better: measured.better,
            saturated: measured.saturated,
            mode: measured.mode,
            note: measured.note,
            runs: measured.runs,
        })
    }
}

/// Sides that ran and have no target.
fn unnamed(measured: &Measured) -> Vec<Target> {
    let mut found: Vec<Target> = Vec::new();
    for run in &measured.runs {
        let known = run.side == EDGE
            || measured
                .targets
                .iter()
                .any(|target| target.name == run.side)
            || found.iter().any(|target| target.name == run.side);
        if !known {
            found.push(Target {
                name: run.side.clone(),
                ..Target::default()
            });
        }
    }
    found
}

/// The edge beside one other.
fn beside(
    measured: &Measured,
    target: Target,
    ours: &BTreeMap<u32, f64>,
    wrong: u64,
) -> Result<Against, Fault> {
    let better = target.better.unwrap_or(measured.better);
    let mut theirs = values_by_pair(&measured.runs, &target.name);
    if let Some(mark) = target.theirs {
        theirs = ours.keys().map(|pair| (*pair, mark)).collect();
    }
    let absent = target
        .absent
        .clone()
        .or_else(|| void(&measured.runs, &target.name, &measured.unit));
    let mut against = Against {
        theirs: None,
        ratio: None,
        low: None,
        high: None,
        target: target.target,
        better,
        met: None,
        pairs: 0,
        absent,
        name: target.name,
    };
    if against.absent.is_some() {
        return Ok(against);
    }
    against.theirs = target.theirs.or_else(|| median(theirs.values().copied()));
    if ours.is_empty() {
        return Ok(against);
    }
    let mut ratios = ratios(ours, &theirs);
    if wrong > 0 {
        ratios.fill(0.0);
    }
    if ratios.is_empty() {
        let problem = format!(
            "the edge and {} ran in no pair together: give their runs, or say why in `absent`",
            against.name
        );
        return Err(Fault::in_row(&measured.id, "runs", problem));
    }
    against.pairs = u32::try_from(ratios.len()).unwrap_or(u32::MAX);
    against.ratio = median(ratios.iter().copied());
    against.low = ratios.iter().copied().min_by(f64::total_cmp);
    against.high = ratios.iter().copied().max_by(f64::total_cmp);
    against.met = is_met(&against, wrong);
    Ok(against)
}

/// Why runs of a peer cannot be compared.
fn void(runs: &[Run], side: &str, unit: &str) -> Option<String> {
    let wrong = wrong_chunks(runs, side);
    if wrong > 0 {
        return Some(format!("it delivered {} wrong", facts::chunks(wrong)));
    }
    let zero = runs
        .iter()
        .find(|run| run.side == side && run.value <= 0.0)?;
    Some(format!("it measured 0 {unit} in pair {}", zero.pair))
}

/// Our value divided by theirs, for each pair that both have.
pub(super) fn ratios(ours: &BTreeMap<u32, f64>, theirs: &BTreeMap<u32, f64>) -> Vec<f64> {
    ours.iter()
        .filter_map(|(pair, ours)| Some(ours / theirs.get(pair)?))
        .collect()
}

pub(super) fn values_by_pair(runs: &[Run], side: &str) -> BTreeMap<u32, f64> {
    runs.iter()
        .filter(|run| run.side == side)
        .map(|run| (run.pair, run.value))
        .collect()
}

fn wrong_chunks(runs: &[Run], side: &str) -> u64 {
    runs.iter()
        .filter(|run| run.side == side)
        .map(|run| run.wrong)
        .fold(0, u64::saturating_add)
}

/// Whether the median ratio meets the target. A row with corrupt chunks meets none.
/// also where less is better.
fn is_met(against: &Against, wrong: u64) -> Option<bool> {
    let (ratio, target) = (against.ratio?, against.target?);
    let good = match against.better {
        Better::Higher => ratio >= target,
        Better::Lower => ratio <= target,
    };
    Some(good && wrong == 0)
}

/// Missed if any target is missed; unknown if any cannot be decided, or if there is none.
fn all_met(against: &[Against]) -> Option<bool> {
    let wanted = || against.iter().filter(|against| against.target.is_some());
    if wanted().any(|against| against.met == Some(false)) {
        return Some(false);
    }
    let all = wanted().count() > 0 && wanted().all(|against| against.met == Some(true));
    all.then_some(true)
}

/// The median.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.into_iter().collect();
    values.sort_by(f64::total_cmp);
    let upper = *values.get(values.len() / 2)?;
    if values.len().is_multiple_of(2) {
        return Some(f64::midpoint(values[values.len() / 2 - 1], upper));
    }
    Some(upper)
}

#[cfg(test)]
mod tests {
    use super::super::model::{Cpu, Sides};
    use super::*;

    fn run(side: &str, pair: u32, value: f64) -> Run {
        Run {
            side: side.into(),
            pair,
            value,
            unit: "Gb/s".into(),
            ..Run::default()
        }
    }

    fn measured(targets: &[Target], runs: &[Run]) -> Measured {
        Measured {
            id: "P1".into(),
            name: "bulk".into(),
            work: "whole chunks".into(),
            unit: "Gb/s".into(),
            better: Better::Higher,
            mode: BTreeMap::new(),
            saturated: None,
            note: None,
            targets: targets.to_vec(),
            runs: runs.to_vec(),
        }
    }

    fn target(name: &str, target: f64) -> Target {
        Target {
            name: name.into(),
            target: Some(target),
            ..Target::default()
        }
    }

    fn row(targets: &[Target], runs: &[Run]) -> Row {
        Row::from_runs(measured(targets, runs)).expect("the runs are good")
    }

    fn refused(measured: Measured) -> String {
        Row::from_runs(measured)
            .expect_err("is refused")
            .to_string()
    }

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two() {
        assert_eq!(median([3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median([4.0, 1.0, 2.0, 3.0]), Some(2.5));
        assert_eq!(median([]), None);
    }

    #[test]
    fn ratios_are_taken_pair_by_pair() {
        // The ratio of the medians would be 20 / 10; that of the pairs is 30 / 12.
        let runs = [
            run("edge", 1, 20.0),
            run("nginx", 1, 10.0),
            run("nginx", 2, 12.0),
            run("edge", 2, 30.0),
            run("edge", 3, 18.0),
            run("nginx", 3, 6.0),
        ];
        let row = row(&[target("nginx", 2.5)], &runs);
        let nginx = &row.against[0];
        assert_eq!((row.ours.value, nginx.theirs), (Some(20.0), Some(10.0)));
        assert_eq!(nginx.ratio, Some(2.5));
        assert_eq!((nginx.low, nginx.high), (Some(2.0), Some(3.0)));
        assert_eq!((row.pairs, nginx.pairs), (3, 3));
        assert_eq!((nginx.met, row.met), (Some(true), Some(true)));
    }

    #[test]
    fn where_less_is_better_a_lower_ratio_meets() {
        let runs = [run("edge", 1, 10.0), run("off", 1, 20.0)];
        for (wanted, met) in [(0.5, true), (0.4, false)] {
            let lower = Target {
                better: Some(Better::Lower),
                ..target("off", wanted)
            };
            assert_eq!(row(&[lower], &runs).met, Some(met), "{wanted}");
        }
    }

    #[test]
    fn a_row_is_met_when_all_of_its_targets_are() {
        let runs = [
            run("edge", 1, 10.0),
            run("nginx", 1, 5.0),
            run("bare", 1, 20.0),
        ];
        let met = |targets: &[Target]| row(targets, &runs).met;
        assert_eq!(
            met(&[target("nginx", 2.0), target("bare", 0.5)]),
            Some(true)
        );
        assert_eq!(
            met(&[target("nginx", 2.0), target("bare", 0.9)]),
            Some(false)
        );
        // Figures that only stand beside decide nothing.
        assert_eq!(met(&[target("nginx", 2.0)]), Some(true));
        assert_eq!(met(&[]), None);
    }

    #[test]
    fn an_absent_peer_leaves_the_row_untold_unless_another_is_missed() {
        let runs = [run("edge", 1, 10.0), run("nginx", 1, 5.0)];
        let knot = Target {
            absent: Some("knot is not installed".into()),
            ..target("knot", 2.0)
        };
        let compared = row(&[target("nginx", 2.0), knot.clone()], &runs);
        assert_eq!(
            (compared.against[1].ratio, compared.against[1].met),
            (None, None)
        );
        assert_eq!(compared.met, None);
        assert_eq!(row(&[target("nginx", 3.0), knot], &runs).met, Some(false));
    }

    #[test]
    fn a_side_that_no_target_names_stands_beside() {
        let runs = [run("edge", 1, 10.0), run("bare", 1, 20.0)];
        let row = row(&[], &runs);
        assert_eq!(row.against[0].name, "bare");
        assert_eq!(
            (row.against[0].ratio, row.against[0].met),
            (Some(0.5), None)
        );
    }

    #[test]
    fn wrong_chunks_count_as_nothing_delivered_whichever_way_is_better() {
        let mut ours = run("edge", 1, 10.0);
        ours.wrong = 1;
        let runs = [
            ours,
            run("nginx", 1, 5.0),
            run("edge", 2, 10.0),
            run("nginx", 2, 5.0),
        ];
        for better in [Better::Higher, Better::Lower] {
            let wanted = Target {
                better: Some(better),
                ..target("nginx", 3.0)
            };
            let row = row(&[wanted], &runs);
            assert_eq!((row.ours.value, row.wrong), (Some(0.0), 1));
            assert_eq!(row.against[0].ratio, Some(0.0));
            assert_eq!(row.met, Some(false), "{better:?}");
        }
    }

    #[test]
    fn a_peer_that_delivered_wrong_bytes_or_nothing_is_absent() {
        let mut theirs = run("nginx", 1, 5.0);
        theirs.wrong = 7;
        let row = row(
            &[target("nginx", 1.0), target("knot", 1.0)],
            &[run("edge", 1, 10.0), theirs, run("knot", 1, 0.0)],
        );
        let reasons = row.against.iter().map(|against| against.absent.as_deref());
        let wanted = [
            "it delivered 7 chunks wrong",
            "it measured 0 Gb/s in pair 1",
        ];
        assert!(reasons.eq(wanted.map(Some)));
        assert_eq!(row.met, None);
    }

    #[test]
    fn a_fixed_mark_is_compared_like_a_peer() {
        let mark = Target {
            theirs: Some(8.0),
            better: Some(Better::Lower),
            ..target("limit", 1.0)
        };
        let row = row(&[mark], &[run("edge", 1, 4.0), run("edge", 2, 6.0)]);
        let limit = &row.against[0];
        assert_eq!((limit.theirs, limit.ratio), (Some(8.0), Some(0.625)));
        assert_eq!((limit.low, limit.high), (Some(0.5), Some(0.75)));
        assert_eq!(row.met, Some(true));
    }

    #[test]
    fn a_row_that_was_not_measured_says_why() {
        let mut not_built = measured(&[target("nginx", 2.0)], &[]);
        assert!(refused(not_built.clone()).contains("row P1: note: "));
        not_built.note = Some("not built yet".into());
        let row = Row::from_runs(not_built).expect("has a reason");
        assert_eq!((row.ours.value, row.met, row.pairs), (None, None, 0));
        assert_eq!(row.against[0].ratio, None);
    }

    #[test]
    fn bad_runs_are_refused_by_row_and_field() {
        let good = [run("edge", 1, 10.0), run("nginx", 1, 5.0)];
        let with = |change: &dyn Fn(&mut Measured)| {
            let mut measured = measured(&[target("nginx", 2.0)], &good);
            change(&mut measured);
            refused(measured)
        };
        let twice = with(&|row| row.runs.push(run("nginx", 1, 6.0)));
        assert_eq!(twice, "row P1: runs[2].pair: nginx ran in pair 1 before");
        let unit = with(&|row| row.runs[1].unit = "MB/s".into());
        assert_eq!(unit, "row P1: runs[1].unit: MB/s is not the row's Gb/s");
        let negative = with(&|row| row.runs[0].value = -1.0);
        assert!(
            negative.starts_with("row P1: runs[0].value: "),
            "{negative}"
        );
        for beyond in [1e-320, 1e308] {
            let beyond = with(&|row| row.runs[1].value = beyond);
            assert!(beyond.ends_with("is not from 1e-9 to 1e18"), "{beyond}");
        }
        let used = with(&|row| {
            let server = Some(Cpu {
                system_seconds: 1e300,
                ..Cpu::default()
            });
            row.runs[0].cpu = Some(Sides {
                server,
                client: None,
            });
        });
        assert!(used.starts_with("row P1: runs[0].cpu: "), "{used}");
        let silent = with(&|row| row.targets.push(target("knot", 1.0)));
        assert!(silent.starts_with("row P1: targets[1]: "), "{silent}");
        let both = with(&|row| row.targets[0].absent = Some("gone".into()));
        assert!(both.starts_with("row P1: targets[0].absent: "), "{both}");
        let apart = with(&|row| row.runs[1].pair = 2);
        assert!(apart.starts_with("row P1: runs: "), "{apart}");
    }
}
