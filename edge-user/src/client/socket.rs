//! A connected UDP socket.

use std::io::{self, ErrorKind, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::os::fd::{AsFd, BorrowedFd};

use quinn_udp::{RecvMeta, UdpSocketState};
use rustix::io::Errno;
use rustix::net::sockopt;

use super::failure::Failure;

/// Exceeds `net.core.rmem_max` if privileges allow.
const RECEIVE_BUFFER_BYTES: usize = 8 << 20;
/// What the kernel charges to the receive buffer for a segment: the allocation is about twice as
/// large as the datagram with its headers.
const CHARGE_PER_SEGMENT_BYTES: usize = 2560;
/// Buffers for one receive call, each for one datagram or for several (GRO).
const BUFFERS: usize = 16;
const BUFFER_BYTES: usize = 1 << 16;

pub struct ReceiveBuffers {
    buffers: [Box<[u8]>; BUFFERS],
    metas: [RecvMeta; BUFFERS],
}

impl Default for ReceiveBuffers {
    fn default() -> Self {
        Self {
            buffers: std::array::from_fn(|_| vec![0; BUFFER_BYTES].into_boxed_slice()),
            metas: [RecvMeta::default(); BUFFERS],
        }
    }
}

/// Outcome of a receive call.
pub enum Received {
    Datagrams,
    Nothing,
    /// ICMP port unreachable.
    ConnectionRefused,
}

/// Outcome of a send.
pub enum Sent {
    Done,
    /// ICMP port unreachable, for an earlier datagram.
    ConnectionRefused,
    TooLarge,
    Failed(io::Error),
}

pub struct EdgeSocket {
    socket: UdpSocket,
    /// Turns on receive offload and "never fragment", and receives whole buffers.
    state: UdpSocketState,
}

impl EdgeSocket {
    /// On a random port. Receives only from the edge's address.
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
        // Exceeding the limit needs a privilege. Either call may fail: `capacity_segments` asks for
        // the result.
        if sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER_BYTES).is_err() {
            match sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES) {
                Ok(()) | Err(_) => {}
            }
        }
        Ok(Self { socket, state })
    }

    /// How many segments the receive buffer holds.
    pub fn capacity_segments(&self) -> u32 {
        let bytes = sockopt::socket_recv_buffer_size(&self.socket).unwrap_or(0);
        u32::try_from(bytes / CHARGE_PER_SEGMENT_BYTES).unwrap_or(u32::MAX)
    }

    pub fn send(&self, datagram: &[u8]) -> Sent {
        match self.socket.send(datagram) {
            Ok(_) => Sent::Done,
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => Sent::ConnectionRefused,
            Err(error) if Errno::from_io_error(&error) == Some(Errno::MSGSIZE) => Sent::TooLarge,
            Err(error) => Sent::Failed(error),
        }
    }

    /// Passes each waiting datagram to `take`, up to the size of the buffers. Never blocks.
    pub fn receive(&self, into: &mut ReceiveBuffers, mut take: impl FnMut(&[u8])) -> Received {
        let mut slices = into
            .buffers
            .each_mut()
            .map(|buffer| IoSliceMut::new(buffer));
        match self
            .state
            .recv((&self.socket).into(), &mut slices, &mut into.metas)
        {
            Ok(count) => {
                for (buffer, meta) in into.buffers.iter().zip(&into.metas).take(count) {
                    let stride = meta.stride.max(1);
                    buffer[..meta.len].chunks(stride).for_each(&mut take);
                }
                Received::Datagrams
            }
            Err(error) if error.kind() == ErrorKind::ConnectionRefused => {
                Received::ConnectionRefused
            }
            Err(_) => Received::Nothing,
        }
    }
}

impl AsFd for EdgeSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
