//! Round trips to an edge, measured by HELLO and WELCOME. Asks for nothing and needs no cookie.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::drive::Stop;
use super::failure::Failure;
use super::greeting::{DATAGRAM_BYTES_MAX, Greeting, Heard, Session, Step, is_welcome};
use super::socket::{EdgeSocket, Inbox, Received, Sent};

/// What one greeting gave.
pub struct Pong {
    /// Of the last HELLO, the one that proved the edge's segment size.
    pub rtt: Duration,
    pub session: Session,
}

/// Greets an edge once, over a socket of its own, with all the tries a transfer has.
#[expect(
    clippy::disallowed_methods,
    reason = "this is a loop, which reads the clock"
)]
pub fn ping(edge: SocketAddr, stop: &Stop) -> Result<Pong, Failure> {
    let start = Instant::now();
    let mut greeting = Greeting::default();
    let mut socket = None;
    let mut refused = false;
    let mut inbox = Inbox::default();
    let mut out = [0; DATAGRAM_BYTES_MAX];
    while !stop.asked().load(Ordering::Relaxed) {
        match greeting.step(start.elapsed(), &mut out, &mut rand::random) {
            Step::Open => {
                socket = Some(EdgeSocket::connect(edge)?);
                greeting.opened();
            }
            Step::Send(len_bytes) => {
                let socket = socket.as_ref().expect("a greeting opens before it sends");
                match socket.send(&out[..len_bytes]) {
                    Sent::Gone => {}
                    Sent::Refused => refused = true,
                    Sent::TooLong => return Err(Failure::PathTooNarrow(len_bytes)),
                    Sent::Lost(source) => {
                        return Err(Failure::Socket {
                            action: "cannot send to the edge",
                            source,
                        });
                    }
                }
            }
            Step::Wait(until) => {
                let socket = socket.as_ref().expect("a greeting opens before it waits");
                socket.wait(stop.bell(), until.saturating_sub(start.elapsed()));
                let mut heard = Heard::Nothing;
                let received = socket.receive(&mut inbox, |datagram| {
                    if is_welcome(datagram) && matches!(heard, Heard::Nothing) {
                        heard = greeting.hear(start.elapsed(), datagram);
                    }
                });
                refused |= matches!(received, Received::Refused);
                match heard {
                    Heard::Nothing | Heard::More => {}
                    Heard::Failed(failure) => return Err(failure),
                    Heard::Welcome { rtt } => {
                        let session = *greeting.session().expect("welcomed just now");
                        return Ok(Pong {
                            rtt: rtt.unwrap_or_default(),
                            session,
                        });
                    }
                }
            }
            Step::Failed(Failure::Unanswered) if refused => return Err(Failure::Refused),
            Step::Failed(failure) => return Err(failure),
        }
    }
    Err(Failure::Interrupted)
}
