//! The queue for steered requests whose chunk has been withdrawn.
//!
//! Workers push and wake the socket front once per batch; the socket front pops.

use crossbeam::queue::ArrayQueue;
use edge_ebpf::reason::Reason;

use crate::event_fd::EventFd;
use crate::serve::Request;

#[derive(Debug)]
pub struct BounceQueue {
    queue: ArrayQueue<Request>,
    wake: EventFd,
}

impl BounceQueue {
    pub fn new(capacity: usize, wake: EventFd) -> Self {
        Self {
            queue: ArrayQueue::new(capacity),
            wake,
        }
    }

    /// Copies the request, because its frame goes back to the kernel. Returns the packet's reason.
    pub fn put(&self, request: Request) -> Reason {
        match self.queue.push(request) {
            Ok(()) => Reason::Bounced,
            Err(_) => Reason::InboxFull,
        }
    }

    pub fn wake(&self) {
        self.wake.wake();
    }

    pub fn take(&self) -> Option<Request> {
        self.queue.pop()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::BOUNCE_QUEUE;
    use crate::serve::peer::Peer;
    use edge_ebpf::wire::{ChunkId, Cookie, Get};

    #[test]
    fn a_full_queue_refuses_a_request_and_keeps_those_it_holds() {
        // I9
        let bounce_queue = BounceQueue::new(BOUNCE_QUEUE, EventFd::new().unwrap());
        let request = |want| Request {
            peer: Peer {
                socket: 0,
                client: ([192, 0, 2, 7], 4000).into(),
            },
            get: Get {
                cookie: Cookie::default(),
                id: ChunkId([1; 32]),
                want,
            },
        };
        for want in 0..BOUNCE_QUEUE as u128 {
            assert_eq!(bounce_queue.put(request(want)), Reason::Bounced);
        }
        assert_eq!(bounce_queue.put(request(0)), Reason::InboxFull);
        for want in 0..BOUNCE_QUEUE as u128 {
            assert_eq!(bounce_queue.take(), Some(request(want)));
        }
        assert_eq!(bounce_queue.take(), None);
    }
}
