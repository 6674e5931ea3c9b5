//! Processor time of programs and of CPUs, as /proc tells it.

use std::fs;

use anyhow::{Context as _, Result};
use edge_testbed::cpu::{CpuTime, TICKS_A_SECOND};
use serde_json::{Value, json};

/// What was used so far, of a program and of the CPU it runs on.
#[derive(Clone, Copy)]
pub(super) struct Used {
    program: CpuTime,
    /// Of the CPU, in ticks: soft interrupts, all that it did, and all there was.
    softirq: f64,
    busy: f64,
    all: f64,
}

impl Used {
    /// Of a process with its threads and children that ended, and of a CPU.
    pub(super) fn by(pid: u32, cpu: usize) -> Result<Self> {
        let cpus = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let name = format!("cpu{cpu} ");
        let line = cpus.lines().find_map(|line| line.strip_prefix(&name));
        // user nice system idle iowait irq softirq steal
        let line = numbers(line.context("the CPU is not in /proc/stat")?);
        let at = |place: usize| line.get(place).copied().unwrap_or(0.0);
        let all: f64 = line.iter().take(8).sum();
        Ok(Self {
            program: CpuTime::of(pid)?,
            softirq: at(6),
            busy: all - at(3) - at(4),
            all,
        })
    }

    /// What was used since, in seconds: of the whole CPU, as each side has its own. What was neither
    /// in the program nor in soft interrupts counts as the system's.
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

    /// How much of the CPU was in use since, from 0 to 1.
    pub(super) fn load_since(&self, before: &Self) -> f64 {
        (self.busy - before.busy) / (self.all - before.all).max(1.0)
    }
}

/// The numbers of a line; what is none counts as left out.
fn numbers(line: &str) -> Vec<f64> {
    line.split_whitespace()
        .filter_map(|word| word.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

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
