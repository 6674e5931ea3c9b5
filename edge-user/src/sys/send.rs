//! Sends through io_uring, gathered straight from a slab.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use io_uring::{opcode, types};
use rustix::time::{ClockId, clock_gettime};

use super::epochs::{Holds, Loan};
use super::socket::{SendSocket, ServiceSocket, socket_address};
use super::undumped::{Undumped, Zeroed};
use super::uring::ThreadRing;

/// Most parts of one send: each segment of the largest send may be a part of its own.
pub const SPANS_MAX: usize = 64;
/// Largest datagram that is sent from a buffer of its own.
pub const INLINE_BYTES_MAX: usize = 1536;
/// `CMSG_SPACE` of one `u16`.
const CONTROL_BYTES: usize = 24;

/// One send in flight: everything that the kernel reads until it is done.
struct Operation {
    header: libc::msghdr,
    name: libc::sockaddr_in6,
    spans: [libc::iovec; SPANS_MAX],
    control: Control,
    inline: [u8; INLINE_BYTES_MAX],
    what: Sent,
    /// Whether it reads a loan.
    holds: bool,
}

// SAFETY: plain data and null pointers, for which zeros are valid.
unsafe impl Zeroed for Operation {}

#[repr(C, align(8))]
struct Control([u8; CONTROL_BYTES]);

/// What a send carried.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sent {
    pub datagrams: u32,
    pub bytes: u32,
}

/// How a send ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SendEnd {
    Done,
    /// The socket's send buffer is full.
    WouldBlock,
    /// With its `errno`.
    Failed(u16),
}

/// All operations are in flight; nothing was queued.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Full;

/// Which of a sender's sockets sends a datagram. Each has its own send buffer, so datagrams waiting
/// for address resolution in one take no space in the other.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Lane {
    /// For destinations that datagrams reached recently.
    Open,
    /// For all others. Reports the destinations whose datagrams were passed to the device.
    Probe,
}

/// A queue of sends whose outcomes are reported later.
pub trait SendQueue {
    /// Sends whose outcome has not been reported yet.
    fn in_flight(&self) -> usize;

    /// Sends that can be queued now.
    fn room(&self) -> usize;

    /// Queues one send of parts of a block, split into datagrams of `segment_bytes`, the last of
    /// which may be shorter. The loan's reader is not quiescent until it is done.
    fn queue_parts(
        &mut self,
        socket: usize,
        lane: Lane,
        to: &SocketAddr,
        loan: &Loan<'_>,
        parts: &[Range<usize>],
        segment_bytes: u16,
    ) -> Result<(), Full>;

    /// Queues one datagram: `bytes`, padded with zeros to `len_bytes`.
    fn queue_bytes(
        &mut self,
        socket: usize,
        lane: Lane,
        to: &SocketAddr,
        bytes: &[u8],
        len_bytes: usize,
    ) -> Result<(), Full>;

    /// Submits everything queued, and passes the outcomes so far to `each`.
    fn flush(&mut self, each: impl FnMut(Sent, SendEnd)) -> io::Result<()>;

    /// Passes the destinations that [`Lane::Probe`] has reported to `each`.
    fn passed(&mut self, each: impl FnMut(IpAddr));

    /// Monotonic time.
    fn seconds(&self) -> u32;
}

/// An `io_uring` that only sends, with its pool of operations.
pub struct SendRing {
    ring: ThreadRing,
    /// Never moves: the kernel refers to operations by address.
    operations: Undumped<Operation>,
    free: Vec<usize>,
    /// Keeps the slab mapped as long as the ring.
    holds: Holds,
    sockets: Box<[Lanes]>,
}

/// The sockets of one service address.
struct Lanes {
    open: SendSocket,
    probe: SendSocket,
}

// SAFETY: the raw pointers in the operations refer to the operations and to the slab, both owned
// here; nothing is tied to a thread.
unsafe impl Send for SendRing {}

impl std::fmt::Debug for SendRing {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("SendRing")
            .field("in_flight", &self.in_flight())
            .finish_non_exhaustive()
    }
}

