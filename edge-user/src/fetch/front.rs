//! A front's end of the engine: its waiting requests, and the queues between the two.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use edge_ebpf::wire::ChunkId;

use super::flights::{Failure, Flights, Outcome, Waiter};
use super::source::Source;
use crate::limits::{ABSENT_FOR, FAILED_FOR};
use crate::sys::wake::Wake;

/// What the engine is asked to do.
#[derive(Debug)]
pub enum Command {
    /// Have the chunk resident, and tell this front.
    Fetch {
        front: usize,
        id: ChunkId,
        source: Source,
    },
}

/// What came of a [`Command::Fetch`]. A chunk that was published may be evicted again before its
/// front looks it up.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    pub id: ChunkId,
    pub result: Result<(), Failure>,
}

/// Asks the engine for chunks, for requests of any kind. A flight of this front is one command, or
/// one completion, or under way in the engine: so neither queue ever overflows.
#[derive(Debug)]
pub struct Front<W> {
    number: usize,
    flights: Flights<W>,
    commands: Arc<ArrayQueue<Command>>,
    completions: Arc<ArrayQueue<Completion>>,
    engine: Wake,
    /// Commands that the engine was not woken for.
    unsubmitted: bool,
}

/// A flight that ended.
#[derive(Debug)]
pub struct Landed<W> {
    /// Whether the chunk was published.
    pub result: Result<(), Failure>,
    pub waiters: Vec<W>,
}

impl<W: Waiter> Front<W> {
    pub(super) fn new(
        number: usize,
        commands: Arc<ArrayQueue<Command>>,
        completions: Arc<ArrayQueue<Completion>>,
        engine: Wake,
    ) -> Self {
        Self {
            number,
            flights: Flights::default(),
            commands,
            completions,
            engine,
            unsubmitted: false,
        }
    }

    /// A request for a chunk that is not resident: whether it waits, or why not.
    pub fn request(&mut self, request: W, now: Instant) -> Outcome {
        let (id, source) = (request.chunk(), Source::of(&request.client()));
        let outcome = self.flights.request(request, now);
        if outcome == Outcome::Start {
            let front = self.number;
            let pushed = self.commands.push(Command::Fetch { front, id, source });
            assert!(
                pushed.is_ok(),
                "there is room for every flight of every front"
            );
            self.unsubmitted = true;
        }
        outcome
    }

    /// Wakes the engine, if there is something new for it.
    pub fn submit(&mut self) {
        if std::mem::take(&mut self.unsubmitted) {
            self.engine.wake();
        }
    }

    /// The next flight that ended. A chunk that could not be had is not asked for again for a while.
    pub fn landed(&mut self, now: Instant) -> Option<Landed<W>> {
        let Completion { id, result } = self.completions.pop()?;
        let waiters = match result {
            Ok(()) => self.flights.land(&id),
            Err(failure) => {
                let time = match failure {
                    Failure::Absent => ABSENT_FOR,
                    Failure::Unreachable => FAILED_FOR,
                };
                self.flights.fail(&id, failure, now, time)
            }
        };
        Some(Landed { result, waiters })
    }

    /// Flights that [`Self::landed`] has something of.
    pub fn completions(&self) -> usize {
        self.completions.len()
    }

    /// Lets go of requests whose time is over; says how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        self.flights.expire(now)
    }

    /// Chunks that were asked for, and whose end was not taken in yet.
    pub fn in_flight(&self) -> usize {
        self.flights.in_flight()
    }
}
