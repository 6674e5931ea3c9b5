//! Processor time of programs and of CPUs, from /proc.

use std::fs;

use anyhow::{Context as _, Result};
use edge_testbed::cpu::{CpuTime, TICKS_A_SECOND};
use serde_json::{Value, json};

/// Processor time so far of a program and of its CPU.
#[derive(Clone, Copy)]
pub(super) struct Used {
    program: CpuTime,
    /// Of the CPU, in ticks: soft interrupts, busy time, and total.
    softirq: f64,
    busy: f64,
    all: f64,
}

impl Used {
    /// Of a process with its threads and ended children, and of a CPU.
    pub(super) fn by(pid: u32, cpu: usize) -> Result<Self> {
        let cpus = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let name = format!("cpu{cpu} ");
        let line = cpus.lines().find_map(|line| line.strip_prefix(&name));
        // user nice system idle iowait irq softirq steal
        let line = numbers(line.context("no such CPU in /proc/stat")?);
        let at = |place: usize| line.get(place).copied().unwrap_or(0.0);
        let all: f64 = line.iter().take(8).sum();
        Ok(Self {
            program: CpuTime::of(pid)?,
            softirq: at(6),
            busy: all - at(3) - at(4),
            all,
        })
    }

    /// Processor time since then in seconds, of the whole CPU, as each side has its own. What is
    /// neither the program's nor a soft interrupt's counts as the system's.
    pub(super) fn since(&self, before: &Self) -> Value {
        let busy = (self.busy - before.busy) / TICKS_A_SECOND;
        let softirq = ((self.softirq - before.softirq) / TICKS_A_SECOND).min(busy);
        let user = (self.program.user - before.program.user).min(busy - softirq);
        json!({
            "user_seconds": user,
            "system_seconds": busy - softirq - user,
            "softirq_seconds": softirq,
        })
    }

    /// Utilisation of the CPU since then, from 0 to 1.
    pub(super) fn load_since(&self, before: &Self) -> f64 {
        (self.busy - before.busy) / (self.all - before.all).max(1.0)
    }
}

/// The distance between the CPUs of server and generator: a cache line's round trip in nanoseconds.
/// A hypervisor moves its CPUs between threads of one core, cores with a common cache and cores
/// without, and whole chunks pass at up to twice the rate in one placement as in another.
#[derive(Default)]
pub(super) struct Distance {
    /// All that were measured, in order of length.
    round_trips: Vec<f64>,
}

/// Round trips that differ by this factor mean different placements.
const MOVED: f64 = 1.5;

impl Distance {
    pub(super) const fn is_unknown(&self) -> bool {
        self.round_trips.is_empty()
    }

    /// The lower quartile: close, but not as close as they are now and then.
    fn usual(&self) -> Option<f64> {
        self.round_trips.get(self.round_trips.len() / 4).copied()
    }

    pub(super) fn is_usual(&self, nanos: f64) -> bool {
        self.usual()
            .is_none_or(|usual| nanos <= MOVED * usual && usual <= MOVED * nanos)
    }

    pub(super) fn record(&mut self, nanos: f64) {
        let place = self.round_trips.partition_point(|other| *other < nanos);
        self.round_trips.insert(place, nanos);
    }

    /// Where the CPUs are, if that is not where they usually are.
    pub(super) fn moved(&self, nanos: f64) -> Option<String> {
        let usual = self.usual()?;
        (!self.is_usual(nanos))
            .then(|| format!("CPUs were moved: {nanos} ns apart, usually {usual}"))
    }
}

/// The numbers of a line; other words are skipped.
fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpus_that_were_moved_are_noticed() {
        let mut distance = Distance::default();
        assert!(distance.moved(320.0).is_none());
        for nanos in [320.0, 320.0, 52.0, 27.0, 60.0] {
            distance.record(nanos);
        }
        assert!(distance.moved(53.0).is_none());
        for elsewhere in [27.0, 320.0] {
            let text = distance.moved(elsewhere).unwrap();
            assert!(text.contains(&format!("{elsewhere} ns")), "{text}");
        }
    }

    #[test]
    fn this_process_uses_time() {
        let before = Used::by(std::process::id(), 0).unwrap();
        assert!(before.all > before.busy && before.busy > 0.0);
        assert!(
            before.load_since(&Used {
                all: 0.0,
                busy: 0.0,
                ..before
            }) <= 1.0
        );
    }
}
