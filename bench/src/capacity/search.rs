//! The search for the highest rate within the limits: chooses the next rate and decides when to
//! stop. It knows neither clock nor network.

/// Steps at the candidate rate; most of them must succeed.
const CONFIRMATIONS: u32 = 3;
/// Upper bound on all steps.
pub(super) const STEPS_MAX: u32 = 60;

/// Start and end of the search.
#[derive(Clone, Copy, Debug)]
pub(super) struct Plan {
    pub(super) first: f64,
    /// No higher rate is tried.
    pub(super) most: Option<f64>,
    /// Stop when the lowest rate that failed is above the highest that succeeded by at most this
    /// share.
    pub(super) precision: f64,
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Next {
    Try(f64),
    Done(Outcome),
}

#[derive(Clone, Copy, PartialEq, Debug)]
pub(super) enum Outcome {
    Found {
        rate: f64,
        end: End,
    },
    /// Even the lowest rate failed.
    Nothing,
}

/// Why the next higher rate is not the result.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum End {
    /// It failed.
    Failed,
    /// It is above the maximum.
    Most,
    /// The number of steps ran out before the result was certain.
    Steps,
}

#[derive(Debug)]
pub(super) struct Search {
    plan: Plan,
    /// Rates that succeeded, ascending, all below `failed`.
    held: Vec<f64>,
    /// The lowest that failed.
    failed: Option<f64>,
    phase: Phase,
    steps: u32,
}

#[derive(Clone, Copy, Debug)]
enum Phase {
    Seek { rate: f64, failed_once: bool },
    Confirm { rate: f64, held: u32, failed: u32 },
    Done(Outcome),
}

impl Search {
    pub(super) fn new(plan: Plan) -> Self {
        let rate = plan.most.map_or(plan.first, |most| plan.first.min(most));
        Self {
            plan,
            held: Vec::new(),
            failed: None,
            phase: Phase::Seek {
                rate,
                failed_once: false,
            },
            steps: 0,
        }
    }

    pub(super) fn next(&self) -> Next {
        match self.phase {
            Phase::Done(outcome) => Next::Done(outcome),
            Phase::Seek { .. } | Phase::Confirm { .. } if self.steps >= STEPS_MAX => {
                let best = self.held.last().copied();
                Next::Done(best.map_or(Outcome::Nothing, |rate| Outcome::Found {
                    rate,
                    end: End::Steps,
                }))
            }
            Phase::Seek { rate, .. } | Phase::Confirm { rate, .. } => Next::Try(rate),
        }
    }

    /// Takes the result of the step that [`Search::next`] named.
    pub(super) fn note(&mut self, holds: bool) {
        self.steps += 1;
        match &mut self.phase {
            Phase::Seek { rate, .. } if holds => {
                self.held.push(*rate);
                self.phase = self.seek();
            }
            // One failure may be chance, such as other work on this host.
            Phase::Seek { failed_once, .. } if !*failed_once => *failed_once = true,
            Phase::Seek { rate, .. } => {
                self.failed = Some(*rate);
                self.phase = self.seek();
            }
            Phase::Confirm { rate, held, failed } => {
                *held += u32::from(holds);
                *failed += u32::from(!holds);
                let rate = *rate;
                if *failed > CONFIRMATIONS / 2 {
                    self.failed = Some(rate);
                    self.held.retain(|held| *held < rate);
                    self.phase = self.seek();
                } else if *held + *failed == CONFIRMATIONS {
                    let end = self.failed.map_or(End::Most, |_| End::Failed);
                    self.phase = Phase::Done(Outcome::Found { rate, end });
                }
            }
            Phase::Done(_) => {}
        }
    }

