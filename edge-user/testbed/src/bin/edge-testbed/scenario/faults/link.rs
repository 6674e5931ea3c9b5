//! Faults of the interface.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use edge_ebpf::wire::GET_BYTES;
use edge_testbed::{client::chunk_id, clock, paths::PYTHON, process};

use super::session::{Session, WITHIN, sentence, wait};
use super::{Fault, NOTHING, UNREACHABLE};

#[rustfmt::skip] // three lines a fault, as far as it goes
pub(super) const FAULTS: &[Fault] = &[
    Fault { name: "link-down", excuses: UNREACHABLE, run: link_down,
        done: "the interface down for two seconds and up again, with its IPv6 address set again",
        expected: "edged logs and counts it (interface_up); readers wait, or fail with a message; \
                   then it serves without a restart" },
    Fault { name: "link-renamed", excuses: NOTHING, run: link_renamed,
        done: "the interface renamed while it is up, and back",
        expected: "edged logs it and continues to serve; readers are not affected" },
    Fault { name: "link-removed", excuses: UNREACHABLE, run: link_removed,
        done: "the interface removed; then created again, and edged started",
        expected: "edged logs it and ends with exit code 1; the restart serves" },
    Fault { name: "program-detached", excuses: UNREACHABLE, run: program_detached,
        done: "the XDP program detached from the interface, as by `bpftool link detach`",
        expected: "/ready reports it within two seconds; readers are served by the kernel's path; \
                   a restart attaches it again" },
    Fault { name: "station-changed", excuses: UNREACHABLE, run: station_changed,
        done: "the interface's MAC address changed, and back",
        expected: "the log reports within two seconds that the program accepts the new one; hits \
                   are steered again, without a restart" },
    Fault { name: "address-removed", excuses: UNREACHABLE, run: address_removed,
        done: "a service address removed, and set again",
        expected: "/ready reports it within two seconds; HELLOs there are not answered; then it \
                   is served again, without a restart" },
    Fault { name: "mtu-lowered", excuses: UNREACHABLE, run: mtu_lowered,
        done: "the MTU lowered below a full datagram, which disables IPv6, and all restored",
        expected: "/ready reports it within two seconds; then the edge serves without a restart" },
    Fault { name: "gets-joined", excuses: UNREACHABLE, run: gets_joined,
        done: "two GETs in one frame, at an edge in generic mode",
        expected: "both are answered by the kernel's path (coalesced); a reader finishes" },
];

/// Limit for noticing a change that is no fault.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);
const DOWN_FOR: Duration = Duration::from_secs(2);

fn link_down(session: &mut Session<'_>) -> Result<String> {
    let edge = &session.testbed.bed.edge;
    let from = session.lines()?;
    session.ip(&format!("link set dev {} down", edge.link))?;
    let line = session.logged(from, "is down")?;
    if session.counts()?.all().pointer("/interfaces/0/up") != Some(&false.into()) {
        bail!("`edge stat` does not report that the interface is down");
    }
    wait(DOWN_FOR);
    session.good_after(|session| {
        session.ip(&format!("link set dev {} up", edge.link))?;
        set_ipv6_again(session)?;
        edge.is_up()
    })?;
    session.logged(from, "over: the interface")?;
    Ok(format!("log: {line}"))
}

/// The kernel removes IPv6 addresses with the link; the operator sets them again.
fn set_ipv6_again(session: &Session<'_>) -> Result<()> {
    let edge = &session.testbed.bed.edge;
    let (ipv6, link) = (edge.ipv6, edge.link);
    session.ip(&format!("address replace {ipv6}/64 dev {link} nodad"))
}

fn link_renamed(session: &mut Session<'_>) -> Result<String> {
    let edge = session.testbed.bed.edge.link;
    let from = session.lines()?;
    session.ip(&format!("link set dev {edge} name other0"))?;
    let line = session.logged(from, "is now called other0")?;
    session.good_again()?;
    session.ip(&format!("link set dev other0 name {edge}"))?;
    session.logged(from, "is now called edge0")?;
    session.good_again()?;
    Ok(format!("log: {line}"))
}

fn link_removed(session: &mut Session<'_>) -> Result<String> {
    let bed = session.testbed.bed;
    session.ip(&format!("link delete {}", bed.edge.link))?;
    let mut edged = session.take_edged()?;
    let status = edged.ended(WITHIN)?;
    let last = edged.log().last().context("edged logged nothing")?;
    if status.code() != Some(1) || !last.contains("was removed while it was served") {
        bail!("edged ended with {status}: {last}");
    }
    let missing = session.refused(&["no interface \"edge0\""], &[], &[], 78)?;
    session.good_after(|session| {
        bed.link()?;
        session.start(&[])
    })?;
    Ok(format!("{}; a start without it: {missing}", sentence(last)))
}

