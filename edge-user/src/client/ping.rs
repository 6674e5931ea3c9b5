//! Measures round-trip times to an edge by HELLO and WELCOME.

use std::net::SocketAddr;
use std::time::Duration;

use super::connect::connect;
use super::failure::Failure;
use super::handshake::Session;
use super::stop::Stop;

/// The result of one handshake.
pub struct Pong {
    pub edge: SocketAddr,
    /// Of the last HELLO, which validated the segment size.
    pub rtt: Duration,
    pub session: Session,
}

/// One handshake, over a new socket, with as many attempts as in a transfer.
pub fn ping(edges: &[SocketAddr], stop: &Stop) -> Result<Pong, Failure> {
    let connected = connect(edges, None, stop)?;
    let session = *connected.handshake.session().expect("welcomed just now");
    Ok(Pong {
        edge: connected.edge,
        rtt: connected.rtt,
        session,
    })
}
