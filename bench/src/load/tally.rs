//! The counts of a generator.

use std::time::Duration;

use anyhow::Result;
use edge_testbed::cpu::CpuTime;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::report::latency;

const LATE_AFTER: Duration = Duration::from_millis(1);

#[derive(Debug, Default)]
pub struct Tally {
    /// Payload received and requested.
    pub bytes: u64,
    pub datagrams: u64,
    /// GETs, and chunks or segments that were requested again.
    pub requests: u64,
    pub repeats: u64,
    /// Segments requested, and the timeouts among them.
    pub segments: u64,
    pub overdue: u64,
    /// In an open loop: requests sent more than a millisecond late, and not at all.
    pub late: u64,
    pub unasked: u64,
    /// Complete replies.
    pub chunks: u64,
    pub verified: u64,
    /// Chunks that failed verification.
    pub wrong: u64,
    /// NACKs, and datagrams that match no request.
    pub refused: u64,
    pub strange: u64,
    /// Time in which a busy-polling generator had nothing to do.
    pub idle: Duration,
    pub latencies_ns: Latencies,
}

/// In nanoseconds.
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
        // A saturating histogram would saturate at the two nanoseconds that an empty one can hold.
        let recorded = self.latencies_ns.0.record(nanoseconds);
        recorded.expect("the histogram grows");
    }

    /// Notes how late a request left; small delays are those of clock and scheduler.
    pub fn asked_after(&mut self, wait: Duration) {
        self.late += u64::from(wait > LATE_AFTER);
    }

    /// Share of the requested segments that timed out.
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 segments")]
    pub fn loss(&self) -> f64 {
        self.overdue as f64 / self.segments.max(1) as f64
    }

    /// Adds the counts of another generator.
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

    /// In the format of `edge-bench assemble`; the histogram as V2 with deflate, base64.
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
            let recorded = tally.percentile_ns(100.0);
            let recorded = Duration::from_nanos(recorded).as_secs_f64();
            assert!(
                (recorded / time.as_secs_f64() - 1.0).abs() < 0.001,
                "{recorded}"
            );
        }
    }
}
