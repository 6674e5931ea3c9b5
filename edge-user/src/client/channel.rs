//! The current socket to an edge, and the last network error.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::io::Errno;

use super::failure::Failure;
use super::misrouted;
use super::socket::{EdgeSocket, ReceiveBuffers, Received, Sent};
use crate::event_fd::EventFd;

pub(super) struct Channel {
    edge: SocketAddr,
    socket: Option<EdgeSocket>,
    /// Explains missing replies.
    network_error: Option<Failure>,
}

impl Channel {
    pub(super) fn new(edge: SocketAddr) -> Self {
        Self {
            edge,
            socket: None,
            network_error: None,
        }
    }

    /// Opens a socket on a new port. Returns how many segments its receive buffer holds, or nothing
    /// on an error that may pass.
    pub(super) fn open(&mut self) -> Result<Option<u32>, Failure> {
        self.socket = None;
        match EdgeSocket::connect(self.edge) {
            Ok(socket) => {
                let held = socket.capacity_segments();
                self.socket = Some(socket);
                Ok(Some(held))
            }
            Err(Failure::Socket { source, .. }) if is_transient(&source) => {
                self.network_error = Some(Failure::Network(source));
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Whether the datagram left this host.
    pub(super) fn send(&mut self, datagram: &[u8]) -> Result<bool, Failure> {
        let socket = self.socket.as_ref().expect("opened before it sends");
        match socket.send(datagram) {
            Sent::Done => Ok(true),
            Sent::ConnectionRefused => {
                // Reported for an earlier datagram; this one was not sent and counts as lost.
                self.network_error = Some(Failure::ConnectionRefused);
                Ok(true)
            }
            Sent::TooLarge => Err(Failure::MtuTooSmall(datagram.len())),
            Sent::Failed(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            Sent::Failed(source) => {
                self.network_error = Some(Failure::Network(source));
                Ok(false)
            }
        }
    }

    /// How many segments the receive buffer holds.
    pub(super) fn capacity_segments(&self) -> u32 {
        let held = self.socket.as_ref().map(EdgeSocket::capacity_segments);
        held.unwrap_or_default()
    }

    /// Waits for a datagram, for `wakeup`, or until the timeout.
    pub(super) fn wait(&self, wakeup: &EventFd, timeout: Duration) {
        Self::wait_any(&[self], wakeup, timeout);
    }

    /// The same for several channels.
    pub(super) fn wait_any(channels: &[&Self], wakeup: &EventFd, timeout: Duration) {
        let sockets = channels
            .iter()
            .filter_map(|channel| channel.socket.as_ref());
        // Interrupted or not, the caller checks everything again.
        let (Ok(()) | Err(_)) = wakeup.wait(sockets.map(AsFd::as_fd), timeout);
    }

    /// Passes waiting datagrams to `take`, up to the size of the buffers. Returns whether there may
    /// be more.
    pub(super) fn receive(
        &mut self,
        buffers: &mut ReceiveBuffers,
        take: impl FnMut(&[u8]),
    ) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        match socket.receive(buffers, take) {
            Received::Datagrams => {
                self.network_error = None;
                true
            }
            Received::Nothing => false,
            Received::ConnectionRefused => {
                self.network_error = Some(Failure::ConnectionRefused);
                true
            }
        }
    }

    /// Replaces a failure without a reply by its cause, if known. With `probe`, also finds out
    /// whether another address replies, which takes a moment.
    pub(super) fn explain(self, failure: Failure, probe: bool) -> Failure {
        let silent = matches!(failure, Failure::Unanswered | Failure::Lost);
        match self.network_error {
            Some(error) if silent => error,
            _ if probe && matches!(failure, Failure::Unanswered) => {
                misrouted::reply_source(self.edge).map_or(failure, Failure::Misrouted)
            }
            Some(_) | None => failure,
        }
    }
}

/// Whether a retry may succeed: an interface is down, an address or route is missing, or ports or
/// memory are exhausted.
fn is_transient(error: &io::Error) -> bool {
    use ErrorKind::{
        AddrInUse, AddrNotAvailable, HostUnreachable, NetworkDown, NetworkUnreachable, WouldBlock,
    };
    let kinds = [
        AddrInUse,
        AddrNotAvailable,
        HostUnreachable,
        NetworkDown,
        NetworkUnreachable,
        WouldBlock,
    ];
    let errno = Errno::from_io_error(error);
    kinds.contains(&error.kind()) || matches!(errno, Some(Errno::NOBUFS | Errno::NODEV))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_errors_are_transient_and_invalid_addresses_are_not() {
        let transient = |errno: Errno| is_transient(&errno.into());
        for errno in [
            Errno::NETUNREACH,
            Errno::NETDOWN,
            Errno::HOSTUNREACH,
            Errno::ADDRNOTAVAIL,
            Errno::AGAIN,
            Errno::NOBUFS,
        ] {
            assert!(transient(errno), "{errno}");
        }
        for errno in [
            Errno::INVAL,
            Errno::ACCESS,
            Errno::AFNOSUPPORT,
            Errno::MFILE,
        ] {
            assert!(!transient(errno), "{errno}");
        }
    }
}
