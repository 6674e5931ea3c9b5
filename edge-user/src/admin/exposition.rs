//! Renders a snapshot for Prometheus: base units, `_total` on counters, and few labels, none of
//! which names a chunk or client. The names, listed in docs/OPERATING.md, are an interface.

use std::fmt;

use edge_ebpf::reason::Reason;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::registry::Registry;

use super::page::{Label, Page, Series};
use super::results::{RESULTS, result_of};
use crate::counters::{Cause, InterfaceCounts, ReasonCounts, SendCounts, Snapshot, WorkerCounts};

/// The text of one scrape.
pub(super) fn text(snapshot: Snapshot) -> Result<String, fmt::Error> {
    let mut registry = Registry::with_prefix("sealedge");
    registry.register_collector(Box::new(Scrape(snapshot)));
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, &registry)?;
    Ok(text)
}

/// One snapshot, encoded once.
#[derive(Debug)]
struct Scrape(Snapshot);

impl Collector for Scrape {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut page = Page(encoder);
        let snapshot = &self.0;
        describe(&mut page, snapshot)?;
        describe_interfaces(&mut page, snapshot)?;
        count_threads(&mut page, snapshot)?;
        count_xdp(&mut page, snapshot)?;
        count_paths(&mut page, snapshot)?;
        count_requests(&mut page, snapshot)?;
        count_sends(&mut page, snapshot)?;
        count_hung_reads(&mut page, snapshot)?;
        for (name, help, value) in GAUGES {
            page.gauge(name, help, value(snapshot))?;
        }
        for (name, help, value) in COUNTERS {
            page.counter(name, help, [(Vec::new(), value(snapshot))])?;
        }
        Ok(())
    }
}

fn describe(page: &mut Page<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let build = [
        ("version", snapshot.version.clone()),
        ("commit", snapshot.commit.clone()),
    ];
    page.info(
        "build",
        "Version and commit of the running program.",
        &build,
    )?;
    let mode = [
        ("xdp", snapshot.mode.xdp.clone()),
        ("bind", snapshot.mode.bind.clone()),
        ("hugepages", snapshot.mode.hugepages.to_string()),
        ("sender", snapshot.mode.sender.clone()),
    ];
    page.info("mode", "The mode in use.", &mode)
}

fn describe_interfaces(page: &mut Page<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let each = |value: fn(&InterfaceCounts) -> u64| {
        let interfaces = snapshot.interfaces.iter();
        interfaces.map(move |found| (vec![("interface", found.name.clone())], value(found)))
    };
    page.gauges(
        "interface_up",
        "Whether the interface carries packets.",
        each(|interface| interface.up.into()),
    )?;
    page.gauges(
        "queues",
        "Receive queues with a worker.",
        each(|interface| interface.queues.into()),
    )
}

fn of_queue(interface: &InterfaceCounts, queue: u32) -> Vec<Label> {
    vec![
        ("interface", interface.name.clone()),
        ("queue", queue.to_string()),
    ]
}

/// All workers, with their labels.
fn workers(snapshot: &Snapshot) -> impl Iterator<Item = (Vec<Label>, &WorkerCounts)> {
    snapshot.interfaces.iter().flat_map(|interface| {
        let workers = interface.workers.iter();
        workers.map(move |worker| (of_queue(interface, worker.queue), worker))
    })
}

fn count_threads(page: &mut Page<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let workers = workers(snapshot).map(|(mut labels, worker)| {
        labels.insert(0, ("thread", worker.thread.clone()));
        (labels, worker.turns)
    });
    let (socket, engine) = (&snapshot.socket, &snapshot.engine);
    let others = [
        (&socket.thread, socket.turns),
        (&engine.thread, engine.turns),
    ];
    let others = others.map(|(thread, turns)| (vec![("thread", thread.clone())], turns));
    page.counter(
        "thread_turns",
        "Turns of a serving thread's loop, which go on while it is idle.",
        workers.chain(others),
    )?;
    // Faults of the whole edge have no interface.
    let interfaces = snapshot.interfaces.iter().map(|found| Some(&found.name));
    let mut faults = Vec::new();
    for interface in [None].into_iter().chain(interfaces) {
        for cause in Cause::ALL {
            let lasting = (snapshot.faults.iter())
                .filter(|fault| fault.cause == cause && fault.interface.as_ref() == interface);
            let mut labels = vec![("cause", cause.label().to_owned())];
            labels.extend(interface.map(|name| ("interface", name.clone())));
            faults.push((labels, lasting.count() as u64));
        }
    }
    page.gauges(
        "faults",
        "Faults of the edge or of one interface; /ready gives the details.",
        faults,
    )
}

