//! What happens to the interface.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_testbed::{clock, place::PYTHON, process};

use super::flood::Flood;
use super::play::{Play, WITHIN, sentence, wait};
use super::{Fault, NOTHING, UNREACHABLE};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "link-down",
        done: "the interface down for two seconds and up again, with its IPv6 address put back",
        expected: "edged says so and counts it (interface_up); readers wait or say so; up again \
                   it serves without a restart",
        excuses: UNREACHABLE,
        play: link_down,
    },
    Fault {
        name: "link-renamed",
        done: "the interface renamed while it is up, and back",
        expected: "edged says so and serves on; nobody's reader notices",
        excuses: NOTHING,
        play: link_renamed,
    },
    Fault {
        name: "link-removed",
        done: "the interface removed; then made anew, and edged started",
        expected: "edged says so and ends with exit code 1; the restart serves",
        excuses: UNREACHABLE,
        play: link_removed,
    },
    Fault {
        name: "program-detached",
        done: "the XDP program taken off the interface, as `bpftool link detach` does",
        expected: "/ready names it within two seconds; readers are served by the kernel's path; a \
                   restart puts it back",
        excuses: UNREACHABLE,
        play: program_detached,
    },
    Fault {
        name: "station-changed",
        done: "the interface's station address changed, and back",
        expected: "the log says within two seconds that the program takes frames for the new one; \
                   hits are steered again, without a restart",
        excuses: UNREACHABLE,
        play: station_changed,
    },
    Fault {
        name: "address-removed",
        done: "a service address removed, and set again",
        expected: "/ready names it within two seconds; nobody is greeted there; set again it is \
                   served without a restart",
        excuses: UNREACHABLE,
        play: address_removed,
    },
    Fault {
        name: "mtu-lowered",
        done: "the MTU lowered below a full datagram, which takes IPv6 with it, and all put back",
        expected: "/ready names it within two seconds; put back, the edge serves without a restart",
        excuses: UNREACHABLE,
        play: mtu_lowered,
    },
    Fault {
        name: "gets-joined",
        done: "two GETs in one frame, at an edge in generic mode",
        expected: "both are answered, by the kernel's path (coalesced); a reader finishes",
        excuses: UNREACHABLE,
        play: gets_joined,
    },
];

/// A change that is no fault is noticed as soon as one that is.
const NOTICED_WITHIN: Duration = Duration::from_secs(2);
const DOWN_FOR: Duration = Duration::from_secs(2);

fn link_down(play: &mut Play<'_>) -> Result<String> {
    let edge = &play.stage.bed.edge;
    let from = play.lines()?;
    play.ip(&format!("link set dev {} down", edge.link))?;
    let heard = play.hear(from, "is down")?;
    if play.counts()?.all().pointer("/interfaces/0/up") != Some(&false.into()) {
        bail!("`edge stat` does not tell that the interface is down");
    }
    wait(DOWN_FOR);
    let over = clock::now();
    play.ip(&format!("link set dev {} up", edge.link))?;
    // The kernel takes IPv6 addresses away with the link, and whoever set them sets them again.
    let ipv6 = format!("{}/64", edge.ipv6);
    play.ip(&format!("address replace {ipv6} dev {} nodad", edge.link))?;
    edge.is_up()?;
    play.good_again(over)?;
    play.hear(from, "over: the interface")?;
    Ok(format!("log: {heard}"))
}

fn link_renamed(play: &mut Play<'_>) -> Result<String> {
    let edge = play.stage.bed.edge.link;
    let from = play.lines()?;
    play.ip(&format!("link set dev {edge} name other0"))?;
    let heard = play.hear(from, "is now called other0")?;
    play.good_again(clock::now())?;
    play.ip(&format!("link set dev other0 name {edge}"))?;
    play.hear(from, "is now called edge0")?;
    play.good_again(clock::now())?;
    Ok(format!("log: {heard}"))
}

fn link_removed(play: &mut Play<'_>) -> Result<String> {
    let bed = play.stage.bed;
    play.ip(&format!("link delete {}", bed.edge.link))?;
    let mut edged = play.take_edged()?;
    let status = edged.ended(WITHIN)?;
    let last = edged.said().last().context("edged said nothing")?;
    if status.code() != Some(1) || !last.contains("was removed while it was served") {
        bail!("edged ended with {status} and said: {last}");
    }
    let missing = play.refused(&["no interface \"edge0\""], &[], &[], 78)?;
    let over = clock::now();
    bed.link()?;
    play.start(&[])?;
    play.good_again(over)?;
    Ok(format!("{}; a start without it: {missing}", sentence(last)))
}

