//! What a steered request falls into when its chunk was withdrawn meanwhile.
//!
//! Workers put in and wake the miss path, once a batch; the miss path takes out. Full is a reason.

use crossbeam::queue::ArrayQueue;

use crate::limits::INBOX;
use crate::reply::Request;
use crate::sys::receive::Wake;

#[derive(Debug)]
pub struct Inbox {
    queue: ArrayQueue<Request>,
    wake: Wake,
}

impl Inbox {
    pub fn new(wake: Wake) -> Self {
        Self {
            queue: ArrayQueue::new(INBOX),
            wake,
        }
    }

    /// By value: the frame the request came in goes back to the kernel. Gives it back when full.
    pub fn put(&self, request: Request) -> Result<(), Request> {
        self.queue.push(request)
    }

    pub fn wake(&self) {
        self.wake.wake();
    }

    pub fn take(&self) -> Option<Request> {
        self.queue.pop()
    }
}