fn count_hung_reads(page: &mut Page<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let hung = (snapshot.origin.hung_reads.iter().enumerate())
        .map(|(origin, count)| (vec![("origin", origin.to_string())], *count));
    page.gauges(
        "origin_hung_reads",
        "Abandoned reads that still occupy a thread.",
        hung,
    )
}

fn count_xdp(page: &mut Page<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let (mut packets, mut bytes) = (Vec::new(), Vec::new());
    for interface in &snapshot.interfaces {
        for (queue, reasons) in &interface.xdp {
            let labels = of_queue(interface, *queue);
            push_reasons(&mut packets, &mut bytes, &labels, reasons);
        }
    }
    page.counter(
        "xdp_packets",
        "Frames seen by the XDP program, by reason.",
        packets,
    )?;
    page.counter("xdp_bytes", "Bytes of those frames.", bytes)?;
    let mut drops = Vec::new();
    for (labels, worker) in workers(snapshot) {
        let causes = [
            ("rx_dropped", worker.xsk.rx_dropped),
            ("rx_ring_full", worker.xsk.rx_ring_full),
            ("rx_invalid_descs", worker.xsk.rx_invalid_descs),
            ("rx_fill_ring_empty", worker.xsk.rx_fill_ring_empty),
        ];
        for (cause, count) in causes {
            let mut labels = labels.clone();
            labels.push(("cause", cause.to_owned()));
            drops.push((labels, count));
        }
    }
    page.counter(
        "xsk_drops",
        "Steered frames dropped by the AF_XDP socket.",
        drops,
    )
}

fn count_paths(page: &mut Page<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let received = workers(snapshot).map(|(labels, worker)| (labels, worker.received));
    page.counter(
        "worker_received",
        "Frames taken from the RX ring.",
        received,
    )?;
    let missing = workers(snapshot).map(|(labels, worker)| (labels, worker.frames_missing));
    page.gauges(
        "umem_frames_missing",
        "Frames of the umem without an owner; always 0.",
        missing,
    )?;

    let (mut packets, mut bytes) = (Vec::new(), Vec::new());
    for (mut labels, worker) in workers(snapshot) {
        labels.insert(0, ("path", "xdp".to_owned()));
        push_reasons(&mut packets, &mut bytes, &labels, &worker.reasons);
    }
    let labels = [("path", "socket".to_owned())];
    push_reasons(&mut packets, &mut bytes, &labels, &snapshot.socket.reasons);
    page.counter("packets", "Received datagrams, by reason.", packets)?;
    page.counter("packet_bytes", "UDP payload of those datagrams.", bytes)?;

    let (mut packets, mut bytes) = (Vec::new(), Vec::new());
    push_reasons(
        &mut packets,
        &mut bytes,
        &[],
        &snapshot.socket.bounce_reasons,
    );
    page.counter(
        "bounces",
        "Bounced requests, by the socket front's reason.",
        packets,
    )
}

/// Adds a series for each reason with a count.
fn push_reasons(
    packets: &mut Vec<Series>,
    bytes: &mut Vec<Series>,
    labels: &[Label],
    reasons: &ReasonCounts,
) {
    for (reason, count) in reasons {
        let mut labels = labels.to_vec();
        labels.push(("reason", reason.clone()));
        packets.push((labels.clone(), count.packets));
        bytes.push((labels, count.bytes));
    }
}

