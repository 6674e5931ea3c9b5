//! The result as a sentence.

use humantime::format_duration;

use super::search::End;
use super::step::{Limits, Missed, Step};
use crate::report::assemble::median;
use crate::report::figure::{self, GB, float};

/// The share of the rate to plan with: the rest is for peaks, failures of neighbours and what the
/// measurement did not include.
const PLANNED: f64 = 0.7;
/// A link counts as full from this share of its bits on: headers take the rest.
const LINK_FULL: f64 = 0.85;

/// What limited the rate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Bound {
    /// The generator: the figure is a lower bound.
    Generator,
    /// The generator's own link, likewise.
    Link,
    /// The edge or the path to it: the generator cannot distinguish them.
    Beyond(Option<Missed>),
    /// The maximum rate, or the number of steps.
    End(End),
}

/// The steps at the rate found, as medians.
pub(super) struct Found {
    pub(super) rate: f64,
    pub(super) goodput: f64,
    pub(super) loss: f64,
    pub(super) p99_ns: f64,
    pub(super) bound: Bound,
}

impl Found {
    /// `steps` are all steps of the search.
    pub(super) fn new(
        rate: f64,
        end: End,
        steps: &[Step],
        limits: &Limits,
        link_mbit: Option<f64>,
    ) -> Self {
        let at = || steps.iter().filter(move |step| same(step.rate, rate));
        let middle = |figure: fn(&Step) -> f64| median(at().map(figure)).unwrap_or(0.0);
        let goodput = middle(Step::goodput);
        // The steps at the next higher rate, most of which failed.
        let above = steps.iter().filter(|step| step.rate > rate);
        let next = above.clone().map(|step| step.rate).reduce(f64::min);
        let failed = || {
            let next = above.clone().filter(|step| Some(step.rate) == next);
            next.filter(|step| step.missed(limits).is_some())
        };
        let bound = if end != End::Failed {
            Bound::End(end)
        } else if failed().any(Step::is_own_limit) {
            Bound::Generator
        } else if link_mbit.is_some_and(|mbit| goodput * 8.0 >= mbit * 1e6 * LINK_FULL) {
            Bound::Link
        } else {
            Bound::Beyond(failed().find_map(|step| step.missed(limits)))
        };
        Self {
            rate,
            goodput,
            loss: middle(|step| step.tally.loss()),
            p99_ns: middle(|step| float(step.p99_ns())),
            bound,
        }
    }

    pub(super) fn sentence(&self, chunk_bytes: f64, limits: &Limits) -> String {
        let least = match self.bound {
            Bound::Beyond(_) => "",
            Bound::Generator | Bound::Link | Bound::End(_) => "at least ",
        };
        let gbit = |goodput: f64| figure::number(goodput * 8.0 / GB);
        let rate = format!(
            "{} Gb/s ({} GB/s, {} chunks/s of {} KiB)",
            gbit(self.goodput),
            figure::number(self.goodput / GB),
            figure::number(self.rate),
            figure::number(chunk_bytes / 1024.0),
        );
        format!(
            "This edge serves {least}{rate} to this generator with {} loss and a 99th percentile \
             of {}, within the limits of {} and {}; size a POP for {} of it: {} Gb/s. {}",
            figure::percent(self.loss),
            figure::nanoseconds(self.p99_ns),
            given(limits.loss_max),
            format_duration(limits.p99_max),
            given(PLANNED),
            gbit(self.goodput * PLANNED),
            self.why(),
        )
    }

    fn why(&self) -> String {
        match self.bound {
            Bound::Generator => "The generator was saturated: use a faster machine, with \
                                 more --threads, or several."
                .into(),
            Bound::Link => "The generator's own link was full: use several machines.".into(),
            Bound::Beyond(missed) => format!(
                "The bound is the edge or the path to it: a higher rate missed {}.",
                words(missed)
            ),
            Bound::End(End::Most) => "No higher rate was tried (--rate-max).".into(),
            Bound::End(End::Steps | End::Failed) => {
                "The steps contradict each other and the search was stopped: repeat it on quiet \
                 machines."
                    .into()
            }
        }
    }
}

