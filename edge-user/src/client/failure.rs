//! Why a transfer failed. Each message states what was observed and what the user can do.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use edge_ebpf::wire::ChunkId;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum Failure {
    #[error(
        "the edge does not answer: nothing at all came back to our greetings; is edged running there, does a firewall let UDP through both ways, does the path carry packets of 1260 bytes (1280 over IPv6), and is this another host than the edge's own, whose addresses it never answers?"
    )]
    Unanswered,
    #[error(
        "the edge does not answer any more, and did before: did edged stop, or the network between?"
    )]
    Lost,
    #[error(
        "nothing listens at this address and port, says the host there (ICMP): is edged running there, and on this port?"
    )]
    ConnectionRefused,
    #[error(
        "what this address and port sends is no answer to our HELLO: {0}; is the port right, and is our own address ours alone?"
    )]
    Unexpected(Unexpected),
    #[error(
        "the answer comes from {0} instead, and such a one is not heard: name that address, or see who rewrites addresses on the way"
    )]
    Misrouted(SocketAddr),
    #[error("this host cannot send to the edge: {0}; {hint}", hint = send_hint(.0))]
    Network(#[source] io::Error),
    #[error(
        "an interface of this host takes no datagram of {0} bytes: raise its MTU (`ip link`); 1500 is always enough"
    )]
    MtuTooSmall(usize),
    #[error(
        "the edge answers shorter greetings, and none of {0} bytes, which its segments need: the path is too narrow for them; lower service.segment_bytes of the edge"
    )]
    PathTooNarrow(usize),
    #[error("the edge speaks protocol version {0}, this program version 1: update the older one")]
    Version(u8),
    #[error(
        "the edge greets with {field} = {value}, and version 1 allows {allowed}: it is broken, or no edge"
    )]
    BadWelcome {
        field: &'static str,
        value: u32,
        allowed: &'static str,
    },
    #[error(
        "the edge refuses the cookies it gives: do the edges behind this address share cookie.secret_file and the time of day?"
    )]
    CookieRefused,
    #[error(
        "the edge answers greetings, and no request for data: does the firewall there let UDP to this port in, and what does `edge stat` count there?"
    )]
    NoData,
    #[error(
        "the edge sends chunk {id} with {edge_bytes} bytes, where the ticket makes it {ticket_bytes}: the ticket is wrong, or the edge is broken"
    )]
    LengthMismatch {
        id: ChunkId,
        edge_bytes: u32,
        ticket_bytes: u32,
    },
    #[error(
        "no origin of the edge has chunk {0}: was the object sealed to that origin, and is all of it there?"
    )]
    Absent(ChunkId),
    #[error(
        "the edge says that chunk {0} is shorter than the ticket makes it: the ticket is wrong, or the edge is broken"
    )]
    Range(ChunkId),
    #[error("the edge says that it is over its limits (BUSY); try again later")]
    Busy,
    #[error(
        "the edge cannot get chunk {0} from its origin (unreachable, or the chunk is damaged there); try again later"
    )]
    Origin(ChunkId),
    #[error(
        "the edge has been fetching chunk {0} for too long: does its origin answer? Try again later"
    )]
    Pending(ChunkId),
    #[error(
        "chunk {0} came altered twice: the edge, or somebody on the way, changes data; use another edge"
    )]
    Corrupt(ChunkId),
    #[error("the edge changes the size of its segments again and again: it is broken")]
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
    #[error("no address of it answers: {}", each(.0))]
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
                write!(
                    out,
                    "it sent {bytes} bytes that are no WELCOME to our HELLO"
                )
            }
            Self::NonceMismatch => out.write_str("its WELCOME answers somebody else's HELLO"),
            Self::LengthMismatch { sent, received } => write!(
                out,
                "its WELCOME has {received} bytes, our HELLO had {sent}, and both must have as many"
            ),
            Self::Malformed => out.write_str("its WELCOME sets bytes that version 1 reserves"),
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
        "a firewall rule of this host forbids it: look at what leaves (`nft list ruleset`, `iptables -S OUTPUT`)"
    } else {
        "is the interface up, and does `ip route get` know a way to this address?"
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