impl SendRing {
    /// Sends loans of the reader that `holds` belongs to.
    pub fn new(depth: u32, holds: Holds, services: &[ServiceSocket]) -> io::Result<Self> {
        let lanes = |service| {
            Ok(Lanes {
                open: SendSocket::new(service, false)?,
                probe: SendSocket::new(service, true)?,
            })
        };
        let sockets: Box<[Lanes]> = services.iter().map(lanes).collect::<io::Result<_>>()?;
        // In the order of [`file`].
        let files: Vec<_> = (sockets.iter())
            .flat_map(|lanes| [lanes.open.raw(), lanes.probe.raw()])
            .collect();
        let ring = ThreadRing::new(depth, &files)?;
        let operations = Undumped::new(depth as usize)?;
        let free = (0..operations.len()).collect();
        Ok(Self {
            ring,
            operations,
            free,
            holds,
            sockets,
        })
    }

    fn push(
        &mut self,
        index: usize,
        (socket, lane): (usize, Lane),
        to: &SocketAddr,
        span_count: usize,
        control_bytes: usize,
    ) {
        let operation = &mut self.operations[index];
        let (name, name_bytes) = socket_address(to);
        operation.name = name;
        operation.header.msg_name = (&raw mut operation.name).cast();
        operation.header.msg_namelen = name_bytes;
        operation.header.msg_iov = operation.spans.as_mut_ptr();
        operation.header.msg_iovlen = span_count;
        operation.header.msg_control = (&raw mut operation.control).cast();
        operation.header.msg_controllen = control_bytes;
        let entry = opcode::SendMsg::new(file(socket, lane), &raw const operation.header)
            .flags(libc::MSG_DONTWAIT.cast_unsigned())
            .build()
            .user_data(index as u64);
        // SAFETY: everything that the entry refers to is in the operation, which is neither moved
        // nor accessed until its completion is reaped, or in the slab, which `holds` keeps mapped;
        // the ring keeps the socket open.
        let pushed = unsafe { self.ring.get().submission().push(&entry) };
        assert!(pushed.is_ok(), "the submission queue holds every operation");
    }
}

impl SendQueue for SendRing {
    fn in_flight(&self) -> usize {
        self.operations.len() - self.free.len()
    }

    fn room(&self) -> usize {
        self.free.len()
    }

    fn queue_parts(
        &mut self,
        socket: usize,
        lane: Lane,
        to: &SocketAddr,
        loan: &Loan<'_>,
        parts: &[Range<usize>],
        segment_bytes: u16,
    ) -> Result<(), Full> {
        assert!(
            parts.len() <= SPANS_MAX,
            "the caller gathers at most {SPANS_MAX} parts"
        );
        let index = self.free.pop().ok_or(Full)?;
        self.holds.hold(loan);
        let operation = &mut self.operations[index];
        let mut bytes = 0;
        for (iovec, part) in operation.spans.iter_mut().zip(parts) {
            let span = loan.span(part.clone());
            *iovec = libc::iovec {
                iov_base: ptr::with_exposed_provenance_mut(span.address),
                iov_len: span.len_bytes,
            };
            bytes += span.len_bytes;
        }
        let bytes = u32::try_from(bytes).expect("a send is below 64 KiB");
        let datagrams = bytes.div_ceil(u32::from(segment_bytes));
        operation.what = Sent { datagrams, bytes };
        operation.holds = true;
        operation.control = segment_control(segment_bytes);
        let control_bytes = if datagrams > 1 { CONTROL_BYTES } else { 0 };
        self.push(index, (socket, lane), to, parts.len(), control_bytes);
        Ok(())
    }

    fn queue_bytes(
        &mut self,
        socket: usize,
        lane: Lane,
        to: &SocketAddr,
        bytes: &[u8],
        len_bytes: usize,
    ) -> Result<(), Full> {
        assert!(
            bytes.len() <= len_bytes && len_bytes <= INLINE_BYTES_MAX,
            "the datagram fits its buffer"
        );
        let index = self.free.pop().ok_or(Full)?;
        let operation = &mut self.operations[index];
        let (head, tail) = operation.inline[..len_bytes].split_at_mut(bytes.len());
        head.copy_from_slice(bytes);
        tail.fill(0);
        operation.spans[0] = libc::iovec {
            iov_base: operation.inline.as_mut_ptr().cast(),
            iov_len: len_bytes,
        };
        let bytes = u32::try_from(len_bytes).expect("checked above");
        operation.what = Sent {
            datagrams: 1,
            bytes,
        };
        operation.holds = false;
        self.push(index, (socket, lane), to, 1, 0);
        Ok(())
    }

