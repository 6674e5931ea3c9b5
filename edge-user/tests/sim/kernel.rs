//! What both paths borrow from the kernel: sends that end late, and not always well. While a send
//! is under way the bytes it names must stay as they were (I6).

use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::os::unix::fs::FileExt as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_user::sys::epochs::{Holds, Loan};
use edge_user::sys::send::{Full, Lane, SendEnd, SendQueue, Sent};

use super::chance::Chance;
use super::conditions::Conditions;

/// A datagram that leaves the edge.
#[derive(Debug)]
pub(crate) struct Leaving {
    pub(crate) to: SocketAddr,
    pub(crate) payload: Vec<u8>,
}

#[derive(Debug)]
pub(crate) struct Kernel {
    pub(crate) now: Duration,
    pub(crate) leaving: Vec<Leaving>,
    /// Datagrams that left, by sender.
    pub(crate) left: Vec<u64>,
    /// Where datagrams that are reported on were passed on to, by sender.
    passed: Vec<Vec<IpAddr>>,
    sends: Vec<Send>,
    /// This process's memory, read by the real kernel: the simulated one owns no piece of it.
    memory: File,
    chance: Chance,
    conditions: Conditions,
}

#[derive(Debug)]
struct Send {
    sender: usize,
    lane: Lane,
    to: SocketAddr,
    /// Where the parts are that it reads.
    parts: Vec<Range<usize>>,
    /// What the parts held when the send was queued.
    bytes: Vec<u8>,
    segment_bytes: usize,
    stage: Stage,
}

#[derive(Clone, Copy, PartialEq, Debug)]
enum Stage {
    Queued,
    UnderWay(Duration),
    Over(SendEnd),
}

impl Kernel {
    pub(crate) fn new(senders: usize, chance: Chance, with: &Conditions) -> Self {
        Self {
            now: Duration::ZERO,
            leaving: Vec::new(),
            left: vec![0; senders],
            passed: vec![Vec::new(); senders],
            sends: Vec::new(),
            memory: File::open("/proc/self/mem").expect("a process may read itself"),
            chance,
            conditions: with.clone(),
        }
    }

    fn of(&self, sender: usize) -> usize {
        let mine = self.sends.iter().filter(|send| send.sender == sender);
        mine.count()
    }

    /// When the next send ends.
    pub(crate) fn next(&self) -> Option<Duration> {
        let due = self.sends.iter().filter_map(|send| match send.stage {
            Stage::UnderWay(until) => Some(until),
            Stage::Queued | Stage::Over(_) => None,
        });
        due.min()
    }

    /// Ends the sends that are due.
    pub(crate) fn act(&mut self) {
        for at in 0..self.sends.len() {
            if matches!(self.sends[at].stage, Stage::UnderWay(until) if until <= self.now) {
                self.end(at);
            }
        }
    }

    fn end(&mut self, at: usize) {
        self.check(at);
        let send = &mut self.sends[at];
        let end = if self.chance.permille(self.conditions.send_fails) {
            self.chance
                .one_of(&[SendEnd::WouldBlock, SendEnd::Failed(113)])
        } else {
            for payload in send.bytes.chunks(send.segment_bytes) {
                self.leaving.push(Leaving {
                    to: send.to,
                    payload: payload.to_vec(),
                });
                self.left[send.sender] += 1;
            }
            if send.lane == Lane::Probe {
                self.passed[send.sender].push(send.to.ip());
            }
            SendEnd::Done
        };
        send.stage = Stage::Over(end);
    }

    /// I6: what a send names is not rewritten before it is done.
    fn check(&self, at: usize) {
        let send = &self.sends[at];
        let mut from = 0;
        for span in &send.parts {
            let part = self.read(span);
            let before = &send.bytes[from..from + part.len()];
            assert!(before == part, "I6: a slot was rewritten under a send");
            from += part.len();
        }
    }

    fn read(&self, addresses: &Range<usize>) -> Vec<u8> {
        let mut bytes = vec![0; addresses.len()];
        let read = self
            .memory
            .read_exact_at(&mut bytes, addresses.start as u64);
        read.expect("it is mapped");
        bytes
    }