fn count_requests(page: &mut Page<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let workers: Vec<_> = snapshot.workers().map(|worker| &worker.reasons).collect();
    let mut series = Vec::new();
    for (path, tables) in [("xdp", workers), ("socket", vec![&snapshot.socket.reasons])] {
        for result in RESULTS {
            let of_result = |reason: &&Reason| result_of(**reason) == Some(result);
            let requests = Reason::ALL
                .iter()
                .filter(of_result)
                .flat_map(|reason| tables.iter().filter_map(|table| table.get(reason.label())));
            let labels = vec![("path", path.to_owned()), ("result", result.to_owned())];
            series.push((labels, requests.map(|count| count.packets).sum()));
        }
    }
    page.counter(
        "requests",
        "Requests with a valid cookie, by result.",
        series,
    )
}

fn count_sends(page: &mut Page<'_>, snapshot: &Snapshot) -> Result<(), fmt::Error> {
    let workers = workers(snapshot).map(|(mut labels, worker)| {
        labels.insert(0, ("path", "xdp".to_owned()));
        (labels, worker.sends)
    });
    let senders: Vec<(Vec<Label>, SendCounts)> = workers
        .chain([(vec![("path", "socket".to_owned())], snapshot.socket.sends)])
        .collect();
    let each = |count: fn(&SendCounts) -> u64| {
        senders
            .iter()
            .map(move |(labels, sends)| (labels.clone(), count(sends)))
    };
    let datagrams = each(|sends| sends.datagrams);
    page.counter("sent_datagrams", "Datagrams sent.", datagrams)?;
    page.counter(
        "sent_bytes",
        "UDP payload of those datagrams.",
        each(|sends| sends.bytes),
    )?;
    let mut failures = Vec::new();
    for (labels, sends) in &senders {
        let causes = [
            ("would_block", sends.would_block),
            ("unreached", sends.unreached),
            ("failed", sends.failed),
        ];
        for (cause, count) in causes {
            let mut labels = labels.clone();
            labels.push(("cause", cause.to_owned()));
            failures.push((labels, count));
        }
    }
    page.counter("send_failures", "Datagrams not sent.", failures)
}

/// Name, help text and value.
type Plain = (&'static str, &'static str, fn(&Snapshot) -> u64);

#[rustfmt::skip]
const GAUGES: &[Plain] = &[
    ("uptime_seconds", "Time since startup.", |all| all.uptime_seconds),
    ("segment_bytes", "Payload of a full DATA datagram.", |all| u64::from(all.store.segment_bytes)),
    ("store_arena_bytes", "Size of the arena.", |all| all.store.arena_bytes),
    ("store_slot_bytes", "Size of a slot, which holds one chunk.", |all| all.store.slot_bytes),
    ("store_slots", "Slots in the arena.", |all| all.store.slots),
    ("store_resident_slots", "Slots with a resident chunk.", |all| all.store.resident),
    ("store_free_slots", "Free slots.", |all| all.store.free),
    ("store_filling_slots", "Slots being filled.", |all| all.store.filling),
    ("store_withdrawn_slots", "Slots no longer served that may still be read.", |all| all.store.withdrawn),
    ("origin_in_flight", "Fetches in progress.", |all| all.origin.in_flight),
];

