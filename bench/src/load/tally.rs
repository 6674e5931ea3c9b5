//! What a generator counted.

use std::time::Duration;

use anyhow::Result;
use edge_testbed::cpu::CpuTime;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::report::latency;

const LATE_AFTER: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub struct Tally {
    /// Payload that came in and was wanted.
    pub bytes: u64,
    pub datagrams: u64,
    /// GETs, and chunks or segments that were asked for again.
    pub requests: u64,
    pub repeats: u64,
    /// Segments that were asked for, and how often one of them did not come in time.
    pub segments: u64,
    pub overdue: u64,
    /// Of an open loop: asked for more than a millisecond after they were due, and not at all.
    pub late: u64,
    pub unasked: u64,
    /// Answers that were complete.
    pub chunks: u64,
    pub verified: u64,
    /// Chunks that were not what they were asked for as.
    pub wrong: u64,
    /// NACKs, and datagrams that mean nothing.
    pub refused: u64,
    pub strange: u64,
    /// Time of one that looks again and again, in which there was nothing to be done.
    pub idle: Duration,
    pub latencies_ns: Latencies,
}

/// Nanoseconds.
#[derive(Debug)]
pub struct Latencies(pub Histogram<u64>);

impl Default for Latencies {
    fn default() -> Self {
        Self(latency::empty())
    }
}

impl Tally {
    pub fn latency(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        // One that clamps would clamp to the two nanoseconds that an empty histogram can hold.
        let recorded = self.latencies_ns.0.record(nanoseconds);
        recorded.expect("the histogram grows");
    }

    /// One that left after its time; a little is the clock's and the scheduler's.
    pub fn asked_after(&mut self, wait: Duration) {
        self.late += u64::from(wait > LATE_AFTER);
    }

    /// Segments that did not come in time, to those that were asked for.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 segments")]
    pub fn loss(&self) -> f64 {
        self.overdue as f64 / self.segments.max(1) as f64
    }

    /// What another generator counted of the same.
    pub fn add(&mut self, other: &Self) {
        self.bytes += other.bytes;
        self.datagrams += other.datagrams;
        self.requests += other.requests;
        self.repeats += other.repeats;
        self.segments += other.segments;
        self.overdue += other.overdue;
        self.late += other.late;
        self.unasked += other.unasked;
        self.chunks += other.chunks;
        self.verified += other.verified;
        self.wrong += other.wrong;
        self.refused += other.refused;
        self.strange += other.strange;
        self.idle += other.idle;
        self.latencies_ns.0 += &other.latencies_ns.0;
    }

    pub fn percentile_ns(&self, percentile: f64) -> u64 {
        self.latencies_ns.0.value_at_percentile(percentile)
    }

    /// As `edge-bench assemble` takes it, with the histogram in the usual interchange form.
    pub fn to_json(&self, seconds: f64, cpu: CpuTime) -> Result<Value> {
        Ok(json!({
            "seconds": seconds,
            "bytes": self.bytes,
            "datagrams": self.datagrams,
            "requests": self.requests,
            "repeats": self.repeats,
            "loss": self.loss(),
            "late": self.late,
            "unasked": self.unasked,
            "answers": self.chunks,
            "verified": self.verified,
            "wrong": self.wrong,
            "refused": self.refused,
            "strange": self.strange,
            "idle_seconds": self.idle.as_secs_f64(),
            "latency": latency::encode(&self.latencies_ns.0)?,
            "latency_ns": {
                "p50": self.percentile_ns(50.0),
                "p99": self.percentile_ns(99.0),
                "p999": self.percentile_ns(99.9),
            },
            "cpu": {"user_seconds": cpu.user, "system_seconds": cpu.system},
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_latency_is_kept_however_long_it_is() {
        let mut tally = Tally::default();
        for time in [Duration::from_micros(70), Duration::from_mins(2)] {
            tally.latency(time);
            let told = tally.percentile_ns(100.0);
            let told = Duration::from_nanos(told).as_secs_f64();
            assert!((told / time.as_secs_f64() - 1.0).abs() < 0.001, "{told}");
        }
    }
}
