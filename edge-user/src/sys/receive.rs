//! Multishot receives through io_uring, into a ring of provided buffers. The socket front sleeps
//! here.

use std::io;
use std::mem::zeroed;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use io_uring::types::BufRingEntry;
use io_uring::{cqueue, opcode, squeue, types};

use super::socket::{ServiceSocket, parse_socket_address, socklen};
use super::undumped::{Undumped, Zeroed};
use super::uring::ThreadRing;
use crate::event_fd::EventFd;

/// A received datagram.
#[derive(Debug)]
pub struct Received<'a> {
    /// Index of the socket.
    pub socket: usize,
    pub source: SocketAddr,
    pub payload: &'a [u8],
    /// The datagram was longer than the buffer; `payload` is its beginning.
    pub truncated: bool,
}

/// A completion that holds no valid IPv4 or IPv6 datagram.
#[derive(Clone, Copy, Debug)]
pub struct Unreadable;

const BUFFER_GROUP: u16 = 0;
const BUFFER_BYTES: usize = 2048;
const BUFFER_LEN: u32 = 2048;
const _: () = assert!(BUFFER_LEN as usize == BUFFER_BYTES);
const WAKE: u64 = u64::MAX;
/// How long to wait for cancelled receives to end.
const CANCEL_WAIT: Duration = Duration::from_millis(100);
const CANCEL_TRIES: u32 = 20;

/// An `io_uring` that receives from every service socket.
pub struct ReceiveRing {
    ring: ThreadRing,
    /// Boxed, because the kernel reads it at each completion.
    header: Box<libc::msghdr>,
    buffers: Undumped<[u8; BUFFER_BYTES]>,
    /// The ring of buffers provided to the kernel, and its tail.
    provided: Undumped<BufRingEntry>,
    tail: u16,
    sockets: Arc<[ServiceSocket]>,
    wake: EventFd,
    /// Sockets, or the eventfd, whose multishot operation has to be started again.
    unarmed: Vec<u64>,
    /// Buffers to provide again.
    used: Vec<u16>,
}

// SAFETY: plain integers, for which zeros are valid.
unsafe impl Zeroed for BufRingEntry {}

// SAFETY: the pointers given to the kernel refer to memory owned here; nothing is tied to a thread.
unsafe impl Send for ReceiveRing {}

impl std::fmt::Debug for ReceiveRing {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("ReceiveRing")
            .field("sockets", &self.sockets)
            .finish_non_exhaustive()
    }
}

impl ReceiveRing {
    pub fn new(
        buffer_count: u16,
        sockets: Arc<[ServiceSocket]>,
        wake: EventFd,
    ) -> io::Result<Self> {
        // The sockets by index, then the eventfd. Each needs one submission entry.
        let files: Vec<_> = (sockets.iter().map(ServiceSocket::raw))
            .chain([wake.fd().as_raw_fd()])
            .collect();
        let depth = u32::try_from(files.len()).unwrap_or(u32::MAX);
        let mut ring = ThreadRing::new(depth.next_power_of_two(), &files)?;
        let entries = buffer_count.next_power_of_two();
        let mut provided = Undumped::<BufRingEntry>::new(usize::from(entries))?;
        let address = provided.as_mut_ptr().expose_provenance() as u64;
        let submitter = ring.get().submitter();
        // SAFETY: the memory is page-aligned, holds `entries` entries and outlives the ring: `drop`
        // leaks it if the kernel may still use it.
        unsafe { submitter.register_buf_ring_with_flags(address, entries, BUFFER_GROUP, 0)? };
        // SAFETY: plain data and null pointers, for which zeros are valid.
        let mut header: Box<libc::msghdr> = Box::new(unsafe { zeroed() });
        header.msg_namelen = socklen::<libc::sockaddr_in6>();
        let unarmed = (0..sockets.len() as u64).chain([WAKE]).collect();
        let buffers = Undumped::new(usize::from(buffer_count))?;
        let used = (0..buffer_count).collect();
        Ok(Self {
            ring,
            header,
            buffers,
            provided,
            tail: 0,
            sockets,
            wake,
            unarmed,
            used,
        })
    }

