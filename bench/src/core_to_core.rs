//! How long a cache line takes from one CPU to another and back. A hypervisor that moves the two to
//! distant cores multiplies it, and with it the cost of every packet that passes between them.

use std::hint;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use anyhow::{Result, bail};
use clap::Args;
use edge_user::clock;
use serde_json::{Value, json};

use crate::stalls::pin;

const ROUND_TRIPS: u32 = 10_000;
/// The fastest counts: whatever else runs can only slow one down.
const ROUNDS: u32 = 5;

/// Measures the round-trip time of a cache line between two CPUs and prints a JSON object.
#[derive(Args)]
pub struct CoreToCore {
    /// Two CPUs, such as 0,1
    #[arg(long, value_delimiter = ',', required = true)]
    cpus: Vec<usize>,
}

pub fn core_to_core(options: &CoreToCore) -> Result<Value> {
    let [first, second] = options.cpus[..] else {
        bail!("two CPUs are needed");
    };
    if first == second {
        bail!("CPU {first} twice: two different CPUs are needed");
    }
    // Also checks that there is such a CPU, before anything spins for the other.
    pin(second)?;
    pin(first)?;
    let line = AtomicU32::new(0);
    let fastest = thread::scope(|scope| -> Result<f64> {
        let echo = scope.spawn(|| {
            let pinned = pin(second);
            for turn in 0..ROUNDS * ROUND_TRIPS {
                wait_for(&line, 2 * turn + 1);
                line.store(2 * turn + 2, Ordering::Release);
            }
            pinned
        });
        let mut fastest = f64::INFINITY;
        for round in 0..ROUNDS {
            let begun = clock::now();
            for turn in round * ROUND_TRIPS..(round + 1) * ROUND_TRIPS {
                line.store(2 * turn + 1, Ordering::Release);
                wait_for(&line, 2 * turn + 2);
            }
            let taken = (clock::now() - begun).as_secs_f64();
            fastest = fastest.min(taken / f64::from(ROUND_TRIPS));
        }
        echo.join().expect("it does not panic")?;
        Ok(fastest)
    })?;
    Ok(json!({"cpus": options.cpus, "round_trip_nanos": (fastest * 1e9).round()}))
}

fn wait_for(line: &AtomicU32, value: u32) {
    while line.load(Ordering::Acquire) != value {
        hint::spin_loop();
    }
}

#[cfg(test)]
mod tests {
    use rustix::thread::{CpuSet, sched_getaffinity};

    use super::*;

    fn of(cpus: &[usize]) -> Result<Value> {
        core_to_core(&CoreToCore {
            cpus: cpus.to_vec(),
        })
    }

    #[test]
    fn a_round_trip_takes_less_than_a_context_switch() {
        let set = sched_getaffinity(None).unwrap();
        let cpus: Vec<_> = (0..CpuSet::MAX_CPU)
            .filter(|cpu| set.is_set(*cpu))
            .collect();
        if let [first, second, ..] = cpus[..] {
            let nanos = of(&[first, second]).unwrap()["round_trip_nanos"].as_f64();
            assert!((1.0..50_000.0).contains(&nanos.unwrap()), "{nanos:?}");
        }
    }

    #[test]
    fn only_two_cpus_that_exist_are_measured() {
        assert!(of(&[0]).is_err());
        assert!(of(&[0, 0]).is_err());
        let error = of(&[0, CpuSet::MAX_CPU]).unwrap_err().to_string();
        assert!(error.contains("no CPU"), "{error}");
    }
}
