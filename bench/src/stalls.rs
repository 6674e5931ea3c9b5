//! Stalls of CPUs under a program that only reads the clock: time taken by a hypervisor or by
//! interrupts. They bound the latency percentiles that can be measured on this host.

use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use edge_user::clock;
use rustix::thread::{CpuSet, sched_setaffinity};
use serde_json::{Value, json};

/// Shorter ones are ordinary interrupts.
const STALL_MIN: Duration = Duration::from_micros(50);

/// Measures stalls of idle CPUs and prints a JSON object.
#[derive(Args)]
pub struct Stalls {
    /// CPUs to measure at the same time, such as 0,1
    #[arg(long, value_delimiter = ',', required = true)]
    cpus: Vec<usize>,
    /// Duration
    #[arg(long, default_value = "1s", value_parser = humantime::parse_duration)]
    time: Duration,
}

pub fn stalls(options: &Stalls) -> Result<Value> {
    let stalls: Vec<Value> = thread::scope(|scope| {
        let watched = options.cpus.iter();
        let watched: Vec<_> = watched
            .map(|cpu| scope.spawn(|| of_cpu(*cpu, options.time)))
            .collect();
        watched
            .into_iter()
            .map(|one| one.join().expect("it does not panic"))
            .collect::<Result<_>>()
    })?;
    Ok(json!({"seconds": options.time.as_secs_f64(), "cpus": stalls}))
}

fn of_cpu(cpu: usize, time: Duration) -> Result<Value> {
    pin(cpu)?;
    let begun = clock::now();
    let (mut last, mut stalled, mut longest) = (begun, Duration::ZERO, Duration::ZERO);
    while last - begun < time {
        let now = clock::now();
        let gap = now - last;
        if gap >= STALL_MIN {
            stalled += gap;
            longest = longest.max(gap);
        }
        last = now;
    }
    Ok(json!({
        "cpu": cpu,
        "stalled_seconds": stalled.as_secs_f64(),
        "longest_seconds": longest.as_secs_f64(),
    }))
}

/// Has this thread run on this CPU alone.
pub(crate) fn pin(cpu: usize) -> Result<()> {
    if cpu >= CpuSet::MAX_CPU {
        bail!("no CPU {cpu}");
    }
    let mut only = CpuSet::new();
    only.set(cpu);
    sched_setaffinity(None, &only).with_context(|| format!("cannot run on CPU {cpu}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_on_one_cpu_take_it_from_each_other() {
        let cpu = rustix::thread::sched_getcpu();
        let options = Stalls {
            cpus: vec![cpu, cpu],
            time: Duration::from_millis(200),
        };
        let stalls = stalls(&options).unwrap();
        for one in stalls["cpus"].as_array().unwrap() {
            let stalled = one["stalled_seconds"].as_f64().unwrap();
            assert!(stalled > 0.02, "{stalls}");
            assert!(one["longest_seconds"].as_f64().unwrap() <= stalled);
        }
    }

    #[test]
    fn a_cpu_that_is_not_there_is_named() {
        for cpu in [CpuSet::MAX_CPU - 1, CpuSet::MAX_CPU] {
            let options = Stalls {
                cpus: vec![cpu],
                time: Duration::ZERO,
            };
            let error = stalls(&options).unwrap_err().to_string();
            assert!(error.contains(&format!("CPU {cpu}")), "{error}");
        }
    }
}
