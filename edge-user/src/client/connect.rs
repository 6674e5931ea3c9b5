//! Tries the addresses of an edge (RFC 8305) and uses the first that sends a WELCOME.

use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::channel::Channel;
use super::failure::Failure;
use super::handshake::{DATAGRAM_BYTES_MAX, Event, Handshake, Step};
use super::socket::ReceiveBuffers;
use super::stop::Stop;

/// Delay before the next address is tried (RFC 8305, "Connection Attempt Delay").
const ATTEMPT_DELAY: Duration = Duration::from_millis(250);
/// Addresses of one name that are tried.
pub const ADDRESSES_MAX: usize = 16;

/// An edge that has sent a WELCOME.
pub struct Connected {
    pub edge: SocketAddr,
    /// Of the last HELLO, which validated the segment size.
    pub rtt: Duration,
    /// The origin of the handshake's times.
    pub(super) start: Instant,
    pub(super) channel: Channel,
    pub(super) handshake: Handshake,
}

struct Candidate {
    edge: SocketAddr,
    starts_at: Duration,
    channel: Channel,
    handshake: Handshake,
    failure: Option<Failure>,
}

/// Returns the first edge that answers, or why none did.
#[expect(
    clippy::disallowed_methods,
    reason = "this is a loop, which reads the clock"
)]
pub fn connect(
    edges: &[SocketAddr],
    timeout: Option<Duration>,
    stop: &Stop,
) -> Result<Connected, Failure> {
    let start = Instant::now();
    let starts = (0..).map(|number| ATTEMPT_DELAY * number);
    let mut candidates: Vec<_> = edges
        .iter()
        .take(ADDRESSES_MAX)
        .zip(starts)
        .map(|(edge, starts_at)| Candidate::new(*edge, starts_at))
        .collect();
    let mut buffers = ReceiveBuffers::default();
    while !stop.requested().load(Ordering::Relaxed) {
        let now = start.elapsed();
        let mut wake = Duration::MAX;
        for candidate in &mut candidates {
            if candidate.failure.is_some() {
                continue;
            }
            if now < candidate.starts_at && wake < Duration::MAX {
                // An earlier one is still in progress.
                wake = wake.min(candidate.starts_at);
                break;
            }
            candidate.starts_at = now.min(candidate.starts_at);
            wake = wake.min(candidate.act(now, timeout));
        }
        if candidates
            .iter()
            .all(|candidate| candidate.failure.is_some())
        {
            return Err(all_failed(candidates));
        }
        let channels: Vec<_> = candidates
            .iter()
            .map(|candidate| &candidate.channel)
            .collect();
        Channel::wait_any(
            &channels,
            stop.wakeup(),
            wake.saturating_sub(start.elapsed()),
        );
        for at in 0..candidates.len() {
            let event = candidates[at].on_datagram(&mut buffers, start);
            if let Some(rtt) = event {
                let Candidate {
                    edge,
                    channel,
                    handshake,
                    ..
                } = candidates.swap_remove(at);
                return Ok(Connected {
                    edge,
                    rtt,
                    start,
                    channel,
                    handshake,
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
            channel: Channel::new(edge),
            handshake: Handshake::default(),
            failure: None,
        }
    }

    /// Sends what is due. Returns when to act again if nothing arrives.
    fn act(&mut self, now: Duration, timeout: Option<Duration>) -> Duration {
        let mut out = [0; DATAGRAM_BYTES_MAX];
        let until = timeout.map_or(Duration::ZERO, |timeout| self.starts_at + timeout);
        loop {
            if timeout.is_some() && now >= until {
                self.failure = Some(self.handshake.failure());
                return Duration::MAX;
            }
            let none = Duration::ZERO;
            let step = self
                .handshake
                .step(now, until, none, &mut out, &mut rand::random);
            let outcome = match step {
                Step::Open => self.channel.open().map(|held| match held {
                    Some(_) => self.handshake.opened(),
                    None => self.handshake.send_failed(now),
                }),
                Step::Send(len_bytes) => self.channel.send(&out[..len_bytes]).map(|sent| {
                    if !sent {
                        self.handshake.send_failed(now);
                    }
                }),
                Step::Wait(wake) if timeout.is_some() => return wake.min(until),
                Step::Wait(wake) => return wake,
                Step::Failed(failure) => Err(failure),
            };
            if let Err(failure) = outcome {
                self.failure = Some(failure);
                return Duration::MAX;
            }
        }
    }

    /// Handles what has arrived. Returns the round-trip time once the handshake is complete.
    fn on_datagram(&mut self, buffers: &mut ReceiveBuffers, start: Instant) -> Option<Duration> {
        if self.failure.is_some() {
            return None;
        }
        let mut event = Event::Ignored;
        let handshake = &mut self.handshake;
        self.channel.receive(buffers, |datagram| {
            if matches!(event, Event::Ignored) {
                event = handshake.on_datagram(start.elapsed(), datagram);
            }
        });
        match event {
            Event::Ignored | Event::Continue => None,
            Event::Failed(failure) => {
                self.failure = Some(failure);
                None
            }
            Event::Completed { rtt } => Some(rtt.unwrap_or_default()),
        }
    }
}

fn all_failed(mut candidates: Vec<Candidate>) -> Failure {
    let alone = candidates.len() == 1;
    let explained = candidates.drain(..).map(|candidate| {
        let failure = candidate.failure.unwrap_or(Failure::Unanswered);
        (candidate.edge, candidate.channel.explain(failure, alone))
    });
    let mut explained: Vec<_> = explained.collect();
    match explained.pop() {
        Some((_, failure)) if alone => failure,
        last => Failure::AllFailed(explained.into_iter().chain(last).collect()),
    }
}
