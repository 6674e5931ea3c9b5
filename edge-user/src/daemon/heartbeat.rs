//! Whether the serving threads go on. Each counts its turns, also while it is idle: none of them
//! sleeps longer than a tick.

use std::time::Instant;

use crate::counters::{Cause, Fault};
use crate::limits::{STALLED_AFTER, STALLED_LOOKS};

/// One thread's turns, and when they were first seen to be as many.
#[derive(Debug)]
struct Seen {
    name: String,
    turns: u64,
    since: Instant,
    looks: u32,
}

/// The threads as of the last look.
#[derive(Debug, Default)]
pub(super) struct Heartbeats(Vec<Seen>);

impl Heartbeats {
    /// The threads, by name and number of turns, that have stood still for too long. Looks count
    /// beside time: when the whole process was stopped, its threads get the chance to go on.
    pub(super) fn stalled(
        &mut self,
        threads: impl Iterator<Item = (String, u64)>,
        now: Instant,
    ) -> Vec<Fault> {
        let before = std::mem::take(&mut self.0);
        self.0 = threads
            .map(|(name, turns)| {
                let same = |seen: &&Seen| seen.name == name && seen.turns == turns;
                let (since, looks) = (before.iter().find(same))
                    .map_or((now, 0), |seen| (seen.since, seen.looks + 1));
                Seen {
                    name,
                    turns,
                    since,
                    looks,
                }
            })
            .collect();
        let stalled = |seen: &&Seen| {
            seen.looks >= STALLED_LOOKS
                && now.saturating_duration_since(seen.since) >= STALLED_AFTER
        };
        self.0.iter().filter(stalled).map(fault).collect()
    }
}

fn fault(seen: &Seen) -> Fault {
    let name = &seen.name;
    Fault {
        cause: Cause::ThreadStalled,
        subject: name.clone(),
        text: format!(
            "the thread {name} stands still: /proc/PID/task/*/{{comm,wchan,stack}} show where; \
             restart edged unless it goes on by itself"
        ),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::clock;

    const SECOND: Duration = Duration::from_secs(1);

    /// Looks once for each number of turns, a second apart; says who is stalled after the last.
    fn stalled_after(turns: &[[u64; 2]]) -> Vec<String> {
        let mut heartbeats = Heartbeats::default();
        let mut now = clock::now();
        let mut found = Vec::new();
        for [worker, filler] in turns {
            let threads = [
                ("worker-0".to_owned(), *worker),
                ("filler".to_owned(), *filler),
            ];
            found = heartbeats.stalled(threads.into_iter(), now);
            now += SECOND;
        }
        found.into_iter().map(|fault| fault.subject).collect()
    }

    #[test]
    fn a_thread_without_a_turn_is_found_and_let_off_when_it_goes_on() {
        let mut looks: Vec<[u64; 2]> = (0..=STALLED_AFTER.as_secs())
            .map(|turn| [7, turn])
            .collect();
        assert_eq!(stalled_after(&looks[1..]), [""; 0], "too early to know");
        assert_eq!(stalled_after(&looks), ["worker-0"]);
        looks.push([8, 99]);
        assert_eq!(stalled_after(&looks), [""; 0]);
    }

    #[test]
    fn a_process_that_was_stopped_as_a_whole_has_no_stalled_thread() {
        let mut heartbeats = Heartbeats::default();
        let thread = || [("filler".to_owned(), 7)].into_iter();
        let now = clock::now();
        assert!(heartbeats.stalled(thread(), now).is_empty());
        assert!(heartbeats.stalled(thread(), now + 60 * SECOND).is_empty());
    }
}