    fn push(&mut self, entry: &squeue::Entry) {
        // SAFETY: entries are made in `arm` and point to the header, which is owned here.
        let pushed = unsafe { self.ring.get().submission().push(entry) };
        assert!(
            pushed.is_ok(),
            "the submission queue has room for every entry"
        );
    }

    fn provide_buffers(&mut self) {
        let ring_len = self.provided.len();
        while let Some(index) = self.used.pop() {
            let address = self.buffers[usize::from(index)].as_mut_ptr();
            // The kernel does not use this entry: there are no more buffers than entries.
            let entry = &mut self.provided[usize::from(self.tail) % ring_len];
            entry.set_addr(address.expose_provenance() as u64);
            entry.set_len(BUFFER_LEN);
            entry.set_bid(index);
            self.tail = self.tail.wrapping_add(1);
        }
        let first = self.provided.as_mut_ptr();
        // SAFETY: `first` is the first entry of the ring, all of which are initialised.
        let tail = unsafe { BufRingEntry::tail(first) };
        // SAFETY: aligned and within `provided`; the kernel only reads it, and no other thread
        // accesses it.
        let tail = unsafe { AtomicU16::from_ptr(tail.cast_mut()) };
        // Release: the entries are written before the tail is.
        tail.store(self.tail, Ordering::Release);
    }

    fn arm(&mut self) {
        while let Some(which) = self.unarmed.pop() {
            let entry = if which == WAKE {
                let wake = u32::try_from(self.sockets.len()).expect("few sockets");
                opcode::PollAdd::new(types::Fixed(wake), libc::POLLIN as u32)
                    .multi(true)
                    .build()
            } else {
                let socket = u32::try_from(which).expect("an index we gave");
                opcode::RecvMsgMulti::new(
                    types::Fixed(socket),
                    &raw const *self.header,
                    BUFFER_GROUP,
                )
                .flags(libc::MSG_TRUNC.cast_unsigned())
                .build()
            };
            self.push(&entry.user_data(which));
        }
    }

    /// Sleeps until a datagram or a wake-up arrives or the timeout expires, and passes every
    /// received datagram to `each`.
    pub fn wait(
        &mut self,
        timeout: Duration,
        mut each: impl FnMut(Result<Received<'_>, Unreadable>),
    ) -> io::Result<()> {
        self.provide_buffers();
        self.arm();
        let timespec = types::Timespec::from(timeout);
        let arguments = types::SubmitArgs::new().timespec(&timespec);
        let submitter = self.ring.of_this_thread()?.submitter();
        match submitter.submit_with_args(1, &arguments) {
            Ok(_) => {}
            Err(error)
                if matches!(
                    error.raw_os_error(),
                    Some(libc::ETIME | libc::EINTR | libc::EBUSY | libc::EAGAIN)
                ) => {}
            Err(error) => return Err(error),
        }
        let Self {
            ring,
            header,
            buffers,
            wake,
            unarmed,
            used,
            ..
        } = self;
        for completion in ring.get().completion() {
            let which = completion.user_data();
            if !cqueue::more(completion.flags()) {
                unarmed.push(which);
            }
            if let Some(error) = fatal(completion.result()) {
                return Err(error);
            }
            if which == WAKE {
                wake.clear();
                continue;
            }
            let Some(buffer) = cqueue::buffer_select(completion.flags()) else {
                continue;
            };
            used.push(buffer);
            let Ok(len_bytes) = usize::try_from(completion.result()) else {
                continue;
            };
            let message = parse(&buffers[usize::from(buffer)], len_bytes, header);
            each(
                message
                    .as_ref()
                    .map_err(|unreadable| *unreadable)
                    .map(|(source, message)| Received {
                        socket: usize::try_from(which).expect("an index we gave"),
                        source: *source,
                        payload: message.payload_data(),
                        truncated: message.is_payload_truncated(),
                    }),
            );
        }
        Ok(())
    }
}

/// Parses a buffer into source address and message.
fn parse<'a>(
    buffer: &'a [u8],
    len_bytes: usize,
    header: &libc::msghdr,
) -> Result<(SocketAddr, types::RecvMsgOut<'a>), Unreadable> {
    let bytes = buffer.get(..len_bytes).ok_or(Unreadable)?;
    let message = types::RecvMsgOut::parse(bytes, header).map_err(|()| Unreadable)?;
    let source = parse_socket_address(message.name_data()).ok_or(Unreadable)?;
    Ok((source, message))
}

