//! A front's interface to the engine: its waiting requests, and the queues between the two.

use std::sync::Arc;
use std::time::Instant;

use crossbeam::queue::ArrayQueue;
use edge_ebpf::wire::ChunkId;

use super::flights::{Failure, Flights, Outcome, Waiter};
use super::source::Source;
use crate::event_fd::EventFd;
use crate::limits::{ABSENT_FOR, FAILED_FOR};

/// A request to the engine.
#[derive(Debug)]
pub enum Command {
    /// Make the chunk resident and send this front a completion.
    Fetch {
        front: usize,
        id: ChunkId,
        source: Source,
    },
}

/// The result of a [`Command::Fetch`]. A published chunk may be evicted again before its front
/// looks it up.
#[derive(Clone, Copy, Debug)]
pub struct Completion {
    pub id: ChunkId,
    pub result: Result<(), Failure>,
}

/// Requests chunks from the engine. A flight is one command, one completion or one fetch in the
/// engine, so neither queue can overflow.
#[derive(Debug)]
pub struct Front<W> {
    number: usize,
    flights: Flights<W>,
    commands: Arc<ArrayQueue<Command>>,
    completions: Arc<ArrayQueue<Completion>>,
    engine: EventFd,
    /// There are commands that the engine was not woken for.
    unsubmitted: bool,
}

/// A flight that has ended.
#[derive(Debug)]
pub struct Completed<W> {
    /// `Ok` if the chunk was published.
    pub result: Result<(), Failure>,
    pub waiters: Vec<W>,
}

impl<W: Waiter> Front<W> {
    pub(super) fn new(
        number: usize,
        commands: Arc<ArrayQueue<Command>>,
        completions: Arc<ArrayQueue<Completion>>,
        engine: EventFd,
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

    /// Submits a request for a chunk that is not resident.
    pub fn request(&mut self, request: W, now: Instant) -> Outcome {
        let (id, source) = (request.chunk(), Source::of(&request.client()));
        let outcome = self.flights.request(request, now);
        if outcome == Outcome::Start {
            let front = self.number;
            let pushed = self.commands.push(Command::Fetch { front, id, source });
            assert!(
                pushed.is_ok(),
                "the queue has room for every flight of every front"
            );
            self.unsubmitted = true;
        }
        outcome
    }

    /// Wakes the engine if there are new commands.
    pub fn submit(&mut self) {
        if std::mem::take(&mut self.unsubmitted) {
            self.engine.wake();
        }
    }

    /// The next flight that has ended. A failed one enters the negative cache.
    pub fn next_completed(&mut self, now: Instant) -> Option<Completed<W>> {
        let Completion { id, result } = self.completions.pop()?;
        let waiters = match result {
            Ok(()) => self.flights.complete(&id),
            Err(failure) => {
                let time = match failure {
                    Failure::Absent => ABSENT_FOR,
                    Failure::Unreachable => FAILED_FOR,
                };
                self.flights.fail(&id, failure, now, time)
            }
        };
        Some(Completed { result, waiters })
    }

    /// Flights ready for [`Self::next_completed`].
    pub fn completions(&self) -> usize {
        self.completions.len()
    }

    /// Drops expired requests; returns how many.
    pub fn expire(&mut self, now: Instant) -> usize {
        self.flights.expire(now)
    }

    /// Flights whose completion has not been taken yet.
    pub fn in_flight(&self) -> usize {
        self.flights.in_flight()
    }
}
