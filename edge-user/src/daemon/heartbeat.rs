//! Detects stalled threads. Each serving thread counts the turns of its loop, even while idle: none
//! sleeps longer than a tick.

use std::time::Instant;

use super::observe::Heartbeat;
use crate::counters::{Cause, Fault};
use crate::limits::{STALLED_AFTER, STALLED_CHECKS};

/// A thread's turns, since when they have not changed, and over how many checks.
struct Seen {
    heartbeat: Heartbeat,
    since: Instant,
    checks: u32,
}

/// The threads as of the last check.
#[derive(Default)]
pub(super) struct Heartbeats(Vec<Seen>);

impl Heartbeats {
    /// The threads without a turn for too long. Checks count as well as time, so that the threads
    /// of a process that was stopped as a whole get a chance to continue.
    pub(super) fn stalled(&mut self, threads: Vec<Heartbeat>, now: Instant) -> Vec<Fault> {
        let before = std::mem::take(&mut self.0);
        self.0 = threads
            .into_iter()
            .map(|heartbeat| {
                let same = |seen: &&Seen| {
                    seen.heartbeat.thread == heartbeat.thread
                        && seen.heartbeat.turns == heartbeat.turns
                };
                let (since, checks) = (before.iter().find(same))
                    .map_or((now, 0), |seen| (seen.since, seen.checks + 1));
                Seen {
                    heartbeat,
                    since,
                    checks,
                }
            })
            .collect();
        let stalled = |seen: &&Seen| {
            seen.checks >= STALLED_CHECKS
                && now.saturating_duration_since(seen.since) >= STALLED_AFTER
        };
        self.0.iter().filter(stalled).map(fault).collect()
    }
}

fn fault(seen: &Seen) -> Fault {
    let Heartbeat { thread, queue, .. } = &seen.heartbeat;
    let serves = (queue.as_ref())
        .map(|(interface, queue)| format!(" (queue {queue} of {interface})"))
        .unwrap_or_default();
    Fault {
        cause: Cause::ThreadStalled,
        interface: queue.as_ref().map(|(interface, _)| interface.clone()),
        subject: thread.clone(),
        text: format!(
            "the thread {thread} is stalled{serves}: /proc/PID/task/*/{{comm,wchan,stack}} show where; \
             restart edged unless it continues"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    fn heartbeat(thread: &str, turns: u64) -> Heartbeat {
        Heartbeat {
            thread: thread.to_owned(),
            queue: None,
            turns,
        }
    }

    /// Checks once for each row of turns, a second apart; returns the threads stalled at the end.
    fn stalled_after(turns: &[[u64; 2]]) -> Vec<String> {
        let mut heartbeats = Heartbeats::default();
        let mut now = clock::now();
        let mut found = Vec::new();
        for [worker, engine] in turns {
            let threads = vec![heartbeat("worker-0", *worker), heartbeat("engine", *engine)];
            found = heartbeats.stalled(threads, now);
            now += SECOND;
        }
        found.into_iter().map(|fault| fault.subject).collect()
    }

    #[test]
    fn a_thread_without_a_turn_is_stalled_until_it_has_one() {
        let mut turns: Vec<[u64; 2]> = (0..=STALLED_AFTER.as_secs())
            .map(|turn| [7, turn])
            .collect();
        assert_eq!(stalled_after(&turns[1..]), [""; 0], "too early");
        assert_eq!(stalled_after(&turns), ["worker-0"]);
        turns.push([8, 99]);
        assert_eq!(stalled_after(&turns), [""; 0]);
    }

    #[test]
    fn a_process_that_was_stopped_as_a_whole_has_no_stalled_thread() {
        let mut heartbeats = Heartbeats::default();
        let thread = || vec![heartbeat("engine", 7)];
        let now = clock::now();
        assert!(heartbeats.stalled(thread(), now).is_empty());
        assert!(heartbeats.stalled(thread(), now + 60 * SECOND).is_empty());
    }
}
