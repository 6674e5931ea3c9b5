//! Round trips to an edge, measured by HELLO and WELCOME. Asks for nothing and needs no cookie.

use std::net::SocketAddr;
use std::time::Duration;

use super::failure::Failure;
use super::greeting::Session;
use super::reach::reach;
use super::stop::Stop;

/// What one greeting gave.
pub struct Pong {
    /// The address that answered.
    pub edge: SocketAddr,
    /// Of the last HELLO, the one that proved the edge's segment size.
    pub rtt: Duration,
    pub session: Session,
}

/// Greets an edge once, over a socket of its own, with all the tries a transfer has.
pub fn ping(edges: &[SocketAddr], stop: &Stop) -> Result<Pong, Failure> {
    let reached = reach(edges, None, stop)?;
    let session = *reached.greeting.session().expect("welcomed just now");
    Ok(Pong {
        edge: reached.edge,
        rtt: reached.rtt,
        session,
    })
}
