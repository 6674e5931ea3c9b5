//! What a generator counted.

use std::fs;
use std::time::Duration;

use anyhow::{Context as _, Result};
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use crate::report::latency;

#[derive(Debug)]
pub struct Tally {
    /// Payload that came in and was wanted.
    pub bytes: u64,
    pub datagrams: u64,
    /// GETs, and chunks or segments that were asked for again.
    pub requests: u64,
    pub repeats: u64,
    /// Answers that were complete.
    pub chunks: u64,
    pub verified: u64,
    /// Chunks that were not what they were asked for as.
    pub wrong: u64,
    /// NACKs, and datagrams that mean nothing.
    pub refused: u64,
    pub strange: u64,
    latencies_ns: Histogram<u64>,
}

impl Default for Tally {
    fn default() -> Self {
        Self {
            bytes: 0,
            datagrams: 0,
            requests: 0,
            repeats: 0,
            chunks: 0,
            verified: 0,
            wrong: 0,
            refused: 0,
            strange: 0,
            latencies_ns: latency::empty(),
        }
    }
}

impl Tally {
    pub fn latency(&mut self, time: Duration) {
        let nanoseconds = u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.latencies_ns
            .record(nanoseconds)
            .expect("the histogram grows");
    }

    fn percentile_ns(&self, percentile: f64) -> u64 {
        self.latencies_ns.value_at_percentile(percentile)
    }

    /// As `edge-bench assemble` takes it, with the histogram in the usual interchange form.
    pub fn to_json(&self, seconds: f64, cpu: CpuTime) -> Result<Value> {
        Ok(json!({
            "seconds": seconds,
            "bytes": self.bytes,
            "datagrams": self.datagrams,
            "requests": self.requests,
            "repeats": self.repeats,
            "answers": self.chunks,
            "verified": self.verified,
            "wrong": self.wrong,
            "refused": self.refused,
            "strange": self.strange,
            "latency": latency::encode(&self.latencies_ns)?,
            "latency_ns": {
                "p50": self.percentile_ns(50.0),
                "p99": self.percentile_ns(99.0),
                "p999": self.percentile_ns(99.9),
            },
            "cpu": {"user_seconds": cpu.user_seconds, "system_seconds": cpu.system_seconds},
        }))
    }
}

/// What this process has used of its CPUs.
#[derive(Clone, Copy, Debug, Default)]
pub struct CpuTime {
    pub user_seconds: f64,
    pub system_seconds: f64,
}

impl CpuTime {
    pub fn of_this_process() -> Result<Self> {
        let stat = fs::read_to_string("/proc/self/stat").context("cannot read /proc/self/stat")?;
        // The name in brackets may hold blanks; user and system time are fields 14 and 15.
        let (_, fields) = stat
            .rsplit_once(')')
            .context("/proc/self/stat has no name")?;
        let mut ticks = fields.split_whitespace().skip(11).map(str::parse::<u32>);
        let mut next = || -> Result<f64> {
            let ticks = ticks.next().context("/proc/self/stat is short")??;
            Ok(f64::from(ticks) / TICKS_A_SECOND)
        };
        Ok(Self {
            user_seconds: next()?,
            system_seconds: next()?,
        })
    }

    #[must_use]
    pub fn since(self, before: Self) -> Self {
        Self {
            user_seconds: self.user_seconds - before.user_seconds,
            system_seconds: self.system_seconds - before.system_seconds,
        }
    }
}

/// `USER_HZ`, which Linux fixes at 100 for everybody who asks.
const TICKS_A_SECOND: f64 = 100.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latencies_are_told_as_they_were() {
        let mut tally = Tally::default();
        for _ in 0..98 {
            tally.latency(Duration::from_micros(70));
        }
        tally.latency(Duration::from_millis(3));
        tally.latency(Duration::MAX);
        let told = tally.to_json(1.0, CpuTime::default()).unwrap();
        let near = |name: &str, wanted: f64| {
            let value = told["latency_ns"][name].as_f64().unwrap();
            assert!((value / wanted - 1.0).abs() < 0.001, "{name}: {value}");
        };
        near("p50", 70e3);
        near("p99", 3e6);
        let all = latency::decode(told["latency"].as_str().unwrap()).unwrap();
        assert_eq!(all.len(), 100);
    }
}