/// Errors other than those after which a multishot operation can be started again.
fn fatal(result: i32) -> Option<io::Error> {
    let transient = [
        libc::ENOBUFS,
        libc::ENOMEM,
        libc::EINTR,
        libc::EAGAIN,
        libc::ECANCELED,
    ];
    (result < 0 && !transient.contains(&-result)).then(|| io::Error::from_raw_os_error(-result))
}

impl Drop for ReceiveRing {
    fn drop(&mut self) {
        // Closing the ring cancels asynchronously, and header and buffers must not be freed before
        // the kernel is done with them.
        let armed = self.sockets.len() + 1 - self.unarmed.len();
        let mut left = armed;
        let everything = types::CancelBuilder::any();
        let submitter = self.ring.get().submitter();
        let (Ok(()) | Err(_)) = submitter.register_sync_cancel(None, everything);
        for _ in 0..CANCEL_TRIES {
            if left == 0 {
                return;
            }
            let timespec = types::Timespec::from(CANCEL_WAIT);
            let arguments = types::SubmitArgs::new().timespec(&timespec);
            let submitter = self.ring.get().submitter();
            let (Ok(_) | Err(_)) = submitter.submit_with_args(1, &arguments);
            let ended = (self.ring.get().completion())
                .filter(|completion| !cqueue::more(completion.flags()));
            left -= ended.count().min(left);
        }
        // Leaked, because the kernel may still use them.
        Box::leak(Box::new(std::mem::take(&mut self.buffers)));
        Box::leak(Box::new(std::mem::take(&mut self.provided)));
        // SAFETY: plain data and null pointers, for which zeros are valid.
        let empty: Box<libc::msghdr> = Box::new(unsafe { zeroed() });
        Box::leak(std::mem::replace(&mut self.header, empty));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_completion_without_a_valid_datagram_is_unreadable() {
        // SAFETY: plain data and null pointers, for which zeros are valid.
        let mut header: libc::msghdr = unsafe { zeroed() };
        header.msg_namelen = socklen::<libc::sockaddr_in6>();
        let name_bytes = header.msg_namelen as usize;
        // Lengths of name, control and payload, and flags; then the name and the payload.
        let mut buffer = [0; 256];
        buffer[0..4].copy_from_slice(&16_u32.to_ne_bytes());
        buffer[8..12].copy_from_slice(&5_u32.to_ne_bytes());
        buffer[16..18].copy_from_slice(&2_u16.to_ne_bytes());
        buffer[18..24].copy_from_slice(&[0x1c, 0xb3, 192, 0, 2, 7]);
        buffer[16 + name_bytes..][..5].copy_from_slice(b"hello");
        let len_bytes = 16 + name_bytes + 5;
        let (source, message) = parse(&buffer, len_bytes, &header).unwrap();
        assert_eq!(source, ([192, 0, 2, 7], 7347).into());
        assert_eq!(message.payload_data(), b"hello");
        // Longer than the buffer, shorter than the header, of an unknown family.
        assert!(parse(&buffer, 257, &header).is_err());
        assert!(parse(&buffer, 15, &header).is_err());
        buffer[16] = 1;
        assert!(parse(&buffer, len_bytes, &header).is_err());
    }
}
