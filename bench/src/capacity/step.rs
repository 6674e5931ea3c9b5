//! One step: a rate, offered for some time, and its result.

use std::net::SocketAddr;
use std::panic::resume_unwind;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use edge_testbed::cpu::CpuTime;
use edge_testbed::pace::Pace;

use super::own;
use crate::load::Meter;
use crate::load::bulk::Bulk;
use crate::load::catalogue::Chunk;
use crate::load::mix::{Mix, Picker};
use crate::load::tally::Tally;
use crate::report::figure::float;

/// Largest share of due requests that may be unsent: beyond it the 99th percentile would omit the
/// slowest.
const UNASKED_MAX: f64 = 0.01;
/// From this load on the generator counts as saturated.
const BUSY: f64 = 0.9;
/// Share of a step's time that is spent on ramping up.
const RAMP: f64 = 0.1;
/// Maximum number of chunks in flight per client, if its receive buffer holds them.
const CHUNKS_PER_CLIENT: usize = 32;
/// How long to wait for what is in flight after a step.
const FINISH_WITHIN: Duration = Duration::from_secs(1);

/// The limits that a rate must keep.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Share of lost segments.
    pub(super) loss_max: f64,
    /// Of a whole chunk.
    pub(super) p99_max: Duration,
}

/// The limit that a rate misses.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Missed {
    /// The generator could not offer it.
    Offer,
    Loss,
    Latency,
}

#[derive(Debug)]
pub(super) struct Step {
    /// Chunks per second that fell due.
    pub(super) rate: f64,
    pub(super) seconds: f64,
    /// Payload received in this time; the tally includes what came later.
    pub(super) bytes: u64,
    pub(super) tally: Tally,
    pub(super) cpu: CpuTime,
    /// Share of the time in which the generator's threads ran or waited for a CPU.
    pub(super) busy: f64,
    /// Datagrams dropped on this host because a socket's buffer was full.
    pub(super) dropped: u64,
}

impl Step {
    /// Payload in bytes per second.
    pub(super) fn goodput(&self) -> f64 {
        float(self.bytes) / self.seconds
    }

    pub(super) fn p99_ns(&self) -> u64 {
        self.tally.percentile_ns(99.0)
    }

    /// The first limit that was missed. Corrupt chunks are handled elsewhere.
    pub(super) fn missed(&self, limits: &Limits) -> Option<Missed> {
        let due = self.rate * self.seconds;
        if float(self.tally.unasked) > due * UNASKED_MAX {
            Some(Missed::Offer)
        } else if self.tally.loss() > limits.loss_max {
            Some(Missed::Loss)
        } else if u128::from(self.p99_ns()) > limits.p99_max.as_nanos() {
            Some(Missed::Latency)
        } else {
            None
        }
    }

    /// Whether the generator was saturated.
    pub(super) fn is_own_limit(&self) -> bool {
        self.busy >= BUSY || self.dropped > 0
    }
}

/// A thread's clients and their choice of chunks.
struct Crew {
    bulk: Bulk,
    picker: Picker,
}

pub(super) struct Generator {
    crews: Vec<Crew>,
    chunks: Vec<Chunk>,
    /// Of all crews.
    clients: u32,
    /// Chunks that each has room for.
    per_client: usize,
    p99_max: Duration,
}

/// The generator's parameters.
pub(super) struct Way {
    pub(super) target: SocketAddr,
    pub(super) mix: Mix,
    pub(super) threads: u32,
    pub(super) clients: usize,
    pub(super) limits: Limits,
}

impl Generator {
    /// The first crew has fetched already.
    pub(super) fn new(first: Bulk, chunks: Vec<Chunk>, way: &Way) -> Result<Self> {
        let per_client = first.chunks_max()?.clamp(1, CHUNKS_PER_CLIENT);
        let mut first = Some(first);
        let crews = (0..way.threads)
            .map(|number| {
                let mut bulk = match first.take() {
                    Some(bulk) => bulk,
                    None => Bulk::open(way.target, way.clients, per_client)?,
                };
                // A repair takes one more round trip, and must be able to succeed within the limit.
                bulk.wait_for(way.limits.p99_max.mul_f64(0.8));
                let picker = Picker::new(way.mix, chunks.len(), u64::from(number) + 1)?;
                Ok(Crew { bulk, picker })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            crews,
            chunks,
            clients: way.threads * u32::try_from(way.clients)?,
            per_client,
            p99_max: way.limits.p99_max,
        })
    }

