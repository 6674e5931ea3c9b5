//! `edge stat`: shows the counters of an edge.

use std::collections::BTreeMap;
use std::fmt::{self, Write};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use edge_user::client::stat::snapshot;
use edge_user::counters::{InterfaceCounts, ReasonCounts, SendCounts, Snapshot};
use tokio::runtime;
use tokio::time::interval;

use crate::error::CommandError;
use crate::print::{print_json, print_text};
use crate::progress;
use crate::ticket::path;

/// Show the counters of the edge on this host.
#[derive(Args)]
pub(crate) struct Arguments {
    /// Admin socket of edged.
    #[arg(long, value_name = "PATH", value_parser = path(), default_value = "/run/sealedge/admin.sock")]
    socket: PathBuf,
    /// Print a JSON object.
    #[arg(long)]
    json: bool,
    /// Fail unless every received datagram was counted once at each stage and no frame is lost. Use
    /// on an idle edge: under load, some datagrams are always between two stages.
    #[arg(long)]
    check: bool,
}

/// Printed by a successful --check; with --json, the exit code suffices.
const BALANCED: &str = "check     ok: every datagram was counted once at each stage, every slot is in one \
                        state, no frame is lost\n";
/// How long datagrams may be between two stages.
const CHECK_TIMEOUT: Duration = Duration::from_secs(3);
const CHECK_INTERVAL: Duration = Duration::from_millis(50);

pub(crate) fn run(arguments: &Arguments) -> Result<(), CommandError> {
    let runtime = runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|error| CommandError::new(format!("cannot start: {error}")))?;
    let snapshot = runtime.block_on(async {
        if arguments.check {
            balanced(&arguments.socket).await
        } else {
            Ok(snapshot(&arguments.socket).await?)
        }
    })?;
    if arguments.json {
        let value = serde_json::to_value(&snapshot)
            .map_err(|error| CommandError::new(format!("cannot print the counters: {error}")))?;
        return print_json(&value);
    }
    let mut text = String::new();
    table(&mut text, &snapshot).expect("a string grows");
    if arguments.check {
        text.push_str(BALANCED);
    }
    print_text(&text)
}

/// Returns the counters once they add up.
async fn balanced(socket: &Path) -> Result<Snapshot, CommandError> {
    let mut interval = interval(CHECK_INTERVAL);
    let mut rounds = CHECK_TIMEOUT.as_millis() / CHECK_INTERVAL.as_millis();
    loop {
        interval.tick().await;
        let seen = snapshot(socket).await?;
        let unbalanced = seen.unbalanced();
        if unbalanced.is_empty() {
            return Ok(seen);
        }
        rounds = rounds.saturating_sub(1);
        if rounds == 0 {
            return Err(CommandError::new(format!(
                "the counters do not add up: {}",
                unbalanced.join("; ")
            )));
        }
    }
}

/// In the order of a request's stages.
fn table(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    service(out, snapshot)?;
    datagrams(out, snapshot)?;
    chunks(out, snapshot)
}

fn service(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    let mode = &snapshot.mode;
    writeln!(
        out,
        "edged {} ({}), up {} s",
        snapshot.version, snapshot.commit, snapshot.uptime_seconds
    )?;
    writeln!(
        out,
        "mode      xdp {}, bind {}, hugepages {}, sender {}",
        mode.xdp,
        mode.bind,
        if mode.hugepages { "yes" } else { "no" },
        mode.sender
    )?;
    writeln!(out, "service   {}", snapshot.listen.join(" "))?;
    for interface in &snapshot.interfaces {
        let link = if interface.up { "up" } else { "link down" };
        let (name, queues) = (&interface.name, interface.queues);
        writeln!(out, "interface {name}: {link}, {queues} queues")?;
    }
    for fault in &snapshot.faults {
        writeln!(out, "fault     {}", fault.text)?;
    }
    if snapshot.log_lines_dropped > 0 {
        writeln!(
            out,
            "log       {} lines dropped",
            snapshot.log_lines_dropped
        )?;
    }
    writeln!(out)
}

fn datagrams(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    for interface in &snapshot.interfaces {
        on_interface(out, interface)?;
    }
    let socket = &snapshot.socket;
    reasons(
        out,
        &format!(
            "socket    received {}, dropped by the kernel {}",
            socket.received, socket.dropped
        ),
        &socket.reasons,
    )?;
    reasons(
        out,
        &format!("  bounced {}", socket.bounced),
        &socket.bounce_reasons,
    )?;
    sends(out, &socket.sends)
}

fn on_interface(out: &mut impl Write, interface: &InterfaceCounts) -> fmt::Result {
    let name = &interface.name;
    let xdp = interface.xdp.iter();
    let xdp: Vec<_> = xdp.map(|(queue, reasons)| (*queue, reasons)).collect();
    by_queue(out, &format!("xdp {name}"), &xdp)?;
    let workers = interface.workers.iter();
    let workers: Vec<_> = workers
        .map(|worker| (worker.queue, &worker.reasons))
        .collect();
    by_queue(out, &format!("workers {name}"), &workers)?;
    for worker in &interface.workers {
        let drops = &worker.xsk;
        let lost = drops.rx_dropped + drops.rx_ring_full + drops.rx_invalid_descs;
        writeln!(
            out,
            "  {name} queue {:<3} received {}, dropped by socket {lost} (fill ring empty {})",
            worker.queue, worker.received, drops.rx_fill_ring_empty
        )?;
        if worker.frames_missing > 0 {
            writeln!(out, "  {} umem frames lost", worker.frames_missing)?;
        }
        sends(out, &worker.sends)?;
    }
    Ok(())
}

