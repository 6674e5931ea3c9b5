//! Faults of a running edge. Checked once a second by the main thread; read by `/ready`,
//! `edge stat`, the metrics and the service manager's watchdog.

use std::mem;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use crate::clock;
use crate::counters::Fault;
use crate::limits::STALLED_AFTER;

/// The faults of the last check, shared by all readers.
#[derive(Clone, Debug)]
pub struct Health(Arc<Mutex<Checked>>);

#[derive(Debug)]
struct Checked {
    interfaces: Vec<String>,
    faults: Vec<Fault>,
    at: Instant,
}

/// The answer of `/ready`.
#[derive(Debug, PartialEq, Eq)]
pub struct Readiness {
    pub ready: bool,
    /// A line for each fault. Not empty if not ready; if ready, the faults are those of some
    /// interfaces while others serve.
    pub reasons: Vec<String>,
}

impl Health {
    /// For an edge that serves these interfaces.
    pub fn of(interfaces: Vec<String>) -> Self {
        Self(Arc::new(Mutex::new(Checked {
            interfaces,
            faults: Vec::new(),
            at: clock::now(),
        })))
    }

    fn checked(&self) -> MutexGuard<'_, Checked> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Replaces the faults of the last check. Logs each fault that begins or ends, but not changes
    /// of its text.
    pub fn update(&self, found: Vec<Fault>) {
        let before = {
            let mut checked = self.checked();
            checked.at = clock::now();
            mem::replace(&mut checked.faults, found.clone())
        };
        for fault in found.iter().filter(|fault| !fault.is_among(&before)) {
            tracing::warn!("{}", fault.text);
        }
        for fault in before.iter().filter(|fault| !fault.is_among(&found)) {
            tracing::info!("over: {}", fault.text);
        }
    }

    pub fn faults(&self) -> Vec<Fault> {
        self.checked().faults.clone()
    }

    /// The edge is ready while at least one interface serves and there is no fault of the whole
    /// edge. A stalled main thread counts as a fault, because it would miss others.
    pub fn readiness(&self, now: Instant) -> Readiness {
        let checked = self.checked();
        let age = now.saturating_duration_since(checked.at);
        let unwatched = (age > STALLED_AFTER)
            .then(|| format!("the main thread has been stalled for {} s", age.as_secs()));
        let serves = |name: &String| {
            let faults = &checked.faults;
            !(faults.iter()).any(|fault| fault.interface.as_ref().is_none_or(|on| on == name))
        };
        let all_well = checked.faults.is_empty();
        Readiness {
            ready: unwatched.is_none() && (all_well || checked.interfaces.iter().any(serves)),
            reasons: (checked.faults.iter().map(|fault| fault.text.clone()))
                .chain(unwatched)
                .collect(),
        }
    }

    /// Whether there is no fault that a restart would remedy, for the service manager's watchdog.
    pub fn is_alive(&self) -> bool {
        let checked = self.checked();
        !checked
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
            interface: None,
            subject: subject.to_owned(),
            text: format!("{subject} is stalled"),
        }
    }

    fn now_ready(health: &Health) -> Readiness {
        health.readiness(clock::now())
    }

    #[test]
    fn a_fault_lasts_until_a_check_no_longer_finds_it() {
        let health = Health::of(vec!["eth0".to_owned()]);
        let well = Readiness {
            ready: true,
            reasons: Vec::new(),
        };
        assert!(now_ready(&health) == well && health.is_alive());
        health.update(vec![fault("worker-0"), fault("engine")]);
        health.update(vec![fault("engine")]);
        let found = now_ready(&health);
        assert!(!found.ready && found.reasons == ["engine is stalled"]);
        assert!(!health.is_alive());
        health.update(Vec::new());
        assert!(now_ready(&health) == well && health.is_alive());
    }

    #[test]
    fn an_edge_is_ready_while_one_interface_serves_and_there_is_no_fault_of_the_whole_edge() {
        let health = Health::of(vec!["eth0".to_owned(), "eth1".to_owned()]);
        let on = |name: &str| Fault {
            cause: Cause::LinkDown,
            interface: Some(name.to_owned()),
            subject: name.to_owned(),
            text: format!("{name} is down"),
        };
        health.update(vec![on("eth1")]);
        let found = now_ready(&health);
        assert!(
            found.ready && found.reasons == ["eth1 is down"],
            "{found:?}"
        );
        health.update(vec![on("eth0"), on("eth1")]);
        assert!(!now_ready(&health).ready);
        health.update(vec![on("eth1"), fault("engine")]);
        assert!(!now_ready(&health).ready);
    }

    #[test]
    fn an_edge_whose_health_is_not_checked_is_not_ready() {
        let health = Health::of(vec!["eth0".to_owned()]);
        health.update(Vec::new());
        let later = clock::now() + STALLED_AFTER + Duration::from_secs(2);
        let found = health.readiness(later);
        assert!(
            !found.ready && found.reasons[0].contains("main thread"),
            "{found:?}"
        );
    }
}
