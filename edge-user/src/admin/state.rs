//! The state of the request handlers.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::health::{Health, Readiness};
use crate::clock;
use crate::counters::Snapshot;

/// Takes a snapshot of all counters.
pub type SnapshotSource = Arc<dyn Fn() -> Snapshot + Send + Sync>;

/// Empty until the data plane runs.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) plane: Arc<OnceLock<(SnapshotSource, Health)>>,
    pub(super) closing: Arc<OnceLock<()>>,
}

impl State {
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        self.plane.get().map(|(source, _)| source())
    }

    pub(super) fn readiness(&self) -> Readiness {
        let not_ready = |reason: &str| Readiness {
            ready: false,
            reasons: vec![reason.to_owned()],
        };
        match self.plane.get() {
            None => not_ready("starting"),
            Some(_) if self.closing.get().is_some() => not_ready("stopping"),
            Some((_, health)) => health.readiness(clock::now()),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("State")
            .field("readiness", &self.readiness())
            .finish_non_exhaustive()
    }
}