fn chunks(out: &mut impl Write, snapshot: &Snapshot) -> fmt::Result {
    let store = &snapshot.store;
    writeln!(
        out,
        "store     {} of {} slots resident, {} free, {} being filled, {} withdrawn; {} in slots of {} bytes",
        store.resident,
        store.slots,
        store.free,
        store.filling,
        store.withdrawn,
        progress::human(store.arena_bytes),
        store.slot_bytes,
    )?;
    writeln!(
        out,
        "          published {}, evicted {}; segments of {} bytes",
        store.published_total, store.evicted_total, store.segment_bytes
    )?;
    let origin = &snapshot.origin;
    writeln!(
        out,
        "origin    {} fetches, {}, {} in flight",
        origin.fetches_total,
        progress::human(origin.bytes_total),
        origin.in_flight
    )?;
    writeln!(
        out,
        "          absent {}, failed {}, corrupt {}, waiters expired {}, source limit {}",
        origin.absent_total,
        origin.failed_total,
        origin.corrupt_total,
        origin.unanswered_waiters_total,
        origin.source_limited_total
    )?;
    for (number, hung) in origin.hung_reads.iter().enumerate() {
        if *hung > 0 {
            writeln!(out, "          origin[{number}]: {hung} reads hang")?;
        }
    }
    Ok(())
}

/// One line per reason, one column per queue.
fn by_queue(out: &mut impl Write, title: &str, queues: &[(u32, &ReasonCounts)]) -> fmt::Result {
    let mut numbers = Vec::new();
    let mut lines: BTreeMap<&str, BTreeMap<u32, u64>> = BTreeMap::new();
    for (queue, reasons) in queues {
        numbers.push(*queue);
        for (label, count) in *reasons {
            lines
                .entry(label)
                .or_default()
                .insert(*queue, count.packets);
        }
    }
    if lines.is_empty() {
        return Ok(());
    }
    // An interface's name has 15 bytes at most.
    write!(out, "{title:<24}")?;
    for number in &numbers {
        write!(out, "{:>14}", format!("queue {number}"))?;
    }
    writeln!(out, "{:>14}", "all")?;
    for (label, counts) in lines {
        write!(out, "  {label:<22}")?;
        for number in &numbers {
            write!(out, "{:>14}", counts.get(number).copied().unwrap_or(0))?;
        }
        writeln!(out, "{:>14}", counts.values().sum::<u64>())?;
    }
    writeln!(out)
}

fn reasons(out: &mut impl Write, title: &str, reasons: &ReasonCounts) -> fmt::Result {
    writeln!(out, "{title}")?;
    for (label, count) in reasons {
        writeln!(
            out,
            "  {label:<16}{:>14} ({})",
            count.packets,
            progress::human(count.bytes)
        )?;
    }
    Ok(())
}

fn sends(out: &mut impl Write, sends: &SendCounts) -> fmt::Result {
    write!(
        out,
        "  sent {} datagrams ({}), {} blocked, {} unreached, {} failed",
        sends.datagrams,
        progress::human(sends.bytes),
        sends.would_block,
        sends.unreached,
        sends.failed
    )?;
    match i32::try_from(sends.last_errno) {
        Ok(errno @ 1..) => writeln!(out, ", last error: {}", io::Error::from_raw_os_error(errno))?,
        Ok(_) | Err(_) => writeln!(out)?,
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use edge_user::counters::Count;

    use super::*;

    #[test]
    fn the_table_shows_reasons_by_interface_and_queue_and_their_sum() {
        let steered =
            |packets| ReasonCounts::from([("steered".to_owned(), Count { packets, bytes: 1 })]);
        let on = |name: &str, first, second| InterfaceCounts {
            name: name.to_owned(),
            up: name == "eth0",
            queues: 2,
            xdp: BTreeMap::from([(0, steered(first)), (1, steered(second))]),
            ..InterfaceCounts::default()
        };
        let snapshot = Snapshot {
            interfaces: vec![on("eth0", 7, 35), on("eth1", 1, 2)],
            ..Snapshot::default()
        };
        let mut text = String::new();
        table(&mut text, &snapshot).unwrap();
        let lines = text.lines().filter(|line| line.contains("steered"));
        let figures: Vec<Vec<_>> = lines
            .map(|line| line.split_whitespace().skip(1).collect())
            .collect();
        assert_eq!(figures, [["7", "35", "42"], ["1", "2", "3"]], "{text}");
        assert!(
            text.contains("interface eth1: link down, 2 queues"),
            "{text}"
        );
    }
}