#[rustfmt::skip]
const COUNTERS: &[Plain] = &[
    ("host_changes", "Updates of the running XDP program after changes of the host.", |all| all.host_changes_total),
    ("log_lines_dropped", "Log lines dropped because the queue was full or the write failed.", |all| all.log_lines_dropped),
    ("socket_received", "Datagrams received by the socket front.", |all| all.socket.received),
    ("socket_dropped", "Datagrams dropped by the kernel at the service sockets.", |all| all.socket.dropped),
    ("bounces_received", "Requests bounced by workers to the socket front.", |all| all.socket.bounced),
    ("store_published", "Chunks published.", |all| all.store.published_total),
    ("store_publish_failed", "Updates of the XDP program's map that failed.", |all| all.store.publish_failed_total),
    ("store_evicted", "Chunks evicted.", |all| all.store.evicted_total),
    ("origin_fetches", "Fetches started.", |all| all.origin.fetches_total),
    ("origin_bytes", "Bytes fetched.", |all| all.origin.bytes_total),
    ("origin_absent", "Fetches of chunks that no origin has.", |all| all.origin.absent_total),
    ("origin_failed", "Fetches that could not read an origin.", |all| all.origin.failed_total),
    ("origin_corrupt", "Fetches whose bytes do not match the id.", |all| all.origin.corrupt_total),
    ("origin_source_limited", "Requests refused because their source has used its share.", |all| all.origin.source_limited_total),
    ("origin_unanswered_waiters", "Waiters dropped without an answer.", |all| all.origin.unanswered_waiters_total),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::counters::{Count, EngineCounts, Fault, Mode, SocketCounts, XskCounts};

    fn reasons(counts: &[(Reason, u64)]) -> ReasonCounts {
        let count = |packets| Count {
            packets,
            bytes: packets * 100,
        };
        counts
            .iter()
            .map(|(reason, n)| (reason.label().to_owned(), count(*n)))
            .collect()
    }

    fn sends(datagrams: u64) -> SendCounts {
        SendCounts {
            datagrams,
            bytes: datagrams * 1232,
            would_block: 1,
            unreached: 3,
            failed: 2,
            last_errno: 101,
        }
    }

    /// One with the worker of queue 0, the other with that of queue 1.
    fn interfaces() -> Vec<InterfaceCounts> {
        let mut workers = (0..2).map(|queue| WorkerCounts {
            queue,
            thread: format!("worker-{queue}"),
            turns: 4,
            received: 5,
            frames_missing: 0,
            reasons: reasons(&[(Reason::Served, 4), (Reason::Bounced, 1)]),
            sends: sends(100),
            xsk: XskCounts {
                rx_ring_full: 3,
                ..XskCounts::default()
            },
        });
        let interface = |name: &str, workers| InterfaceCounts {
            name: name.to_owned(),
            up: name == "eth0",
            queues: 2,
            xdp: BTreeMap::from([
                (0, reasons(&[(Reason::Steered, 5), (Reason::NackCookie, 3)])),
                (1, reasons(&[(Reason::Steered, 7)])),
            ]),
            workers,
        };
        vec![
            interface("eth0", workers.next().into_iter().collect()),
            interface("eth1", workers.collect()),
        ]
    }

    fn snapshot() -> Snapshot {
        let mut snapshot = Snapshot {
            version: "0.1.0".to_owned(),
            commit: "a\"b\\c".to_owned(),
            uptime_seconds: 61,
            log_lines_dropped: 3,
            faults: vec![Fault {
                cause: Cause::ThreadStalled,
                interface: None,
                subject: "engine".to_owned(),
                text: "it is stalled".to_owned(),
            }],
            mode: Mode {
                xdp: "native".to_owned(),
                bind: "copy".to_owned(),
                hugepages: true,
                sender: "gso".to_owned(),
            },
            socket: SocketCounts {
                thread: "socket".to_owned(),
                turns: 12,
                received: 21,
                dropped: 34,
                reasons: reasons(&[
                    (Reason::FetchStarted, 1),
                    (Reason::Joined, 2),
                    (Reason::Served, 6),
                    (Reason::Busy, 4),
                    (Reason::BadMagic, 8),
                ]),
                bounced: 2,
                bounce_reasons: reasons(&[(Reason::Served, 2)]),
                sends: sends(9),
            },
            engine: EngineCounts {
                thread: "engine".to_owned(),
                turns: 13,
            },
            ..Snapshot::default()
        };
        snapshot.interfaces = interfaces();
        snapshot.faults.push(Fault {
            cause: Cause::LinkDown,
            interface: Some("eth1".to_owned()),
            subject: "eth1".to_owned(),
            text: "it is down".to_owned(),
        });
        snapshot.store.slots = 124;
        snapshot.store.evicted_total = 17;
        snapshot.origin.fetches_total = 1;
        snapshot.origin.hung_reads = vec![0, 3];
        snapshot
    }

    #[test]
    fn a_scrape_renders_the_whole_snapshot() {
        let text = text(snapshot()).unwrap();
        let lines: Vec<_> = text.lines().collect();
        for expected in [
            r#"sealedge_build_info{version="0.1.0",commit="a\"b\\c"} 1"#,
            r#"sealedge_mode_info{xdp="native",bind="copy",hugepages="true",sender="gso"} 1"#,
            "sealedge_uptime_seconds 61",
            r#"sealedge_thread_turns_total{thread="socket"} 12"#,
            r#"sealedge_thread_turns_total{thread="engine"} 13"#,
            r#"sealedge_thread_turns_total{thread="worker-1",interface="eth1",queue="1"} 4"#,
            r#"sealedge_faults{cause="thread_stalled"} 1"#,
            r#"sealedge_faults{cause="link_down",interface="eth1"} 1"#,
            r#"sealedge_faults{cause="link_down",interface="eth0"} 0"#,
            r#"sealedge_queues{interface="eth1"} 2"#,
            r#"sealedge_interface_up{interface="eth0"} 1"#,
            r#"sealedge_interface_up{interface="eth1"} 0"#,
            r#"sealedge_xdp_packets_total{interface="eth0",queue="0",reason="nack_cookie"} 3"#,
            r#"sealedge_xdp_packets_total{interface="eth1",queue="1",reason="steered"} 7"#,
            r#"sealedge_xdp_bytes_total{interface="eth0",queue="0",reason="steered"} 500"#,
            r#"sealedge_xsk_drops_total{interface="eth1",queue="1",cause="rx_ring_full"} 3"#,
            r#"sealedge_worker_received_total{interface="eth0",queue="0"} 5"#,
            "sealedge_socket_received_total 21",
            "sealedge_socket_dropped_total 34",
            r#"sealedge_packets_total{path="xdp",interface="eth1",queue="1",reason="bounced"} 1"#,
            r#"sealedge_packets_total{path="socket",reason="bad_magic"} 8"#,
            r#"sealedge_packet_bytes_total{path="socket",reason="bad_magic"} 800"#,
            "sealedge_bounces_received_total 2",
            r#"sealedge_bounces_total{reason="served"} 2"#,
            r#"sealedge_sent_datagrams_total{path="xdp",interface="eth0",queue="0"} 100"#,
            r#"sealedge_sent_bytes_total{path="socket"} 11088"#,
            r#"sealedge_send_failures_total{path="socket",cause="failed"} 2"#,
            r#"sealedge_send_failures_total{path="socket",cause="unreached"} 3"#,
            r#"sealedge_umem_frames_missing{interface="eth0",queue="0"} 0"#,
            "sealedge_store_slots 124",
            "sealedge_store_evicted_total 17",
            "sealedge_origin_fetches_total 1",
            "sealedge_log_lines_dropped_total 3",
            r#"sealedge_origin_hung_reads{origin="1"} 3"#,
            "# TYPE sealedge_requests counter",
            "# TYPE sealedge_store_slots gauge",
            "# EOF",
        ] {
            assert!(lines.contains(&expected), "no line {expected} in\n{text}");
        }
    }

    #[test]
    fn each_request_has_one_result_and_each_result_a_line() {
        let text = text(snapshot()).unwrap();
        let count = |path: &str, result: &str| -> u64 {
            let start = format!("sealedge_requests_total{{path=\"{path}\",result=\"{result}\"}} ");
            let line = text
                .lines()
                .find_map(|line| line.strip_prefix(start.as_str()));
            line.expect(result).parse().unwrap()
        };
        assert_eq!(
            RESULTS.map(|result| count("xdp", result)),
            [8, 2, 0, 0, 0, 0, 0]
        );
        assert_eq!(
            RESULTS.map(|result| count("socket", result)),
            [6, 0, 1, 2, 0, 4, 0]
        );
    }

    #[test]
    fn names_and_lines_are_unique() {
        let text = text(snapshot()).unwrap();
        let mut names: Vec<_> = text
            .lines()
            .filter(|line| line.starts_with("# TYPE"))
            .collect();
        let mut series: Vec<_> = text
            .lines()
            .filter_map(|line| Some(line.rsplit_once(' ')?.0))
            .collect();
        for lines in [&mut names, &mut series] {
            let all = lines.len();
            lines.sort_unstable();
            lines.dedup();
            assert_eq!(lines.len(), all);
        }
        assert!(names.iter().all(|name| name.contains(" sealedge_")));
    }
}
