//! The way to an edge: one socket at a time, and what the network last said against it.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::time::Duration;

use rustix::io::Errno;

use super::failure::Failure;
use super::socket::{Bell, EdgeSocket, Inbox, Received, Sent};
use super::stray;

pub(super) struct Line {
    edge: SocketAddr,
    socket: Option<EdgeSocket>,
    /// Explains a silence better than we can.
    trouble: Option<Failure>,
}

impl Line {
    pub(super) fn new(edge: SocketAddr) -> Self {
        Self {
            edge,
            socket: None,
            trouble: None,
        }
    }

    /// Takes a socket on a new port; gives how many segments its receive buffer holds, or nothing
    /// while the network lets nobody out.
    pub(super) fn open(&mut self) -> Result<Option<u32>, Failure> {
        self.socket = None;
        match EdgeSocket::connect(self.edge) {
            Ok(socket) => {
                let held = socket.segments_held();
                self.socket = Some(socket);
                Ok(Some(held))
            }
            Err(Failure::Socket { source, .. }) if may_pass(&source) => {
                self.trouble = Some(Failure::Network(source));
                Ok(None)
            }
            Err(failure) => Err(failure),
        }
    }

    /// Whether the datagram left this host.
    pub(super) fn send(&mut self, datagram: &[u8]) -> Result<bool, Failure> {
        let socket = self.socket.as_ref().expect("opened before it sends");
        match socket.send(datagram) {
            Sent::Gone => Ok(true),
            Sent::Refused => {
                // Said of an earlier datagram, and this one stayed here: it is as good as lost.
                self.trouble = Some(Failure::Refused);
                Ok(true)
            }
            Sent::TooLong => Err(Failure::MtuTooSmall(datagram.len())),
            Sent::Lost(error) if error.kind() == ErrorKind::WouldBlock => Ok(true),
            Sent::Lost(source) => {
                self.trouble = Some(Failure::Network(source));
                Ok(false)
            }
        }
    }

    /// How many segments the socket's receive buffer holds.
    pub(super) fn segments_held(&self) -> u32 {
        let held = self.socket.as_ref().map(EdgeSocket::segments_held);
        held.unwrap_or_default()
    }

    /// Waits until a datagram comes, the bell rings, or the time is over.
    pub(super) fn wait(&self, bell: &Bell, most: Duration) {
        Self::wait_any(&[self], bell, most);
    }

    /// The same for several lines.
    pub(super) fn wait_any(lines: &[&Self], bell: &Bell, most: Duration) {
        bell.wait(lines.iter().filter_map(|line| line.socket.as_ref()), most);
    }

    /// Hands over what is waiting, up to the inbox's size; whether there may be more.
    pub(super) fn receive(&mut self, inbox: &mut Inbox, take: impl FnMut(&[u8])) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        match socket.receive(inbox, take) {
            Received::Some => {
                self.trouble = None;
                true
            }
            Received::Nothing => false,
            Received::Refused => {
                self.trouble = Some(Failure::Refused);
                true
            }
        }
    }

    /// The failure, or what else is known about it where it is a silence; on request also whether
    /// another address answers, which takes a moment.
    pub(super) fn explain(self, failure: Failure, look: bool) -> Failure {
        let silent = matches!(failure, Failure::Unanswered | Failure::Gone);
        match self.trouble {
            Some(trouble) if silent => trouble,
            _ if look && matches!(failure, Failure::Unanswered) => {
                stray::answered_from(self.edge).map_or(failure, Failure::Elsewhere)
            }
            Some(_) | None => failure,
        }
    }
}

/// Whether the network may soon let out what it refused: an interface that is down, an address or
/// a route that is gone, no port or no memory left.
fn may_pass(error: &io::Error) -> bool {
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
    fn an_interface_that_is_down_may_come_back_and_a_wrong_address_does_not_get_right() {
        let passes = |errno: Errno| may_pass(&errno.into());
        for errno in [
            Errno::NETUNREACH,
            Errno::NETDOWN,
            Errno::HOSTUNREACH,
            Errno::ADDRNOTAVAIL,
            Errno::AGAIN,
            Errno::NOBUFS,
        ] {
            assert!(passes(errno), "{errno}");
        }
        for errno in [
            Errno::INVAL,
            Errno::ACCESS,
            Errno::AFNOSUPPORT,
            Errno::MFILE,
        ] {
            assert!(!passes(errno), "{errno}");
        }
    }
}
