//! One client of the edge: a UDP socket with a cookie, GETs out in trains, DATA in in trains.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use edge_ebpf::wire::{CHUNK_BYTES_MAX, ChunkId, GET_BYTES, Get, Kind, opening};
use edge_user::clock;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

use super::greeting::{Greeting, Terms};

/// Room for everything that can be under way on one lane.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;
/// Buffers a receive call fills, each with a train of datagrams.
const TRAINS: usize = 32;
const TRAIN_BYTES: usize = 1 << 16;
/// The kernel cuts one send into at most so many datagrams.
const GETS_PER_SEND: usize = 64;
/// What Linux counts of the receive buffer for a full segment.
const SEGMENT_ROOM_BYTES: usize = 2560;

pub struct Lane {
    socket: UdpSocket,
    state: UdpSocketState,
    edge: SocketAddr,
    greeting: Greeting,
    pub terms: Terms,
    gets: Vec<u8>,
}

/// Where received datagrams lie; one for all lanes of a thread.
pub struct Inbox {
    trains: Vec<Vec<u8>>,
    metas: Vec<RecvMeta>,
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            trains: vec![vec![0; TRAIN_BYTES]; TRAINS],
            metas: vec![RecvMeta::default(); TRAINS],
        }
    }
}

impl Lane {
    /// Opens a socket on a port of its own and greets the edge.
    pub fn open(edge: SocketAddr) -> Result<Self> {
        let any: SocketAddr = match edge {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).context("cannot open a UDP socket")?;
        socket
            .connect(edge)
            .with_context(|| format!("cannot reach {edge}"))?;
        // More than the system's limit takes a privilege; up to the limit it is free.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES)?;
        }
        let state = UdpSocketState::new((&socket).into()).context("cannot set up a UDP socket")?;
        let mut inbox = Inbox::default();
        let mut greeting = Greeting::new(clock::now());
        let terms = loop {
            let now = clock::now();
            if let Some(hello) = greeting.hello(now).with_context(|| edge.to_string())? {
                // Lost on the way out is as good as lost on the path.
                let (Ok(_) | Err(_)) = socket.send(&hello);
            }
            let left = greeting.next().saturating_duration_since(now);
            wait(&[socket.as_fd()], left)?;
            receive(&socket, &state, &mut inbox, |datagram| {
                greeting.hear(datagram, clock::now()).map(drop)
            })?;
            if let Some(terms) = greeting.terms() {
                break terms;
            }
        };
        Ok(Self {
            socket,
            state,
            edge,
            greeting,
            terms,
            gets: Vec::with_capacity(GETS_PER_SEND * GET_BYTES),
        })
    }

    /// Renews the cookie when it is time to.
    pub fn keep(&mut self, now: Instant) -> Result<()> {
        let hello = self.greeting.hello(now);
        if let Some(hello) = hello.with_context(|| self.edge.to_string())? {
            let (Ok(_) | Err(_)) = self.socket.send(&hello);
        }
        Ok(())
    }

    /// How many chunks can come at once without filling the receive buffer.
    pub fn chunks_max(&self) -> Result<usize> {
        let room = sockopt::socket_recv_buffer_size(&self.socket)?;
        let segments = CHUNK_BYTES_MAX.div_ceil(self.terms.segment_bytes.into());
        Ok(room / (segments as usize * SEGMENT_ROOM_BYTES))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Puts a GET into the train, which leaves when it is full or flushed.
    pub fn get(&mut self, id: ChunkId, want: u128) -> Result<()> {
        let get = Get {
            cookie: self.greeting.cookie(),
            id,
            want,
        };
        self.gets.extend_from_slice(&get.encode());
        if self.gets.len() == GETS_PER_SEND * GET_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends the train: every GET is a datagram of its own.
    pub fn flush(&mut self) -> Result<()> {
        if self.gets.is_empty() {
            return Ok(());
        }
        let train = Transmit {
            destination: self.edge,
            ecn: None,
            contents: &self.gets,
            segment_size: (self.gets.len() > GET_BYTES).then_some(GET_BYTES),
            src_ip: None,
        };
        let sent = self.state.try_send((&self.socket).into(), &train);
        self.gets.clear();
        match sent {
            Ok(()) => Ok(()),
            // As good as lost on the path: asked for again after a while.
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot send to {}", self.edge)),
        }
    }

    /// Hands over every datagram that is waiting, but for a WELCOME. Never waits.
    pub fn receive(&mut self, inbox: &mut Inbox, mut take: impl FnMut(&[u8])) -> Result<()> {
        let greeting = &mut self.greeting;
        receive(&self.socket, &self.state, inbox, |datagram| {
            if datagram.starts_with(&opening(Kind::Welcome)) {
                return greeting.hear(datagram, clock::now()).map(drop);
            }
            take(datagram);
            Ok(())
        })
    }
}

fn receive(
    socket: &UdpSocket,
    state: &UdpSocketState,
    inbox: &mut Inbox,
    mut take: impl FnMut(&[u8]) -> Result<()>,
) -> Result<()> {
    let mut slices: Vec<IoSliceMut<'_>> = inbox
        .trains
        .iter_mut()
        .map(|train| IoSliceMut::new(train))
        .collect();
    let count = match state.recv(socket.into(), &mut slices, &mut inbox.metas) {
        Ok(count) => count,
        Err(error) if is_passing(&error) => return Ok(()),
        Err(error) => return Err(error).context("cannot receive"),
    };
    for (train, meta) in inbox.trains.iter().zip(&inbox.metas).take(count) {
        for datagram in train[..meta.len].chunks(meta.stride.max(1)) {
            take(datagram)?;
        }
    }
    Ok(())
}

/// Errors that say nothing about the next call: full, empty, interrupted, or a forgeable message
/// that nobody listens there.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionRefused)
        || error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}

/// Waits until one of them has something to read.
pub fn wait(fds: &[BorrowedFd<'_>], most: Duration) -> Result<()> {
    let mut watched: Vec<PollFd<'_>> = fds
        .iter()
        .map(|fd| PollFd::from_borrowed_fd(*fd, PollFlags::IN))
        .collect();
    let most = Timespec::try_from(most).context("too long to wait")?;
    match poll(&mut watched, Some(&most)) {
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(error) => Err(error).context("cannot wait"),
    }
}
