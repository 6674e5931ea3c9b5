//! Greets the addresses of an edge in turn (RFC 8305): the first that sends a WELCOME is used.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::failure::Failure;
use super::greeting::{DATAGRAM_BYTES_MAX, Greeting, Heard, Step};
use super::line::Line;
use super::socket::Inbox;
use super::stop::Stop;

/// The next address is greeted when the one before has not answered for this long.
const APART: Duration = Duration::from_millis(250);
/// More addresses of one name are not tried.
pub const ADDRESSES_MAX: usize = 16;

/// An edge that has sent a WELCOME.
pub struct Reached {
    pub edge: SocketAddr,
    /// Of the last HELLO, the one that proved the edge's segment size.
    pub rtt: Duration,
    /// The times of the greeting count from here.
    pub(super) start: Instant,
    pub(super) line: Line,
    pub(super) greeting: Greeting,
}

struct Candidate {
    edge: SocketAddr,
    starts_at: Duration,
    line: Line,
    greeting: Greeting,
    failure: Option<Failure>,
}

/// Greets until one address answers, or none has within its tries or the patience.
#[expect(
    clippy::disallowed_methods,
    reason = "this is a loop, which reads the clock"
)]
pub fn reach(
    edges: &[SocketAddr],
    patience: Option<Duration>,
    stop: &Stop,
) -> Result<Reached, Failure> {
    let start = Instant::now();
    let starts = (0..).map(|number| APART * number);
    let mut candidates: Vec<_> = edges
        .iter()
        .take(ADDRESSES_MAX)
        .zip(starts)
        .map(|(edge, starts_at)| Candidate::new(*edge, starts_at))
        .collect();
    let mut inbox = Inbox::default();
    while !stop.asked().load(Ordering::Relaxed) {
        let now = start.elapsed();
        let mut wake = Duration::MAX;
        for candidate in &mut candidates {
            if candidate.failure.is_some() {
                continue;
            }
            if now < candidate.starts_at && wake < Duration::MAX {
                // One before it is still waited for.
                wake = wake.min(candidate.starts_at);
                break;
            }
            candidate.starts_at = now.min(candidate.starts_at);
            wake = wake.min(candidate.act(now, patience));
        }
        if candidates
            .iter()
            .all(|candidate| candidate.failure.is_some())
        {
            return Err(all_failed(candidates));
        }
        let lines: Vec<_> = candidates.iter().map(|candidate| &candidate.line).collect();
        Line::wait_any(&lines, stop.bell(), wake.saturating_sub(start.elapsed()));
        for at in 0..candidates.len() {
            let heard = candidates[at].hear(&mut inbox, start);
            if let Some(rtt) = heard {
                let Candidate {
                    edge,
                    line,
                    greeting,
                    ..
                } = candidates.swap_remove(at);
                return Ok(Reached {
                    edge,
                    rtt,
                    start,
                    line,
                    greeting,
                });
            }
        }
    }
    Err(Failure::Interrupted)
}

impl Candidate {
    fn new(edge: SocketAddr, starts_at: Duration) -> Self {
        Self {
            edge,
            starts_at,
            line: Line::new(edge),
            greeting: Greeting::default(),
            failure: None,
        }
    }

    /// Sends what is due, and gives the moment at which to act again, unless something comes.
    fn act(&mut self, now: Duration, patience: Option<Duration>) -> Duration {
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let until = patience.map_or(Duration::ZERO, |patience| self.starts_at + patience);
        loop {
            if patience.is_some() && now >= until {
                self.failure = Some(self.greeting.failure());
                return Duration::MAX;
            }
            let none = Duration::ZERO;
            let step = self
                .greeting
                .step(now, until, none, &mut out, &mut rand::random);
            let outcome = match step {
                Step::Open => self.line.open().map(|held| match held {
                    Some(_) => self.greeting.opened(),
                    None => self.greeting.unsent(now),
                }),
                Step::Send(len_bytes) => self.line.send(&out[..len_bytes]).map(|sent| {
                    if !sent {
                        self.greeting.unsent(now);
                    }
                }),
                Step::Wait(wake) if patience.is_some() => return wake.min(until),
                Step::Wait(wake) => return wake,
                Step::Failed(failure) => Err(failure),
            };
            if let Err(failure) = outcome {
                self.failure = Some(failure);
                return Duration::MAX;
            }
        }
    }

    /// Takes in what has come; gives the round trip once the edge can be asked for data.
    fn hear(&mut self, inbox: &mut Inbox, start: Instant) -> Option<Duration> {
        if self.failure.is_some() {
            return None;
        }
        let mut heard = Heard::Nothing;
        let greeting = &mut self.greeting;
        self.line.receive(inbox, |datagram| {
            if matches!(heard, Heard::Nothing) {
                heard = greeting.hear(start.elapsed(), datagram);
            }
        });
        match heard {
            Heard::Nothing | Heard::More => None,
            Heard::Failed(failure) => {
                self.failure = Some(failure);
                None
            }
            Heard::Welcome { rtt } => Some(rtt.unwrap_or_default()),
        }
    }
}

fn all_failed(mut candidates: Vec<Candidate>) -> Failure {
    let alone = candidates.len() == 1;
    let explained = candidates.drain(..).map(|candidate| {
        let failure = candidate.failure.unwrap_or(Failure::Unanswered);
        (candidate.edge, candidate.line.explain(failure, alone))
    });
    let mut explained: Vec<_> = explained.collect();
    match explained.pop() {
        Some((_, failure)) if alone => failure,
        last => Failure::Nobody(explained.into_iter().chain(last).collect()),
    }
}
