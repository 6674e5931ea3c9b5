//! What the handlers of requests know.

use std::fmt;
use std::sync::{Arc, OnceLock};

use super::health::Health;
use crate::clock;
use crate::counters::Snapshot;

/// Where a snapshot of all counters comes from, each time anew.
pub type SnapshotSource = Arc<dyn Fn() -> Snapshot + Send + Sync>;

/// What the handlers know: nothing, until the data plane runs.
#[derive(Clone, Default)]
pub(super) struct State {
    pub(super) plane: Arc<OnceLock<(SnapshotSource, Health)>>,
    pub(super) closing: Arc<OnceLock<()>>,
}

impl State {
    pub(super) fn snapshot(&self) -> Option<Snapshot> {
        self.plane.get().map(|(source, _)| source())
    }

    /// Why not, a line each; none when it is ready.
    pub(super) fn not_ready(&self) -> Vec<String> {
        match self.plane.get() {
            None => vec!["starting".to_owned()],
            Some(_) if self.closing.get().is_some() => vec!["stopping".to_owned()],
            Some((_, health)) => health.not_ready(clock::now()),
        }
    }
}

impl fmt::Debug for State {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("State")
            .field("not_ready", &self.not_ready())
            .finish_non_exhaustive()
    }
}
