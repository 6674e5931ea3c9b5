//! One client of the edge: a UDP socket with a cookie, GETs out in trains, DATA in in trains.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_ebpf::wire::{
    Cookie, DATA_HEADER_BYTES, GET_BYTES, Get, HELLO_HEADER_BYTES, Hello, WELCOME_HEADER_BYTES,
    Welcome,
};
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

/// Room for everything that can be under way on one lane.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;
/// Buffers a receive call fills, each with a train of datagrams.
const TRAINS: usize = 32;
const TRAIN_BYTES: usize = 1 << 16;
/// The kernel cuts one send into at most so many datagrams.
const GETS_PER_SEND: usize = 64;
const HELLOS: u32 = 5;
const WELCOME_WITHIN: Duration = Duration::from_millis(300);
/// The longest segment has 1440 bytes.
const HELLO_BYTES: usize = DATA_HEADER_BYTES + 1440;

pub struct Lane {
    socket: UdpSocket,
    state: UdpSocketState,
    edge: SocketAddr,
    pub segment_bytes: u16,
    pub max_burst: u8,
    cookie: Cookie,
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
        let mut lane = Self {
            socket,
            state,
            edge,
            segment_bytes: 0,
            max_burst: 0,
            cookie: Cookie::default(),
            gets: Vec::with_capacity(GETS_PER_SEND * GET_BYTES),
        };
        lane.greet()?;
        Ok(lane)
    }

    /// Asks for a new cookie. What else comes meanwhile is let go.
    pub fn greet(&mut self) -> Result<()> {
        let mut inbox = Inbox::default();
        for _ in 0..HELLOS {
            let nonce = rand::random();
            let mut hello = [0; HELLO_BYTES];
            hello[..HELLO_HEADER_BYTES].copy_from_slice(&Hello { nonce }.encode());
            // Lost on the way out is as good as lost on the path.
            let (Ok(_) | Err(_)) = self.socket.send(&hello);
            let deadline = edge_user::clock::now() + WELCOME_WITHIN;
            loop {
                let left = deadline.saturating_duration_since(edge_user::clock::now());
                if left.is_zero() {
                    break;
                }
                wait(&[self.fd()], left)?;
                let mut welcome = None;
                self.receive(&mut inbox, |datagram| {
                    welcome = welcome.or_else(|| {
                        let header = datagram.first_chunk::<WELCOME_HEADER_BYTES>()?;
                        let heard = Welcome::decode(header).ok()?;
                        (heard.nonce == nonce).then_some(heard)
                    });
                })?;
                if let Some(welcome) = welcome {
                    self.cookie = welcome.cookie;
                    self.segment_bytes = welcome.segment_bytes;
                    self.max_burst = welcome.max_burst;
                    return Ok(());
                }
            }
        }
        bail!(
            "{} does not answer HELLO; does edged run there, and is the way to it open?",
            self.edge
        )
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Puts a GET into the train, which leaves when it is full or flushed.
    pub fn get(&mut self, id: edge_ebpf::wire::ChunkId, want: u128) -> Result<()> {
        let get = Get {
            cookie: self.cookie,
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

    /// Hands over every datagram that is waiting, and says how many there were. Never waits.
    pub fn receive(&self, inbox: &mut Inbox, mut take: impl FnMut(&[u8])) -> Result<u64> {
        let mut slices: Vec<IoSliceMut<'_>> = inbox
            .trains
            .iter_mut()
            .map(|train| IoSliceMut::new(train))
            .collect();
        let count = match self
            .state
            .recv((&self.socket).into(), &mut slices, &mut inbox.metas)
        {
            Ok(count) => count,
            Err(error) if is_passing(&error) => return Ok(0),
            Err(error) => return Err(error).context("cannot receive"),
        };
        let mut datagrams = 0;
        for (train, meta) in inbox.trains.iter().zip(&inbox.metas).take(count) {
            for datagram in train[..meta.len].chunks(meta.stride.max(1)) {
                take(datagram);
                datagrams += 1;
            }
        }
        Ok(datagrams)
    }
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
