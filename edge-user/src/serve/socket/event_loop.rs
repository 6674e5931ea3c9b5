//! The loop of the socket front: one thread that sleeps in one place.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use edge_ebpf::cookie::epoch_at;

use super::handler::Handler;
use crate::clock;
use crate::limits::{BOUNCES_PER_ROUND, SEND_RETRY_NS, TICK};
use crate::serve::bounce::BounceQueue;
use crate::sys::receive::{ReceiveRing, Unreadable};
use crate::sys::send::{SendQueue, SendRing};

#[derive(Debug)]
pub struct EventLoop {
    pub receive: ReceiveRing,
    pub state: SocketState,
    pub stop: Arc<AtomicBool>,
}

/// What is done before and after each sleep. Reads no clock.
#[derive(Debug)]
pub struct SocketState<Q = SendRing> {
    pub handler: Handler<Q>,
    bounce_queue: Arc<BounceQueue>,
    next_tick: Option<Instant>,
    more_bounced: bool,
}

impl EventLoop {
    /// Runs until `stop` is set.
    pub fn run(mut self) -> io::Result<()> {
        while !self.stop.load(Ordering::Acquire) {
            self.state.handler.cells.turns.add(1);
            let sleep = self.state.before_sleep(clock::now(), clock::unix_seconds());
            let Self { receive, state, .. } = &mut self;
            receive.wait(sleep, |datagram| match datagram {
                Ok(datagram) => state.handler.datagram(&datagram, clock::now()),
                Err(Unreadable) => state.handler.unreadable(),
            })?;
            self.state.after_sleep(clock::now());
        }
        self.state.handler.sender.flush();
        Ok(())
    }
}

impl<Q: SendQueue> SocketState<Q> {
    pub const fn new(handler: Handler<Q>, bounce_queue: Arc<BounceQueue>) -> Self {
        Self {
            handler,
            bounce_queue,
            next_tick: None,
            more_bounced: false,
        }
    }

    /// The work before a sleep; returns how long to sleep at most.
    pub fn before_sleep(&mut self, now: Instant, unix_seconds: u64) -> Duration {
        if self.next_tick.is_none_or(|due| due <= now) {
            self.handler.tick(epoch_at(unix_seconds), now);
            self.next_tick = Some(now + TICK);
        }
        self.handler.front.submit();
        self.handler.sender.flush();
        // A sleeping thread is quiescent.
        self.handler.reader.offline();
        if self.more_bounced || self.handler.front.completions() > 0 {
            Duration::ZERO
        } else if self.handler.sender.in_flight() > 0 {
            // The sends that the kernel could not take are submitted again soon, because they keep
            // this thread from being quiescent.
            Duration::from_nanos(SEND_RETRY_NS.unsigned_abs())
        } else {
            TICK
        }
    }

    /// The work after a sleep, except for datagrams.
    pub fn after_sleep(&mut self, now: Instant) {
        // Bounded, since workers may fill the bounce queue as fast as it is emptied (I9).
        let mut room = BOUNCES_PER_ROUND;
        while room > 0
            && let Some(request) = self.bounce_queue.take()
        {
            self.handler.bounced(&request, now);
            room -= 1;
        }
        self.more_bounced = room == 0;
        self.handler.complete(now);
    }
}
