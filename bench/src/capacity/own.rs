//! The load on the generator's own host: a rate that it cannot sustain says nothing about the edge.

use anyhow::{Context as _, Result};
use procfs::net::{snmp, snmp6};
use procfs::process::Process;

use crate::report::figure::float;

/// Seconds in which this thread ran or waited for a CPU.
pub(super) fn busy_seconds() -> Result<f64> {
    let thread = rustix::thread::gettid().as_raw_nonzero().get();
    let thread = Process::myself()?.task_from_tid(thread)?;
    let times = thread.schedstat().context("this kernel has no schedstat")?;
    Ok(float(times.sum_exec_runtime + times.run_delay) / 1e9)
}

/// Datagrams dropped so far in this network namespace because a socket's buffer was full.
pub(super) fn dropped_datagrams() -> Result<u64> {
    let ipv4 = snmp().context("cannot read /proc/net/snmp")?;
    let of_ipv6 = snmp6().map_or(0, |counters| counters.udp_rcvbuf_errors);
    Ok(ipv4.udp_rcvbuf_errors + of_ipv6)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_counted() {
        dropped_datagrams().expect("this host counts them");
    }

    #[test]
    fn a_thread_that_works_is_busy() {
        let before = busy_seconds().unwrap();
        let begin = edge_user::clock::now();
        while begin.elapsed() < std::time::Duration::from_millis(50) {}
        assert!(busy_seconds().unwrap() > before + 0.04);
    }
}