    pub(super) fn offer(&mut self, rate: f64, time: Duration) -> Result<Step> {
        let threads = f64::from(u32::try_from(self.crews.len())?);
        let pace = Pace::Open(rate / threads);
        let per_client = under_way(rate, self.p99_max, self.clients).min(self.per_client);
        for crew in &mut self.crews {
            crew.bulk.chunks_per_client = per_client;
        }
        let chunks = &self.chunks;
        let run = |crew: &mut Crew, time| crew.bulk.run(chunks, &mut crew.picker, pace, time);
        at_once(&mut self.crews, |crew| run(crew, time.mul_f64(RAMP)))?;
        for crew in &mut self.crews {
            crew.bulk.tally = Tally::default();
        }
        let dropped = own::dropped_datagrams()?;
        let meter = Meter::start()?;
        let busy = at_once(&mut self.crews, |crew| {
            let before = own::busy_seconds()?;
            run(crew, time)?;
            Ok(own::busy_seconds()? - before)
        })?;
        let (seconds, cpu) = meter.read()?;
        let dropped = own::dropped_datagrams()?.saturating_sub(dropped);
        let bytes = self.crews.iter().map(|crew| crew.bulk.tally.bytes).sum();
        let most = FINISH_WITHIN.max(self.p99_max * 2);
        at_once(&mut self.crews, |crew| crew.bulk.finish(most))?;
        let mut tally = Tally::default();
        for crew in &self.crews {
            tally.add(&crew.bulk.tally);
        }
        Ok(Step {
            rate,
            seconds,
            bytes,
            tally,
            cpu,
            busy: busy.iter().sum::<f64>() / (seconds * threads),
            dropped,
        })
    }
}

/// Chunks in flight per client if each takes as long as allowed. More would exceed the limit
/// anyway, and overload an edge that is late.
fn under_way(rate: f64, p99_max: Duration, clients: u32) -> usize {
    let all = (rate * p99_max.as_secs_f64()).min(f64::from(u32::MAX));
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "a count of chunks"
    )]
    let all = all as u32;
    all.div_ceil(clients).max(1) as usize
}

/// Runs each crew in a thread of its own.
fn at_once<T: Send>(
    crews: &mut [Crew],
    work: impl Fn(&mut Crew) -> Result<T> + Sync,
) -> Result<Vec<T>> {
    let work = &work;
    thread::scope(|scope| {
        let crews = crews.iter_mut();
        let running: Vec<_> = crews.map(|crew| scope.spawn(move || work(crew))).collect();
        let ended = running.into_iter().map(|thread| {
            let ended = thread.join();
            ended.unwrap_or_else(|panic| resume_unwind(panic))
        });
        ended.collect()
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(crate) const LIMITS: Limits = Limits {
        loss_max: 0.001,
        p99_max: Duration::from_millis(50),
    };

    /// One second of chunks of 128 KiB that all arrived after 8 ms.
    pub(crate) fn step(rate: u32) -> Step {
        let mut tally = Tally {
            segments: u64::from(rate) * 108,
            chunks: rate.into(),
            ..Tally::default()
        };
        for _ in 0..rate {
            tally.latency(Duration::from_millis(8));
        }
        Step {
            rate: rate.into(),
            seconds: 1.0,
            bytes: u64::from(rate) << 17,
            tally,
            cpu: CpuTime::default(),
            busy: 0.5,
            dropped: 0,
        }
    }

    #[test]
    fn a_step_is_judged_by_the_first_limit_it_misses() {
        let missed = |change: &dyn Fn(&mut Step)| {
            let mut step = step(1000);
            change(&mut step);
            step.missed(&LIMITS)
        };
        assert_eq!(missed(&|_| ()), None);
        assert_eq!(missed(&|step| step.tally.unasked = 10), None);
        assert_eq!(missed(&|step| step.tally.unasked = 11), Some(Missed::Offer));
        assert_eq!(missed(&|step| step.tally.overdue = 108), None);
        assert_eq!(missed(&|step| step.tally.overdue = 109), Some(Missed::Loss));
        let slow = |count| {
            missed(&|step: &mut Step| {
                for _ in 0..count {
                    step.tally.latency(Duration::from_millis(60));
                }
            })
        };
        assert_eq!((slow(5), slow(20)), (None, Some(Missed::Latency)));
    }

    #[test]
    fn no_more_is_under_way_than_the_limit_of_latency_allows() {
        // 1000 per second, each for 50 ms.
        assert_eq!(under_way(1000.0, LIMITS.p99_max, 8), 7);
        assert_eq!(under_way(64.0, LIMITS.p99_max, 8), 1);
        assert_eq!(under_way(1e300, LIMITS.p99_max, 1), u32::MAX as usize);
    }

    #[test]
    fn what_the_generator_could_not_bear_is_its_own_limit() {
        let mut step = step(10);
        assert!(!step.is_own_limit());
        step.dropped = 1;
        assert!(step.is_own_limit());
        (step.dropped, step.busy) = (0, 0.95);
        assert!(step.is_own_limit());
    }
}
