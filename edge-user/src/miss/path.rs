//! The loop of the miss path: one thread, asleep in one place.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use edge_ebpf::cookie::epoch_at;

use super::desk::Desk;
use crate::clock;
use crate::inbox::Inbox;
use crate::limits::{BOUNCES_PER_ROUND, TICK};
use crate::sys::receive::{ReceiveRing, Unreadable};
use crate::sys::send::{SendQueue, SendRing};

/// How soon to look again for a slot that a worker has yet to let go.
const SLOT_WAIT: Duration = Duration::from_millis(1);

/// Everything the miss path works with.
#[derive(Debug)]
pub struct MissPath {
    pub receive: ReceiveRing,
    pub round: Round,
    pub stop: Arc<AtomicBool>,
}

/// What is done before and after each sleep. Knows no clock.
#[derive(Debug)]
pub struct Round<Q = SendRing> {
    pub desk: Desk<Q>,
    inbox: Arc<Inbox>,
    next_turn: Option<Instant>,
    more_bounced: bool,
}

impl MissPath {
    /// Runs until told to stop.
    pub fn run(mut self) -> io::Result<()> {
        while !self.stop.load(Ordering::Acquire) {
            self.round.desk.cells.turns.add(1);
            let sleep = self.round.begin(clock::now(), clock::unix_seconds());
            let Self { receive, round, .. } = &mut self;
            receive.wait(sleep, |datagram| match datagram {
                Ok(datagram) => round.desk.datagram(&datagram, clock::now()),
                Err(Unreadable) => round.desk.unreadable(),
            })?;
            self.round.end(clock::now());
        }
        self.round.desk.sender.flush();
        Ok(())
    }
}

impl<Q: SendQueue> Round<Q> {
    pub const fn new(desk: Desk<Q>, inbox: Arc<Inbox>) -> Self {
        Self {
            desk,
            inbox,
            next_turn: None,
            more_bounced: false,
        }
    }

    /// What is due, before a sleep; says how long that may be at most.
    pub fn begin(&mut self, now: Instant, unix_seconds: u64) -> Duration {
        if self.next_turn.is_none_or(|due| due <= now) {
            self.desk.turn(epoch_at(unix_seconds), now);
            self.next_turn = Some(now + TICK);
        }
        self.desk.sender.flush();
        self.desk.report();
        if self.more_bounced || self.desk.has_more() {
            Duration::ZERO
        } else if self.desk.parked.is_some() {
            SLOT_WAIT
        } else {
            TICK
        }
    }

    /// What has come meanwhile, but for datagrams.
    pub fn end(&mut self, now: Instant) {
        // Some, since workers may fill the inbox as fast as it is emptied (I9).
        let mut room = BOUNCES_PER_ROUND;
        while room > 0
            && let Some(request) = self.inbox.take()
        {
            self.desk.bounced(&request, now);
            room -= 1;
        }
        self.more_bounced = room == 0;
        self.desk.settle(now);
    }
}
