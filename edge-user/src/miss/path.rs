//! The loop of the miss path: one thread, asleep in one place.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use edge_ebpf::cookie::epoch_at;

use super::desk::Desk;
use crate::clock;
use crate::inbox::Inbox;
use crate::limits::{INBOX, TICK};
use crate::sys::receive::ReceiveRing;

/// How soon to look again for a slot that a worker has yet to let go.
const SLOT_WAIT: Duration = Duration::from_millis(1);

/// Everything the miss path works with.
#[derive(Debug)]
pub struct MissPath {
    pub receive: ReceiveRing,
    pub inbox: Arc<Inbox>,
    pub desk: Desk,
    pub stop: Arc<AtomicBool>,
}

impl MissPath {
    /// Runs until told to stop.
    pub fn run(mut self) -> io::Result<()> {
        let mut next_turn: Option<Instant> = None;
        let mut waits_for_slot = false;
        let mut more_bounced = false;
        while !self.stop.load(Ordering::Acquire) {
            let now = clock::now();
            if next_turn.is_none_or(|due| due <= now) {
                self.desk.turn(epoch_at(clock::unix_seconds()), now);
                next_turn = Some(now + TICK);
            }
            self.desk.sender.flush();
            self.desk.report();
            let sleep = if more_bounced {
                Duration::ZERO
            } else if waits_for_slot {
                SLOT_WAIT
            } else {
                TICK
            };
            let Self { receive, desk, .. } = &mut self;
            receive.wait(sleep, |datagram| desk.datagram(&datagram, clock::now()))?;
            let awake = clock::now();
            // As many as the inbox holds: workers may fill it as fast as it is emptied (I9).
            let mut room = INBOX;
            while room > 0
                && let Some(request) = self.inbox.take()
            {
                self.desk.bounced(&request, awake);
                room -= 1;
            }
            more_bounced = room == 0;
            waits_for_slot = self.desk.settle(awake);
        }
        self.desk.sender.flush();
        Ok(())
    }
}
