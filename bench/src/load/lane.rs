//! One client of the edge: a UDP socket with a cookie. GETs are sent, and DATA received, in
//! batches.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use edge_ebpf::cookie::LIFETIME_SECONDS;
use edge_ebpf::wire::{CHUNK_BYTES_MAX, ChunkId, GET_BYTES, Get, Kind, opening};
use edge_user::client::handshake::{DATAGRAM_BYTES_MAX, Event, Handshake, Session, Step};
use edge_user::clock;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::net::sockopt;

/// The receive buffer that is asked for: all that can be in flight on one lane.
const RECEIVE_BUFFER_BYTES: usize = 16 << 20;
/// Buffers per receive call, each for a batch of datagrams.
const TRAINS: usize = 32;
const TRAIN_BYTES: usize = 1 << 16;
/// Limit of the kernel for datagrams in one send (GSO).
const GETS_PER_SEND: usize = 64;
/// What Linux charges to the receive buffer for a full segment.
const SEGMENT_ROOM_BYTES: usize = 2560;

pub struct Lane {
    socket: UdpSocket,
    state: UdpSocketState,
    edge: SocketAddr,
    cookies: CookieRenewal,
    gets: Vec<u8>,
}

/// The handshake of one lane, on one port. A cookie is used until it expires, even if renewals
/// fail.
struct CookieRenewal {
    begin: Instant,
    handshake: Handshake,
    session: Option<Session>,
    /// When the newest cookie expires.
    end: Duration,
}

impl CookieRenewal {
    /// Sends a HELLO if one is due; returns when the next one is.
    fn step(&mut self, now: Instant, mut send: impl FnMut(&[u8])) -> Result<Duration> {
        let now = now.saturating_duration_since(self.begin);
        let mut hello = [0; DATAGRAM_BYTES_MAX];
        loop {
            let random = &mut rand::random;
            match (self.handshake).step(now, self.end, Duration::ZERO, &mut hello, random) {
                Step::Open => self.handshake.opened(),
                Step::Send(len_bytes) => send(&hello[..len_bytes]),
                Step::Wait(until) => return Ok(until.saturating_sub(now)),
                Step::Failed(failure) => return Err(failure.into()),
            }
        }
    }

    fn on_datagram(&mut self, datagram: &[u8], now: Instant) -> Result<()> {
        let now = now.saturating_duration_since(self.begin);
        match self.handshake.on_datagram(now, datagram) {
            Event::Ignored | Event::Continue => return Ok(()),
            Event::Completed { .. } => {}
            Event::Failed(failure) => return Err(failure.into()),
        }
        let cut = |session: &Session| (session.segment_bytes, session.max_burst);
        let before = self.session.as_ref().map(cut);
        self.session = self.handshake.session().copied();
        if before.is_some_and(|before| Some(before) != self.session.as_ref().map(cut)) {
            bail!(
                "the edge changed its segment size or burst: was it restarted with other settings?"
            );
        }
        self.end = now + Duration::from_secs(LIFETIME_SECONDS.into());
        Ok(())
    }
}