    /// Doubles until a rate fails, then bisects.
    fn seek(&self) -> Phase {
        let Some(low) = self.held.last().copied() else {
            return Phase::Done(Outcome::Nothing);
        };
        let rate = match (self.failed, self.plan.most) {
            (Some(high), _) if high - low <= low * self.plan.precision => low,
            (Some(high), _) => f64::midpoint(low, high),
            (None, Some(most)) => (low * 2.0).min(most),
            (None, None) => low * 2.0,
        };
        if rate > low {
            return Phase::Seek {
                rate,
                failed_once: false,
            };
        }
        Phase::Confirm {
            rate: low,
            held: 0,
            failed: 0,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAN: Plan = Plan {
        first: 64.0,
        most: None,
        precision: 0.05,
    };

    /// Searches a system that answers for a rate and the number of the step.
    fn search(plan: Plan, holds: impl Fn(f64, u32) -> bool) -> (Outcome, Vec<f64>) {
        let mut search = Search::new(plan);
        let mut tried = Vec::new();
        loop {
            match search.next() {
                Next::Done(outcome) => return (outcome, tried),
                Next::Try(rate) => {
                    assert!(tried.len() < STEPS_MAX as usize, "does not terminate");
                    search.note(holds(rate, u32::try_from(tried.len()).unwrap()));
                    tried.push(rate);
                }
            }
        }
    }

    fn found(outcome: Outcome) -> (f64, End) {
        match outcome {
            Outcome::Found { rate, end } => (rate, end),
            Outcome::Nothing => panic!("no rate found"),
        }
    }

    #[test]
    fn the_limit_of_a_steady_system_is_found_within_the_precision() {
        for limit in [64.0, 65.0, 100.0, 1000.0, 22_300.0, 1e6] {
            let (outcome, tried) = search(PLAN, |rate, _| rate <= limit);
            let (rate, end) = found(outcome);
            assert!(rate <= limit && limit <= rate * 1.05, "{rate} of {limit}");
            assert_eq!(end, End::Failed);
            assert!(tried.ends_with(&[rate, rate, rate]), "{tried:?}");
            // Never far above the limit: an overload gives no information.
            assert!(tried.iter().all(|rate| *rate <= limit * 2.0), "{tried:?}");
        }
    }

    #[test]
    fn one_step_that_fails_by_chance_changes_nothing() {
        let calm = search(PLAN, |rate, _| rate <= 5000.0);
        for chance in 0..10 {
            let shaken = search(PLAN, |rate, step| rate <= 5000.0 && step != chance);
            assert_eq!(shaken.0, calm.0, "step {chance}");
        }
    }

    #[test]
    fn a_rate_that_held_once_by_chance_is_not_the_answer() {
        // Above 1000 a step succeeds only sometimes.
        let (outcome, tried) = search(PLAN, |rate, step| rate <= 1000.0 || step % 5 == 4);
        let (rate, end) = found(outcome);
        assert!(rate <= 1000.0, "{rate} after {tried:?}");
        assert_eq!(end, End::Failed);
    }

    #[test]
    fn nothing_is_the_answer_where_even_the_lowest_rate_fails() {
        let (outcome, tried) = search(PLAN, |_, _| false);
        assert_eq!((outcome, tried), (Outcome::Nothing, vec![64.0; 2]));
        // It succeeded once and never again.
        let (outcome, _) = search(PLAN, |_, step| step == 0);
        assert_eq!(outcome, Outcome::Nothing);
    }

    #[test]
    fn no_rate_above_the_most_is_tried() {
        let plan = Plan {
            most: Some(1000.0),
            ..PLAN
        };
        let (outcome, tried) = search(plan, |_, _| true);
        assert_eq!(found(outcome), (1000.0, End::Most));
        assert!(tried.ends_with(&[1000.0; 4]), "{tried:?}");
        let low = Plan {
            most: Some(10.0),
            ..PLAN
        };
        let (outcome, tried) = search(low, |_, _| true);
        assert_eq!((found(outcome).0, tried), (10.0, vec![10.0; 4]));
    }

    #[test]
    fn the_search_ends_even_if_the_steps_contradict_each_other() {
        let (outcome, tried) = search(PLAN, |_, _| true);
        assert_eq!(found(outcome).1, End::Steps);
        assert_eq!(tried.len(), STEPS_MAX as usize);
        // Steps contradict each other forever.
        for period in 2..7 {
            let (_, tried) = search(PLAN, |_, step| step % period != 0);
            assert!(tried.len() <= STEPS_MAX as usize);
        }
    }
}
