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