/// One line per step.
pub(super) fn line(step: &Step, limits: &Limits) -> String {
    let outcome = match step.missed(limits) {
        None if step.tally.wrong > 0 => "WRONG CHUNKS".into(),
        None => "holds".into(),
        missed => format!("misses {}", words(missed)),
    };
    let remark = |count, what| match count {
        0 => String::new(),
        count => format!("; {} {what}", figure::count(count)),
    };
    let dropped = remark(step.dropped, "datagrams dropped here");
    let refused = remark(step.tally.refused, "refusals");
    format!(
        "{:>9} chunks/s: goodput {} Gb/s, loss {}, p99 {}, generator {:.0} % busy: \
         {outcome}{dropped}{refused}",
        figure::number(step.rate),
        figure::number(step.goodput() * 8.0 / GB),
        figure::percent(step.tally.loss()),
        figure::nanoseconds(float(step.p99_ns())),
        step.busy * 100.0,
    )
}

/// No rate succeeds.
pub(super) fn nothing(rate: f64, steps: &[Step], limits: &Limits) -> String {
    let missed = steps.iter().find_map(|step| step.missed(limits));
    format!(
        "no rate keeps within {} loss and {}: even {} chunks/s missed {}; check the path, and that \
         the edge has this content",
        given(limits.loss_max),
        format_duration(limits.p99_max),
        figure::number(rate),
        words(missed),
    )
}

/// A share as given, not measured: 0.001 is 0.1 %.
fn given(share: f64) -> String {
    format!("{} %", (share * 1e6).round() / 1e4)
}

fn words(missed: Option<Missed>) -> &'static str {
    match missed {
        Some(Missed::Offer) => "its schedule: chunks fell due faster than they could be requested",
        Some(Missed::Loss) => "the limit of loss",
        Some(Missed::Latency) => "the limit of latency",
        None => "nothing",
    }
}

/// Rates are only compared with themselves.
pub(super) fn same(a: f64, b: f64) -> bool {
    a.total_cmp(&b).is_eq()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::step::tests::{LIMITS, step};
    use super::*;

    fn slow(rate: u32) -> Step {
        let mut slow = step(rate);
        for _ in 0..rate {
            slow.tally.latency(Duration::from_millis(80));
        }
        slow
    }

    #[test]
    fn the_sentence_has_rate_limits_and_what_to_plan_with() {
        let steps = [step(22_300), slow(23_000), slow(23_000), step(22_300)];
        let found = Found::new(22_300.0, End::Failed, &steps, &LIMITS, None);
        assert_eq!(found.bound, Bound::Beyond(Some(Missed::Latency)));
        assert_eq!(
            found.sentence(131_072.0, &LIMITS),
            "This edge serves 23.4 Gb/s (2.92 GB/s, 22,300 chunks/s of 128 KiB) to this generator \
             with 0 % loss and a 99th percentile of 8.00 ms, within the limits of 0.1 % and 50ms; \
             size a POP for 70 % of it: 16.4 Gb/s. The bound is the edge or the path \
             to it: a higher rate missed the limit of latency."
        );
    }

    #[test]
    fn a_limit_of_this_side_makes_it_a_lower_bound() {
        let mut own = slow(2000);
        own.busy = 0.97;
        let steps = [step(1000), own];
        let found = Found::new(1000.0, End::Failed, &steps, &LIMITS, None);
        assert_eq!(found.bound, Bound::Generator);
        let sentence = found.sentence(131_072.0, &LIMITS);
        assert!(sentence.contains("serves at least 1.05 Gb/s"), "{sentence}");

        // 1000 chunks a second are 1.05 Gb/s.
        let steps = [step(1000), slow(2000)];
        let bound = |mbit| Found::new(1000.0, End::Failed, &steps, &LIMITS, Some(mbit)).bound;
        assert_eq!(bound(1_200.0), Bound::Link);
        assert_eq!(bound(10_000.0), Bound::Beyond(Some(Missed::Latency)));
        let asked = Found::new(1000.0, End::Most, &steps, &LIMITS, None);
        assert_eq!(asked.bound, Bound::End(End::Most));
    }

    #[test]
    fn a_step_is_a_line() {
        let mut step = slow(1000);
        (step.dropped, step.tally.refused) = (12, 3456);
        assert_eq!(
            line(&step, &LIMITS),
            "    1,000 chunks/s: goodput 1.05 Gb/s, loss 0 %, p99 80.0 ms, generator 50 % busy: \
             misses the limit of latency; 12 datagrams dropped here; 3,456 refusals"
        );
    }
}
