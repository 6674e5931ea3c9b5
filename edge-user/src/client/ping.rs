//! Round trips to an edge, measured by HELLO and WELCOME. Asks for nothing and needs no cookie.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::drive::Stop;
use super::failure::Failure;
use super::greeting::{DATAGRAM_BYTES_MAX, Greeting, Heard, Session, Step};
use super::line::Line;
use super::socket::Inbox;

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
    let mut line = Line::new(edge);
    let mut inbox = Inbox::default();
    let mut out = [0; DATAGRAM_BYTES_MAX];
    while !stop.asked().load(Ordering::Relaxed) {
        let (now, at_once) = (start.elapsed(), Duration::ZERO);
        match greeting.step(now, at_once, at_once, &mut out, &mut rand::random) {
            Step::Open => match line.open()? {
                Some(_) => greeting.opened(),
                None => greeting.unsent(start.elapsed()),
            },
            Step::Send(len_bytes) => {
                if !line.send(&out[..len_bytes])? {
                    greeting.unsent(start.elapsed());
                }
            }
            Step::Wait(until) => {
                line.wait(stop.bell(), until.saturating_sub(start.elapsed()));
                let mut heard = Heard::Nothing;
                line.receive(&mut inbox, |datagram| {
                    if matches!(heard, Heard::Nothing) {
                        heard = greeting.hear(start.elapsed(), datagram);
                    }
                });
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
            Step::Failed(failure) => return Err(line.explain(failure)),
        }
    }
    Err(Failure::Interrupted)
}
