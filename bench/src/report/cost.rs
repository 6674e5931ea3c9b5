//! Processor time per GB delivered.

use super::figure::{GB, float};
use super::model::{Cpu, Run, Sides};

/// One end: server or client.
pub(super) type End = fn(&Sides) -> Option<Cpu>;

pub(super) const ENDS: [(&str, End); 2] = [
    ("server", |ends| ends.server),
    ("client", |ends| ends.client),
];

/// Over all these runs.
pub(super) fn per_gb(runs: &[&Run], end: End) -> Option<Cpu> {
    let (mut sum, mut bytes) = (Cpu::default(), 0.0);
    for (run, cpu) in runs
        .iter()
        .filter_map(|run| Some((run, end(run.cpu.as_ref()?)?)))
    {
        sum.user_seconds += cpu.user_seconds;
        sum.system_seconds += cpu.system_seconds;
        sum.softirq_seconds += cpu.softirq_seconds;
        bytes += float(run.bytes);
    }
    let gb = bytes / GB;
    (gb > 0.0).then(|| Cpu {
        user_seconds: sum.user_seconds / gb,
        system_seconds: sum.system_seconds / gb,
        softirq_seconds: sum.softirq_seconds / gb,
    })
}
