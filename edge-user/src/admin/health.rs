//! What keeps a running edge from serving as it should. Judged once a second by the look-after
//! loop; read by `/ready`, `edge stat`, the metrics and the service manager's watchdog.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::clock;
use crate::counters::Fault;
use crate::limits::STALLED_AFTER;

/// The faults of the last look, shared by all who ask.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<Checked>>);

#[derive(Debug)]
struct Checked {
    faults: Vec<Fault>,
    at: Instant,
}

impl Default for Health {
    fn default() -> Self {
        let (faults, at) = (Vec::new(), clock::now());
        Self(Arc::new(Mutex::new(Checked { faults, at })))
    }
}

impl Health {
    fn judged(&self) -> MutexGuard<'_, Checked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the faults of the last look by those of this one. The log gets a line for each
    /// that is new and for each that is over; a change of its text alone is no news.
    pub fn judge(&self, found: Vec<Fault>) {
        let before = {
            let mut judged = self.judged();
            judged.at = clock::now();
            mem::replace(&mut judged.faults, found.clone())
        };
        for fault in found.iter().filter(|fault| !fault.is_among(&before)) {
            tracing::warn!("{}", fault.text);
        }
        for fault in before.iter().filter(|fault| !fault.is_among(&found)) {
            tracing::info!("over: {}", fault.text);
        }
    }

    pub fn faults(&self) -> Vec<Fault> {
        self.judged().faults.clone()
    }

    /// Why the edge is not ready, a line each; none when it is. A look-after loop that stands
    /// still is a reason too, because faults go unnoticed then.
    pub fn not_ready(&self, now: Instant) -> Vec<String> {
        let judged = self.judged();
        let age = now.saturating_duration_since(judged.at);
        let unwatched = (age > STALLED_AFTER)
            .then(|| format!("the main thread has stood still for {} s", age.as_secs()));
        let texts = judged.faults.iter().map(|fault| fault.text.clone());
        texts.chain(unwatched).collect()
    }

    /// No fault that a restart would remedy: what the service manager's watchdog asks.
    pub fn is_alive(&self) -> bool {
        let judged = self.judged();
        !judged
            .faults
            .iter()
            .any(|fault| fault.cause.wants_restart())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::counters::Cause;

    fn fault(subject: &str) -> Fault {
        Fault {
            cause: Cause::ThreadStalled,
            subject: subject.to_owned(),
            text: format!("{subject} stands still"),
        }
    }

    #[test]
    fn a_fault_lasts_until_a_look_no_longer_finds_it() {
        let health = Health::default();
        assert!(health.not_ready(clock::now()).is_empty() && health.is_alive());
        health.judge(vec![fault("worker-0"), fault("filler")]);
        health.judge(vec![fault("filler")]);
        assert_eq!(health.not_ready(clock::now()), ["filler stands still"]);
        assert!(!health.is_alive());
        health.judge(Vec::new());
        assert!(health.not_ready(clock::now()).is_empty() && health.is_alive());
    }

    #[test]
    fn an_edge_that_nobody_looks_after_is_not_ready() {
        let health = Health::default();
        health.judge(Vec::new());
        let later = clock::now() + STALLED_AFTER + Duration::from_secs(2);
        let reasons = health.not_ready(later);
        assert!(reasons[0].contains("main thread"), "{reasons:?}");
    }
}
