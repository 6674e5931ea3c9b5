//! Processor time of programs and of CPUs, as /proc tells it.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

/// `USER_HZ`, which Linux fixes at 100 for everybody who asks.
const TICKS_A_SECOND: f64 = 100.0;

/// What was used so far, of a program and of the CPU it runs on.
#[derive(Clone, Copy)]
pub(super) struct Used {
    user: f64,
    system: f64,
    softirq: f64,
    /// All that the CPU did, and all there was.
    busy: f64,
    all: f64,
}

impl Used {
    /// Of a process with its threads and children that ended, and of a CPU.
    pub(super) fn by(pid: u32, cpu: usize) -> Result<Self> {
        let stat = format!("/proc/{pid}/stat");
        let stat = fs::read_to_string(&stat).with_context(|| format!("cannot read {stat}"))?;
        let (_, fields) = stat.rsplit_once(')').context("a process has a name")?;
        let fields: Vec<f64> = numbers(fields);
        let cpus = fs::read_to_string("/proc/stat").context("cannot read /proc/stat")?;
        let name = format!("cpu{cpu} ");
        let line = cpus.lines().find_map(|line| line.strip_prefix(&name));
        // user nice system idle iowait irq softirq steal
        let line = numbers(line.context("the CPU is not in /proc/stat")?);
        let at = |place: usize| line.get(place).copied().unwrap_or(0.0);
        let all: f64 = line.iter().take(8).sum();
        Ok(Self {
            // Behind name and state: fields 14 and 15 of proc(5).
            user: fields.get(10).copied().unwrap_or(0.0),
            system: fields.get(11).copied().unwrap_or(0.0),
            softirq: at(6),
            busy: all - at(3) - at(4),
            all,
        })
    }

    /// What was used since, in seconds; soft interrupts are those of the whole CPU.
    pub(super) fn since(&self, before: &Self) -> Value {
        json!({
            "user_seconds": (self.user - before.user) / TICKS_A_SECOND,
            "system_seconds": (self.system - before.system) / TICKS_A_SECOND,
            "softirq_seconds": (self.softirq - before.softirq) / TICKS_A_SECOND,
        })
    }

    /// The same for the whole CPU, where the program is not known: what was not in soft interrupts
    /// counts as its user's.
    pub(super) fn whole_since(&self, before: &Self) -> Value {
        let softirq = (self.softirq - before.softirq) / TICKS_A_SECOND;
        json!({
            "user_seconds": (self.busy - before.busy) / TICKS_A_SECOND - softirq,
            "system_seconds": 0.0,
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