/// Buffers for received datagrams; one for all lanes of a thread.
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
    /// Opens a socket on a port of its own and gets a cookie.
    pub fn open(edge: SocketAddr) -> Result<Self> {
        let any: SocketAddr = match edge {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(any).context("cannot open a UDP socket")?;
        socket
            .connect(edge)
            .with_context(|| format!("cannot reach {edge}"))?;
        // A buffer above the system's limit takes a privilege.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).is_err() {
            sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES)?;
        }
        let state = UdpSocketState::new((&socket).into()).context("cannot set up a UDP socket")?;
        let mut inbox = Inbox::default();
        let cookies = CookieRenewal {
            begin: clock::now(),
            handshake: Handshake::default(),
            session: None,
            end: Duration::ZERO,
        };
        let mut lane = Self {
            socket,
            state,
            edge,
            cookies,
            gets: Vec::with_capacity(GETS_PER_SEND * GET_BYTES),
        };
        while lane.cookies.session.is_none() {
            let left = lane.keep(clock::now())?;
            wait(&[lane.fd()], left)?;
            lane.receive(&mut inbox, |_| {})?;
        }
        Ok(lane)
    }

    /// Renews the cookie when due; returns the time until then.
    pub fn keep(&mut self, now: Instant) -> Result<Duration> {
        let socket = &self.socket;
        // A datagram that cannot be sent counts as lost on the path.
        let send = |hello: &[u8]| drop(socket.send(hello));
        let kept = self.cookies.step(now, send);
        kept.with_context(|| self.edge.to_string())
    }

    /// The newest session.
    pub fn session(&self) -> &Session {
        self.cookies
            .session
            .as_ref()
            .expect("an open lane has a session")
    }

    /// Number of chunks that fit the receive buffer.
    pub fn chunks_max(&self) -> Result<usize> {
        let room = sockopt::socket_recv_buffer_size(&self.socket)?;
        let segments = CHUNK_BYTES_MAX.div_ceil(self.session().segment_bytes.into());
        Ok(room / (segments as usize * SEGMENT_ROOM_BYTES))
    }

    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// Adds a GET to the batch, which is sent when it is full or flushed.
    pub fn get(&mut self, id: ChunkId, want: u128) -> Result<()> {
        let get = Get {
            cookie: self.session().cookie,
            id,
            want,
        };
        self.gets.extend_from_slice(&get.encode());
        if self.gets.len() == GETS_PER_SEND * GET_BYTES {
            self.flush()?;
        }
        Ok(())
    }

    /// Sends the batch.
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
            // Counts as lost on the path, and is requested again.
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error).with_context(|| format!("cannot send to {}", self.edge)),
        }
    }

    /// Passes each waiting datagram but a WELCOME to `take`. Does not block.
    pub fn receive(&mut self, inbox: &mut Inbox, mut take: impl FnMut(&[u8])) -> Result<()> {
        let cookies = &mut self.cookies;
        receive(&self.socket, &self.state, inbox, |datagram| {
            if datagram.starts_with(&opening(Kind::Welcome)) {
                return cookies.on_datagram(datagram, clock::now());
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

/// Errors that do not affect the next call: buffer full or empty, interrupted, or an ICMP error,
/// which can be forged.
fn is_passing(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionRefused, Interrupted, WouldBlock};
    matches!(error.kind(), WouldBlock | Interrupted | ConnectionRefused)
        || error.raw_os_error() == Some(rustix::io::Errno::NOBUFS.raw_os_error())
}

/// Waits until one of the sockets is readable.
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

#[cfg(test)]
mod tests {
    use std::thread;

    use edge_ebpf::wire::Welcome;
    use edge_testbed::fake_edge::{self, Asked, padded};

    use super::*;

    /// Answers the next HELLO with a cookie of this value.
    fn welcome(edge: &UdpSocket, value: u8, segment_bytes: u16) {
        let mut datagram = [0; DATAGRAM_BYTES_MAX];
        let (len_bytes, client) = edge.recv_from(&mut datagram).unwrap();
        let Some(Asked::Hello(hello, _)) = Asked::read(&datagram[..len_bytes]) else {
            panic!("no HELLO");
        };
        let welcome = Welcome {
            segment_bytes,
            ..fake_edge::welcome(&hello, value)
        };
        edge.send_to(&padded(&welcome, len_bytes), client).unwrap();
    }

    #[test]
    fn a_cookie_is_renewed_in_the_middle_of_its_life_and_serves_until_its_end() {
        let edge = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = edge.local_addr().unwrap();
        let mut lane = thread::scope(|scope| {
            scope.spawn(|| welcome(&edge, 1, 1216));
            Lane::open(address).unwrap()
        });
        let begin = clock::now();
        let mut inbox = Inbox::default();
        let at = |seconds| begin + Duration::from_secs(seconds);
        edge.set_nonblocking(true).unwrap();
        lane.keep(at(59)).unwrap();
        edge.recv(&mut []).expect_err("a HELLO is not due yet");
        edge.set_nonblocking(false).unwrap();
        lane.keep(at(60)).unwrap();
        assert_eq!(lane.session().cookie.value, [1; 8]);
        welcome(&edge, 2, 1216);
        lane.receive(&mut inbox, |_| {}).unwrap();
        assert_eq!(lane.session().cookie.value, [2; 8]);

        let silent = (60..400).find_map(|seconds| {
            let error = lane.keep(at(seconds)).err()?;
            assert_eq!(lane.session().cookie.value, [2; 8]);
            Some((seconds, format!("{error:#}")))
        });
        let (seconds, error) = silent.expect("it comes to an end");
        assert!((115..130).contains(&seconds), "{seconds}");
        assert!(error.contains("does not answer any more"), "{error}");
    }

    #[test]
    fn an_edge_that_changes_its_segments_is_refused() {
        let edge = UdpSocket::bind("127.0.0.1:0").unwrap();
        let address = edge.local_addr().unwrap();
        let mut lane = thread::scope(|scope| {
            scope.spawn(|| welcome(&edge, 1, 1216));
            Lane::open(address).unwrap()
        });
        lane.keep(clock::now() + Duration::from_mins(1)).unwrap();
        welcome(&edge, 2, 1100);
        let refused = lane.receive(&mut Inbox::default(), |_| {});
        let error = refused.unwrap_err().to_string();
        assert!(error.contains("changed its segment size"), "{error}");
    }
}
