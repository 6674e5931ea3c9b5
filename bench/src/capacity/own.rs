//! What the generator's own side did: a rate that it could not bear says nothing of the edge.

use std::fs;

use anyhow::{Context as _, Result};

/// Seconds in which this thread ran or waited for a CPU.
pub(super) fn busy_seconds() -> Result<f64> {
    let file = "/proc/thread-self/schedstat";
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {file}"))?;
    let seconds = |text: &str| Some(text.parse::<f64>().ok()? / 1e9);
    let mut times = text.split_whitespace().map(seconds);
    let both = times.next().flatten().zip(times.next().flatten());
    let (ran, waited) = both.with_context(|| format!("{file} is none"))?;
    Ok(ran + waited)
}

/// Datagrams that found no room in a socket of this network namespace, so far.
pub(super) fn dropped_datagrams() -> Result<u64> {
    let read = |name: &str| {
        let file = format!("/proc/self/net/{name}");
        fs::read_to_string(&file).with_context(|| format!("cannot read {file}"))
    };
    let of_ipv6 = read("snmp6").map_or(0, |text| dropped_ipv6(&text));
    Ok(dropped_ipv4(&read("snmp")?) + of_ipv6)
}

/// Names in one line, values in the next.
fn dropped_ipv4(text: &str) -> u64 {
    let mut lines = text.lines().filter_map(|line| line.strip_prefix("Udp: "));
    let names = lines.next().unwrap_or_default().split_whitespace();
    let values = lines.next().unwrap_or_default().split_whitespace();
    names
        .zip(values)
        .find(|(name, _)| *name == "RcvbufErrors")
        .and_then(|(_, value)| value.parse().ok())
        .unwrap_or(0)
}

fn dropped_ipv6(text: &str) -> u64 {
    text.lines()
        .find_map(|line| line.strip_prefix("Udp6RcvbufErrors"))
        .and_then(|value| value.trim().parse().ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drops_are_found_among_the_counters() {
        let text = "Tcp: ActiveOpens PassiveOpens\nTcp: 1 2\n\
                    Udp: InDatagrams NoPorts InErrors OutDatagrams RcvbufErrors SndbufErrors\n\
                    Udp: 10 0 7 11 7 0\nUdpLite: RcvbufErrors\nUdpLite: 3\n";
        assert_eq!(dropped_ipv4(text), 7);
        assert_eq!(dropped_ipv4(""), 0);
        let text = "Udp6InDatagrams                \t5\nUdp6RcvbufErrors               \t9\n";
        assert_eq!(dropped_ipv6(text), 9);
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
