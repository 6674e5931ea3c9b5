//! A UDP socket that only hears its edge, and a bell to wake who waits on it.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use quinn_udp::{RecvMeta, UdpSocketState};
use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, eventfd, poll};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::failure::Failure;

/// Asked for with the privilege to exceed `net.core.rmem_max`, and without.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// What the kernel charges the receive buffer for a segment: the datagram, its headers and the
/// room they lie in, which is about twice as large.
const CHARGE_PER_SEGMENT_BYTES: usize = 2560;
/// Buffers a receive call fills, each with one datagram or with a train of them.
const TRAINS: usize = 16;
const TRAIN_BYTES: usize = 1 << 16;

/// Where received datagrams lie until they are taken in. Made once.
pub struct Inbox {
    trains: [Box<[u8]>; TRAINS],
    metas: [RecvMeta; TRAINS],
}

impl Default for Inbox {
    fn default() -> Self {
        Self {
            trains: std::array::from_fn(|_| vec![0; TRAIN_BYTES].into_boxed_slice()),
            metas: [RecvMeta::default(); TRAINS],
        }
    }
}

/// What became of a receive call.
pub enum Received {
    Some,
    Nothing,
    /// The host says that nothing listens there.
    Refused,
}

/// What became of a datagram to send.
pub enum Sent {
    Gone,
    /// The host says that nothing listens there.
    Refused,
    TooLong,
    /// Lost on the way out; as good as lost on the path.
    Lost(io::Error),
}

pub struct EdgeSocket {
    socket: UdpSocket,
    /// Turns on receive offload and "never fragment", and receives whole trains.
    state: UdpSocketState,
}

impl EdgeSocket {
    /// A socket on a new random port, connected: what comes from elsewhere is not heard.
    pub fn connect(edge: SocketAddr) -> Result<Self, Failure> {
        let local: SocketAddr = match edge {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let failed = |action| move |source| Failure::Socket { action, source };
        let socket = UdpSocket::bind(local).map_err(failed("cannot open a UDP socket"))?;
        let state =
            UdpSocketState::new((&socket).into()).map_err(failed("cannot set up the socket"))?;
        socket
            .connect(edge)
            .map_err(failed("cannot reach the edge"))?;
        // More than the limit needs a privilege; up to the limit it is free. Either may fail:
        // what counts is what the kernel says afterwards.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).is_err() {
            match sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES) {
                Ok(()) | Err(_) => {}
            }
        }
        Ok(Self { socket, state })
    }

    /// How many segments the receive buffer really holds.
    pub fn segments_held(&self) -> u32 {
        let bytes = sockopt::socket_recv_buffer_size(&self.socket).unwrap_or(0);
        u32::try_from(bytes / CHARGE_PER_SEGMENT_BYTES).unwrap_or(u32::MAX)
    }

    pub fn send(&self, datagram: &[u8]) -> Sent {
        match self.socket.send(datagram) {
            Ok(_) => Sent::Gone,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Sent::Refused,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => Sent::TooLong,
            Err(error) => Sent::Lost(error),
        }
    }

    /// Hands each datagram that is waiting, up to the inbox's size, to `take`. Never waits.
    pub fn receive(&self, inbox: &mut Inbox, mut take: impl FnMut(&[u8])) -> Received {
        let mut slices = inbox.trains.each_mut().map(|train| IoSliceMut::new(train));
        match self
            .state
            .recv((&self.socket).into(), &mut slices, &mut inbox.metas)
        {
            Ok(count) => {
                for (train, meta) in inbox.trains.iter().zip(&inbox.metas).take(count) {
                    let stride = meta.stride.max(1);
                    train[..meta.len].chunks(stride).for_each(&mut take);
                }
                Received::Some
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Received::Refused,
            Err(_) => Received::Nothing,
        }
    }
}

/// Wakes a thread that waits on its socket.
pub struct Bell(OwnedFd);

impl Bell {
    pub fn new() -> io::Result<Self> {
        Ok(Self(eventfd(
            0,
            EventfdFlags::NONBLOCK | EventfdFlags::CLOEXEC,
        )?))
    }

    pub fn ring(&self) {
        // Fails only when it has rung billions of times and nobody came: then it still rings.
        match rustix::io::write(self.0.as_fd(), &[0, 0, 0, 1, 0, 0, 0, 0]) {
            Ok(_) | Err(_) => {}
        }
    }

    /// Waits until it rings, a datagram comes to one of the sockets, or the time is over.
    pub fn wait<'a>(&'a self, sockets: impl Iterator<Item = &'a EdgeSocket>, most: Duration) {
        let bell = PollFd::new(&self.0, PollFlags::IN);
        let sockets = sockets.map(|socket| PollFd::new(&socket.socket, PollFlags::IN));
        let mut watched: Vec<_> = [bell].into_iter().chain(sockets).collect();
        let most = Timespec::try_from(most).ok();
        // Interrupted by a signal or not: the caller looks at everything again.
        match poll(&mut watched, most.as_ref()) {
            Ok(_) | Err(_) => {}
        }
        if !watched[0].revents().is_empty() {
            self.hush();
        }
    }

    fn hush(&self) {
        // Empty means that another wait has heard it.
        match rustix::io::read(self.0.as_fd(), &mut [0_u8; 8]) {
            Ok(_) | Err(_) => {}
        }
    }
}