/// Detaches an XDP program; `ip link set … xdp off` is refused while a link holds it.
const DETACH: &str = include_str!("detach.py");
/// A MAC address that no other interface has.
const STATION: &str = "02:00:00:00:71:09";
/// Shorter than a packet with a full segment.
const SHORT_MTU: &str = "1200";
const MTU: &str = "1500";

fn program_detached(session: &mut Session<'_>) -> Result<String> {
    let shown = session.testbed.bed.edge.facts()?;
    let program = shown["xdp"]["prog"]["id"].as_u64();
    let program = program.context("`ip` does not report the program's id")?;
    let mut detach = Command::new(PYTHON);
    process::run(detach.args(["-c", DETACH, &program.to_string()]))?;
    let named = session.is_not_ready("the XDP program was detached from")?;
    let fresh = session.fresh()?;
    session.reads_whole(&fresh)?;
    session.good_after(|session| session.restart(&[]))?;
    session.is_ready()?;
    if !session.attached()? {
        bail!("the restart does not attach the program");
    }
    Ok(named)
}

fn station_changed(session: &mut Session<'_>) -> Result<String> {
    let edge = session.testbed.bed.edge.link;
    let shown = session.testbed.bed.edge.facts()?;
    let before = shown["address"].as_str();
    let before = before.context("`ip` does not report the MAC address")?;
    let mut seen = Vec::new();
    for station in [STATION, before] {
        let from = session.lines()?;
        session.ip(&format!("link set dev {edge} address {station}"))?;
        let begin = clock::now();
        seen.push(session.logged(from, station)?);
        if begin.elapsed() > NOTICED_WITHIN {
            bail!("noticed only after {:.1?}", begin.elapsed());
        }
        // Neighbours update their caches after some time; this one is flushed.
        let reader = &session.testbed.bed.reader;
        reader.ip(&format!("neigh flush dev {}", reader.link))?;
        let steered_before = session.counts()?.xdp_packets(&["steered"]);
        session.good_again()?;
        if session.counts()?.xdp_packets(&["steered"]) == steered_before {
            bail!("hits take the kernel's path");
        }
    }
    session.is_ready()?;
    Ok(seen.join("; "))
}

fn address_removed(session: &mut Session<'_>) -> Result<String> {
    let edge = &session.testbed.bed.edge;
    let ipv4 = format!("{}/24", edge.ipv4);
    session.ip(&format!("address delete {ipv4} dev {}", edge.link))?;
    let named = session.is_not_ready(&format!("the service address {}", edge.ipv4))?;
    let welcomes = session.counts()?.xdp_packets(&["welcome"]);
    ensure!(
        session.greet().is_err(),
        "a HELLO was answered at a removed address"
    );
    let add = format!("address add {ipv4} dev {}", edge.link);
    session.good_after(|session| session.ip(&add))?;
    session.is_ready()?;
    if session.counts()?.xdp_packets(&["welcome"]) == welcomes {
        bail!("the program answers no HELLO at the address that was set again");
    }
    Ok(named)
}

fn mtu_lowered(session: &mut Session<'_>) -> Result<String> {
    let edge = &session.testbed.bed.edge;
    session.ip(&format!("link set dev {} mtu {SHORT_MTU}", edge.link))?;
    let named = session.is_not_ready("the MTU of")?;
    session.good_after(|session| {
        session.ip(&format!("link set dev {} mtu {MTU}", edge.link))?;
        set_ipv6_again(session)
    })?;
    session.is_ready()?;
    Ok(named)
}

fn gets_joined(session: &mut Session<'_>) -> Result<String> {
    session.restart(&[("SEALEDGE_XDP__MODE", Path::new("generic"))])?;
    let resident = session.fresh()?;
    session.reads_whole(&resident)?;
    let client = session.greet()?;
    let id = chunk_id(resident.data_chunk()?)?;
    let before = session.counts()?.xdp_packets(&["coalesced"]);
    let gets = [1, 2].map(|want| client.get(id, want));
    client.send_as_one(GET_BYTES, gets.as_flattened())?;
    let mut answers = [client.receive()?, client.receive()?];
    answers.sort();
    let right = |(answer, index): (&Vec<u8>, u8)| answer.starts_with(&[0xed, 0x14, index]);
    ensure!(
        answers.iter().zip(0..).all(right),
        "the edge answers {answers:?}"
    );
    let joined = session.counts()?.xdp_packets(&["coalesced"]) - before;
    ensure!(joined == 1, "coalesced +{joined}");
    session.good_after(|session| session.restart(&[]))?;
    Ok(format!("both answered, coalesced +{joined}"))
}
