//! Why a transfer failed. Each message states what was observed and what the user can do.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use edge_ebpf::wire::ChunkId;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum Failure {
    #[error(
        "the edge does not answer: no reply to any HELLO; is edged running, does a firewall block UDP in either direction, does the path carry packets of 1260 bytes (1280 over IPv6), and is this another host than the edge's, which never answers its own addresses?"
    )]
    Unanswered,
    #[error("the edge does not answer any more: did edged stop, or is the network down?")]
    Lost,
    #[error(
        "nothing listens at this address and port (ICMP port unreachable): is edged running, and on this port?"
    )]
    ConnectionRefused,
    #[error(
        "the reply from this address and port is not a valid WELCOME: {0}; is the port right, and is this client's address used by no other host?"
    )]
    Unexpected(Unexpected),
    #[error(
        "the reply came from {0} instead and was ignored: use that address, or look for NAT or a load balancer on the path"
    )]
    Misrouted(SocketAddr),
    #[error("this host cannot send to the edge: {0}; {hint}", hint = send_hint(.0))]
    Network(#[source] io::Error),
    #[error(
        "an interface of this host cannot send datagrams of {0} bytes: raise its MTU (`ip link`); 1500 is always sufficient"
    )]
    MtuTooSmall(usize),
    #[error(
        "the edge answers shorter HELLOs, but none of {0} bytes, as its segment size requires: the path MTU is too small; lower service.segment_bytes on the edge"
    )]
    PathTooNarrow(usize),
    #[error("the edge uses protocol version {0}, and this program version 1: update the older one")]
    Version(u8),
    #[error(
        "the edge sent a WELCOME with {field} = {value}, but version 1 allows {allowed}: it is broken, or not an edge"
    )]
    BadWelcome {
        field: &'static str,
        value: u32,
        allowed: &'static str,
    },
    #[error(
        "the edge refuses its own cookies: do all edges behind this address share cookie.secret_file, and are their clocks synchronised?"
    )]
    CookieRefused,
    #[error(
        "the edge answers HELLO, but not GET: does its firewall admit UDP to this port, and what does `edge stat` show there?"
    )]
    NoData,
    #[error(
        "the edge sends {edge_bytes} bytes for chunk {id}, but the ticket requires {ticket_bytes}: the ticket is wrong, or the edge is broken"
    )]
    LengthMismatch {
        id: ChunkId,
        edge_bytes: u32,
        ticket_bytes: u32,
    },
    #[error(
        "no origin of the edge has chunk {0}: was the file sealed to that origin, and is it complete there?"
    )]
    Absent(ChunkId),
    #[error(
        "the edge reports that chunk {0} is shorter than the ticket requires: the ticket is wrong, or the edge is broken"
    )]
    Range(ChunkId),
    #[error("the edge is overloaded (BUSY); try again later")]
    Busy,
    #[error(
        "the edge cannot get chunk {0} from its origin (unreachable, or the chunk is damaged); try again later"
    )]
    Origin(ChunkId),
    #[error(
        "the edge has been fetching chunk {0} for too long: does its origin respond? Try again later"
    )]
    Pending(ChunkId),
    #[error(
        "chunk {0} failed verification twice: the edge, or an attacker on the path, alters data; use another edge"
    )]
    Corrupt(ChunkId),
    #[error("the edge keeps changing its segment size: it is broken")]
    UnstableSegmentSize,
    #[error("cannot write: {0}")]
    Sink(#[source] io::Error),
    #[error("{action}: {source}")]
    Socket {
        action: &'static str,
        source: io::Error,
    },
    #[error("{0}")]
    Thread(#[source] io::Error),
    #[error("no address answers: {}", each(.0))]
    AllFailed(Vec<(SocketAddr, Failure)>),
    #[error("interrupted")]
    Interrupted,
}

fn each(tried: &[(SocketAddr, Failure)]) -> String {
    let each: Vec<_> = tried
        .iter()
        .map(|(edge, failure)| format!("{edge}: {failure}"))
        .collect();
    each.join("; ")
}

/// A datagram that was no valid WELCOME to our HELLO.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Unexpected {
    NotWelcome { bytes: usize },
    NonceMismatch,
    LengthMismatch { sent: usize, received: usize },
    Malformed,
}

impl fmt::Display for Unexpected {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotWelcome { bytes } => {
                write!(out, "a datagram of {bytes} bytes that is not a WELCOME")
            }
            Self::NonceMismatch => out.write_str("a WELCOME to another HELLO"),
            Self::LengthMismatch { sent, received } => {
                write!(out, "a WELCOME of {received} bytes to a HELLO of {sent}")
            }
            Self::Malformed => out.write_str("a WELCOME with reserved bytes set"),
        }
    }
}

impl Failure {
    /// Whether the same command may succeed later.
    pub fn is_temporary(&self) -> bool {
        matches!(self, Self::Busy | Self::Origin(_) | Self::Pending(_))
    }
}

/// What to check when sending fails.
fn send_hint(error: &io::Error) -> &'static str {
    if error.kind() == io::ErrorKind::PermissionDenied {
        "a firewall rule of this host forbids it: check outgoing rules (`nft list ruleset`, `iptables -S OUTPUT`)"
    } else {
        "is the interface up, and does `ip route get` find a route to this address?"
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::io::Errno;

    #[test]
    fn a_local_firewall_is_named_if_it_forbids_sending() {
        let message = |errno: Errno| Failure::Network(errno.into()).to_string();
        assert!(message(Errno::PERM).contains("a firewall rule of this host"));
        assert!(message(Errno::NETUNREACH).contains("ip route get"));
    }
}