    /// Submits everything queued, and reaps completions. Sends do not block, so a queued send is
    /// normally done when this returns.
    fn flush(&mut self, mut each: impl FnMut(Sent, SendEnd)) -> io::Result<()> {
        if self.in_flight() == 0 {
            return Ok(());
        }
        match self.ring.of_this_thread()?.submit() {
            Ok(_) => {}
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(error),
        }
        let Self {
            ring,
            operations,
            free,
            holds,
            ..
        } = self;
        for completion in ring.get().completion() {
            let index = usize::try_from(completion.user_data()).expect("an index we gave");
            let end = match completion.result() {
                0.. => SendEnd::Done,
                error if -error == libc::EAGAIN => SendEnd::WouldBlock,
                error => SendEnd::Failed(u16::try_from(-error).unwrap_or(0)),
            };
            if operations[index].holds {
                holds.release();
            }
            each(operations[index].what, end);
            free.push(index);
        }
        Ok(())
    }

    fn passed(&mut self, mut each: impl FnMut(IpAddr)) {
        for lanes in &self.sockets {
            while let Some(destination) = lanes.probe.passed() {
                each(destination);
            }
        }
    }

    fn seconds(&self) -> u32 {
        let now = clock_gettime(ClockId::MonotonicCoarse);
        u32::try_from(now.tv_sec).unwrap_or(u32::MAX)
    }
}

impl Drop for SendRing {
    fn drop(&mut self) {
        // The kernel must be done with operations and slab before they are freed.
        while self.in_flight() > 0 {
            let ring = self.ring.of_this_thread();
            match ring.and_then(|ring| ring.submit_and_wait(1)) {
                Ok(_) => {}
                Err(error) if is_transient(&error) => {}
                Err(_) => {
                    // Leaked, because the kernel may still use them.
                    Box::leak(Box::new(std::mem::take(&mut self.operations)));
                    Box::leak(Box::new(Arc::clone(self.holds.slab())));
                    return;
                }
            }
            for completion in self.ring.get().completion() {
                let index = usize::try_from(completion.user_data()).expect("an index we gave");
                if self.operations[index].holds {
                    self.holds.release();
                }
                self.free.push(index);
            }
        }
    }
}

/// The ring's index of a socket.
fn file(socket: usize, lane: Lane) -> types::Fixed {
    let lane = match lane {
        Lane::Open => 0,
        Lane::Probe => 1,
    };
    types::Fixed(u32::try_from(2 * socket + lane).expect("few sockets"))
}

/// Whether the entries stay queued for another attempt.
fn is_transient(error: &io::Error) -> bool {
    let transient = [libc::EINTR, libc::EAGAIN, libc::EBUSY];
    error
        .raw_os_error()
        .is_some_and(|number| transient.contains(&number))
}

/// The control message `UDP_SEGMENT`.
fn segment_control(segment_bytes: u16) -> Control {
    const HEADER_BYTES: usize = size_of::<libc::cmsghdr>();
    const _: () = assert!(HEADER_BYTES == 16 && CONTROL_BYTES == 24);
    let mut bytes = [0; CONTROL_BYTES];
    let len: libc::size_t = HEADER_BYTES + size_of::<u16>();
    bytes[..8].copy_from_slice(&len.to_ne_bytes());
    bytes[8..12].copy_from_slice(&libc::SOL_UDP.to_ne_bytes());
    bytes[12..16].copy_from_slice(&libc::UDP_SEGMENT.to_ne_bytes());
    bytes[16..18].copy_from_slice(&segment_bytes.to_ne_bytes());
    Control(bytes)
}