/// Takes an XDP program off; `ip link set … xdp off` is refused while a link holds it.
const DETACH: &str = include_str!("detach.py");
/// Another station than any in the run.
const STATION: &str = "02:00:00:00:71:09";
/// Shorter than a packet with a full segment.
const SHORT_MTU: &str = "1200";
const MTU: &str = "1500";

fn program_detached(play: &mut Play<'_>) -> Result<String> {
    let shown = play.stage.bed.edge.facts()?;
    let program = shown["xdp"]["prog"]["id"].as_u64();
    let program = program.context("`ip` does not tell the program's number")?;
    let mut detach = Command::new(PYTHON);
    process::run(detach.args(["-c", DETACH, &program.to_string()]))?;
    let named = play.is_not_ready("the XDP program was detached from")?;
    let fresh = play.fresh()?;
    play.reads_whole(&fresh)?;
    let over = clock::now();
    play.take_edged()?.stop()?;
    play.start(&[])?;
    play.good_again(over)?;
    play.is_ready()?;
    if !play.attached()? {
        bail!("the restart does not put the program back");
    }
    Ok(named)
}

fn station_changed(play: &mut Play<'_>) -> Result<String> {
    let edge = play.stage.bed.edge.link;
    let shown = play.stage.bed.edge.facts()?;
    let before = shown["address"].as_str();
    let before = before.context("`ip` does not tell the station address")?;
    let mut seen = Vec::new();
    for station in [STATION, before] {
        let from = play.lines()?;
        play.ip(&format!("link set dev {edge} address {station}"))?;
        let begin = clock::now();
        seen.push(play.hear(from, station)?);
        if begin.elapsed() > NOTICED_WITHIN {
            bail!("noticed only after {:.1?}", begin.elapsed());
        }
        // Neighbours ask anew in their own time; this one is told to.
        let reader = &play.stage.bed.reader;
        reader.ip(&format!("neigh flush dev {}", reader.link))?;
        let over = clock::now();
        let steered_before = play.counts()?.xdp_packets(&["steered"]);
        play.good_again(over)?;
        if play.counts()?.xdp_packets(&["steered"]) == steered_before {
            bail!("hits take the kernel's path");
        }
    }
    play.is_ready()?;
    Ok(seen.join("; "))
}

fn address_removed(play: &mut Play<'_>) -> Result<String> {
    let edge = &play.stage.bed.edge;
    let ipv4 = format!("{}/24", edge.ipv4);
    play.ip(&format!("address delete {ipv4} dev {}", edge.link))?;
    let named = play.is_not_ready(&format!("the service address {}", edge.ipv4))?;
    let welcomes = play.counts()?.xdp_packets(&["welcome"]);
    let greeted = Flood::greet(&play.stage.bed.reader, play.address());
    if greeted.is_ok() {
        bail!("greeted at an address that was removed");
    }
    let over = clock::now();
    play.ip(&format!("address add {ipv4} dev {}", edge.link))?;
    play.good_again(over)?;
    play.is_ready()?;
    if play.counts()?.xdp_packets(&["welcome"]) == welcomes {
        bail!("the program does not greet at the address that was set again");
    }
    Ok(named)
}

fn mtu_lowered(play: &mut Play<'_>) -> Result<String> {
    let edge = &play.stage.bed.edge;
    play.ip(&format!("link set dev {} mtu {SHORT_MTU}", edge.link))?;
    let named = play.is_not_ready("the MTU of")?;
    let over = clock::now();
    play.ip(&format!("link set dev {} mtu {MTU}", edge.link))?;
    let ipv6 = format!("{}/64", edge.ipv6);
    play.ip(&format!("address replace {ipv6} dev {} nodad", edge.link))?;
    play.good_again(over)?;
    play.is_ready()?;
    Ok(named)
}

fn gets_joined(play: &mut Play<'_>) -> Result<String> {
    play.take_edged()?.stop()?;
    play.start(&[("SEALEDGE_XDP__MODE", Path::new("generic"))])?;
    let resident = play.fresh()?;
    play.reads_whole(&resident)?;
    let flood = Flood::greet(&play.stage.bed.reader, play.address())?;
    let coalesced =
        |play: &Play<'_>| -> Result<u64> { Ok(play.counts()?.xdp_packets(&["coalesced"])) };
    let before = coalesced(play)?;
    let indexes = flood.ask_as_one(resident.data_chunk()?, [1, 2])?;
    let joined = coalesced(play)? - before;
    if indexes != [0, 1] || joined != 1 {
        bail!("segments {indexes:?} came, coalesced +{joined}");
    }
    let over = clock::now();
    play.take_edged()?.stop()?;
    play.start(&[])?;
    play.good_again(over)?;
    Ok(format!("both answered, coalesced +{joined}"))
}