    pub(crate) fn check_all(&self) {
        for (at, send) in self.sends.iter().enumerate() {
            if !matches!(send.stage, Stage::Over(_)) {
                self.check(at);
            }
        }
    }

    /// Sends that nobody was told the end of.
    pub(crate) fn under_way(&self) -> usize {
        self.sends.len()
    }
}

/// One thread's `io_uring`.
#[derive(Debug)]
pub(crate) struct Sends {
    pub(crate) sender: usize,
    pub(crate) holds: Holds,
    pub(crate) kernel: Arc<Mutex<Kernel>>,
}

impl Sends {
    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn queue(
        &self,
        lane: Lane,
        to: SocketAddr,
        parts: Vec<Range<usize>>,
        bytes: Vec<u8>,
        segment_bytes: usize,
    ) {
        self.kernel().sends.push(Send {
            sender: self.sender,
            lane,
            to,
            parts,
            bytes,
            segment_bytes,
            stage: Stage::Queued,
        });
    }
}

impl SendQueue for Sends {
    fn in_flight(&self) -> usize {
        self.kernel().of(self.sender)
    }

    fn room(&self) -> usize {
        let kernel = self.kernel();
        kernel.conditions.sends - kernel.of(self.sender)
    }

    fn queue_parts(
        &mut self,
        _socket: usize,
        lane: Lane,
        to: &SocketAddr,
        loan: &Loan<'_>,
        parts: &[Range<usize>],
        segment_bytes: u16,
    ) -> Result<(), Full> {
        if self.room() == 0 {
            return Err(Full);
        }
        self.holds.hold(loan);
        let parts = parts.iter().map(|part| &loan.bytes()[part.clone()]);
        let bytes = parts.clone().flatten().copied().collect();
        let addresses = parts.map(|part| {
            let start = part.as_ptr().addr();
            start..start + part.len()
        });
        let addresses = addresses.collect();
        self.queue(lane, *to, addresses, bytes, segment_bytes.into());
        Ok(())
    }

    fn queue_bytes(
        &mut self,
        _socket: usize,
        lane: Lane,
        to: &SocketAddr,
        bytes: &[u8],
        len_bytes: usize,
    ) -> Result<(), Full> {
        if self.room() == 0 {
            return Err(Full);
        }
        let mut datagram = bytes.to_vec();
        datagram.resize(len_bytes, 0);
        self.queue(lane, *to, Vec::new(), datagram, len_bytes);
        Ok(())
    }

    fn flush(&mut self, mut each: impl FnMut(Sent, SendEnd)) -> io::Result<()> {
        let Self {
            sender,
            holds,
            kernel,
        } = self;
        let mut kernel = kernel.lock().unwrap_or_else(PoisonError::into_inner);
        for at in 0..kernel.sends.len() {
            if kernel.sends[at].sender != *sender || kernel.sends[at].stage != Stage::Queued {
                continue;
            }
            let late = kernel.conditions.late;
            if kernel.chance.permille(late / 10) {
                // Short of memory: what is left stays queued.
                break;
            }
            if kernel.chance.permille(late) {
                let most = kernel.conditions.late_by;
                let until = kernel.now + kernel.chance.time(most);
                kernel.sends[at].stage = Stage::UnderWay(until);
            } else {
                kernel.end(at);
            }
        }
        kernel.sends.retain(|send| {
            let Stage::Over(end) = send.stage else {
                return true;
            };
            if send.sender != *sender {
                return true;
            }
            let bytes = u32::try_from(send.bytes.len()).expect("below 64 KiB");
            let datagrams = bytes.div_ceil(u32::try_from(send.segment_bytes).expect("a datagram"));
            if !send.parts.is_empty() {
                holds.release();
            }
            each(Sent { datagrams, bytes }, end);
            false
        });
        Ok(())
    }

    fn passed(&mut self, each: impl FnMut(IpAddr)) {
        let passed = std::mem::take(&mut self.kernel().passed[self.sender]);
        passed.into_iter().for_each(each);
    }

    fn seconds(&self) -> u32 {
        let seconds = self.kernel().now.as_secs();
        u32::try_from(seconds).expect("a short life") + 1
    }
}
