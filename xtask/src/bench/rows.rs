//! What is measured, row by row. Each starts its sides anew for each pair, one after the other, and
//! gives its runs as `edge-bench assemble` takes them.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use super::client::Ran;
use super::field::{CEILING_PORT, Field, NET, mac, programs, without_program};
use super::peers::{self, KNOT, NGINX};
use crate::daemon::Daemon;
use crate::process;
use crate::stop::{self, Stop};

pub(super) struct Row {
    pub(super) id: &'static str,
    /// A short title.
    name: &'static str,
    /// What is done, in a sentence.
    pub(super) work: &'static str,
    /// With the sender that was asked for, or the row's own.
    pub(super) measure: fn(&'static Row, &Field<'_>, Option<&str>) -> Result<Value>,
}

pub(super) const ROWS: &[Row] = &[
    Row {
        id: "P1",
        name: "whole chunks",
        work: "whole chunks of 128 KiB, Zipf 0.9 over 1 GiB resident, closed loop",
        measure: bulk,
    },
    Row {
        id: "P2",
        name: "single segments",
        work: "single segments of 1216 bytes, Zipf 0.9 over 1 GiB resident, 65536 sources, closed loop",
        measure: small,
    },
    Row {
        id: "P3",
        name: "the XDP program",
        work: "the XDP program on a hit over IPv4, the same one each time, by BPF_PROG_TEST_RUN",
        measure: verdict,
    },
    Row {
        id: "P3-1k",
        name: "cold, 10³ resident",
        work: "as P3, each run another of 65536 requests: source, cookie, chunk; 10³ resident",
        measure: |row, field, _| cold(row, field, 1_000),
    },
    Row {
        id: "P3-10k",
        name: "cold, 10⁴ resident",
        work: "as P3, each run another of 65536 requests: source, cookie, chunk; 10⁴ resident",
        measure: |row, field, _| cold(row, field, 10_000),
    },
    Row {
        id: "P3-100k",
        name: "cold, 10⁵ resident",
        work: "as P3, each run another of 65536 requests: source, cookie, chunk; 10⁵ resident",
        measure: |row, field, _| cold(row, field, 100_000),
    },
    Row {
        id: "P3-1M",
        name: "cold, 10⁶ resident",
        work: "as P3, each run another of 65536 requests: source, cookie, chunk; 10⁶ resident",
        measure: |row, field, _| cold(row, field, 1_000_000),
    },
    Row {
        id: "P4",
        name: "latency of a hit",
        work: "99th percentile of a hit's latency, open loop at half of what the slower path can do",
        measure: latency,
    },
    Row {
        id: "P4-load",
        name: "under load",
        work: "single segments as in P2, open loop at several rates; the median is over all of them",
        measure: under_load,
    },
    Row {
        id: "P5",
        name: "beside a flood",
        work: "whole chunks as in P1, beside a flood of HELLOs, bad cookies, junk and unknown ids",
        measure: flood,
    },
    Row {
        id: "P8",
        name: "memory",
        work: "memory beside the payload that an arena of 4 GiB holds, in chunks of 128 KiB",
        measure: memory,
    },
    Row {
        id: "P8-4K",
        name: "memory, small objects",
        work: "memory beside the payload that an arena of 4 GiB holds, in objects of 4 KiB",
        measure: small_memory,
    },
];

const GSO_CEILING: &str = "bare GSO sender";
const DROPPED: &str = "an equal flood, dropped at once";
/// What starting takes, on both ends.
const FLOOD_LONGER: f64 = 1.5;
const FLOOD: &str = "hello,bad-cookie,junk,unknown";
/// The golden packet that P3 is about.
const HIT: &str = "a hit over IPv4";
const NO_BUCKETS: &str = "source buckets are not built yet";
const BARE: &str = "bare parse, lookup and redirect";
const ALLOWED: &str = "1.3 × bare parse, lookup and redirect + 150 ns";
const SAME_KEY: &str = "the same key each time";
/// Umem of one queue: frames to receive into, and as many again with a sender that sends from some.
const UMEM_BYTES: u64 = 8 << 20;
const REFLECTOR: &str = "bare AF_XDP reflector";
const XDP_TX: &str = "XDP_TX of the request";
const XDP_DROP: &str = "XDP_DROP: requests offered";
const WITH_GSO: &str = "the edge with sender gso";
const WITH_XSK: &str = "the edge with sender xsk";
const XDP_OFF: &str = "the edge with XDP off";
/// Bytes of a full segment's datagram.
const REPLY_BYTES: &str = "1232";
/// Files and paths for nginx; all of them fit its cache of open files.
const SMALL_FILES: u32 = 20_000;
const SMALL_BYTES: usize = 1216;
const DRAWN: &str = "200000";
/// Requests under way, enough to keep either side busy.
const WINDOW: &str = "1024";
const BYTES_A_SECOND: &str = "B/s";
const ANSWERS_A_SECOND: &str = "answers/s";

/// A row as it grows.
struct Growing {
    row: &'static Row,
    unit: &'static str,
    better: &'static str,
    mode: Value,
    saturated: Option<&'static str>,
    notes: Vec<String>,
    targets: Vec<Value>,
    runs: Vec<Value>,
}

impl Growing {
    fn of(row: &'static Row, unit: &'static str, better: &'static str) -> Self {
        Self {
            row,
            unit,
            better,
            mode: Value::Null,
            saturated: None,
            notes: Vec::new(),
            targets: Vec::new(),
            runs: Vec::new(),
        }
    }

    fn target(&mut self, name: &str, target: f64, absent: Option<&String>) {
        self.targets
            .push(json!({"name": name, "target": target, "absent": absent}));
    }

    fn push(&mut self, side: &str, pair: u32, ran: &Ran, value: f64) {
        eprintln!(
            "   {} pair {pair}: {side} {value:.4e} {}",
            self.row.id, self.unit
        );
        // At a given rate neither side has to do all it can, and a generator that watches the clock
        // is always busy.
        if side == "edge" && !ran.result["offered"].is_null() {
            self.saturated = Some("neither");
        } else if side == "edge" {
            self.saturated = Some(ran.saturated());
            if ran.saturated() != "server" {
                let note = format!("pair {pair}: {}-bound", ran.saturated());
                self.notes.push(note);
            }
        }
        self.runs.push(ran.run(side, pair, value, self.unit));
    }

    /// A row tells the mode of its own side; the others are in their names.
    fn keep_mode(&mut self, side: &str, mode: Value) {
        if side == "edge" {
            self.mode = mode;
        }
    }

    fn finish(self) -> Value {
        let note = (!self.notes.is_empty()).then(|| self.notes.join("; "));
        json!({
            "id": self.row.id,
            "name": self.row.name,
            "work": self.row.work,
            "unit": self.unit,
            "better": self.better,
            "mode": self.mode,
            "saturated": self.saturated,
            "note": note,
            "targets": self.targets,
            "runs": self.runs,
        })
    }
}

/// The sender that was asked for; or the one a row is about, and the other one beside it.
fn senders<'a>(asked: Option<&'a str>, own: &'a str) -> Vec<(&'static str, &'a str)> {
    match (asked, own) {
        (Some(sender), _) => vec![("edge", sender)],
        (None, "gso") => vec![("edge", own), (WITH_XSK, "xsk")],
        (None, _) => vec![("edge", own), (WITH_GSO, "gso")],
    }
}

/// P1.
fn bulk(row: &'static Row, field: &Field<'_>, sender: Option<&str>) -> Result<Value> {
    let absent = peers::installed(peers::NGINX_PROGRAMS).err();
    let mut row = Growing::of(row, BYTES_A_SECOND, "higher");
    row.target(GSO_CEILING, 0.90, None);
    row.target(NGINX, 1.5, absent.as_ref());
    for pair in 1..=field.plan.pairs {
        for (side, sender) in senders(sender, "gso") {
            let (edged, mode) = field.warm_edge(sender, "native")?;
            row.keep_mode(side, mode);
            let ran = field.load(
                &field.edge(),
                &["--tickets".into(), field.tickets.clone()],
                &edged,
            )?;
            row.push(side, pair, &ran, ran.rate("bytes")?);
            edged.stop()?;
        }

        let count = field.chunk_count().to_string();
        let listen = field.ceiling_address();
        let ceiling = field.ceiling(&["gso", "--listen", &listen, "--chunks", &count])?;
        let ran = field.load(&listen, &["--numbered".into(), count.into()], &ceiling)?;
        row.push(GSO_CEILING, pair, &ran, ran.rate("bytes")?);
        ceiling.stop()?;

        if absent.is_none() {
            let paths = field.drawn_paths()?;
            let nginx = field.nginx(&field.folder.join("origin/chunks"))?;
            field.pass(false)?;
            let ran = field.wrk(&paths, &nginx);
            field.pass(true)?;
            let ran = ran?;
            row.push(NGINX, pair, &ran, ran.rate("bytes")?);
        }
    }
    Ok(row.finish())
}

/// P2.
fn small(row: &'static Row, field: &Field<'_>, sender: Option<&str>) -> Result<Value> {
    let knot_absent = peers::installed(peers::KNOT_PROGRAMS).err();
    let nginx_absent = peers::installed(peers::NGINX_PROGRAMS).err();
    let mut row = Growing::of(row, ANSWERS_A_SECOND, "higher");
    row.target(REFLECTOR, 0.85, None);
    row.target(KNOT, 2.0, knot_absent.as_ref());
    row.target(NGINX, 15.0, nginx_absent.as_ref());
    let to = field.ceiling_address();
    let bare = ["--window", WINDOW, "--any"];
    for pair in 1..=field.plan.pairs {
        for (side, sender) in senders(sender, "xsk") {
            let (edged, mode) = field.warm_edge(sender, "native")?;
            row.keep_mode(side, mode);
            let ran = field.singles(&field.edge(), &["--window", WINDOW], &edged)?;
            row.push(side, pair, &ran, ran.rate("answers")?);
            edged.stop()?;
        }

        let reflector = field.reflector()?;
        let ran = field.singles(&to, &bare, &reflector)?;
        row.push(REFLECTOR, pair, &ran, ran.rate("answers")?);
        reflector.stop()?;

        let driver = field.driver("reflect")?;
        let ran = field.singles(&to, &bare, &driver)?;
        row.push(XDP_TX, pair, &ran, ran.rate("answers")?);
        driver.stop()?;

        let driver = field.driver("drop")?;
        let ran = field.offered(&to, &driver)?;
        row.push(XDP_DROP, pair, &ran, ran.rate("requests")?);
        driver.stop()?;

        field.pass(false)?;
        let peers = small_peers(
            field,
            &mut row,
            pair,
            knot_absent.is_none(),
            nginx_absent.is_none(),
        );
        field.pass(true)?;
        peers?;
    }
    Ok(row.finish())
}

fn small_peers(
    field: &Field<'_>,
    row: &mut Growing,
    pair: u32,
    knot: bool,
    nginx: bool,
) -> Result<()> {
    if knot {
        let knot = field.knot()?;
        let ran = field.kxdpgun(&knot)?;
        row.push(KNOT, pair, &ran, ran.rate("answers")?);
        drop(knot);
        without_program(&field.ground.edge)?;
    }
    if nginx {
        let (root, paths) = field.small_files(SMALL_FILES, SMALL_BYTES)?;
        let nginx = field.nginx(&root)?;
        let ran = field.wrk(&paths, &nginx)?;
        row.push(NGINX, pair, &ran, ran.rate("answers")?);
    }
    Ok(())
}

/// P4.
fn latency(row: &'static Row, field: &Field<'_>, sender: Option<&str>) -> Result<Value> {
    let sender = sender.unwrap_or("xsk");
    let mut row = Growing::of(row, "ns", "lower");
    for (name, target) in [(XDP_OFF, 0.5), (REFLECTOR, 1.5)] {
        row.target(name, target, None);
    }
    // With XDP off everything leaves by the kernel's stack.
    let (edged, _) = field.warm_edge("gso", "off")?;
    let ran = field.singles(&field.edge(), &["--window", WINDOW], &edged)?;
    edged.stop()?;
    let rate = (ran.rate("answers")? / 2.0).floor().to_string();
    row.notes.push(format!("{rate} requests/s"));
    let open = ["--rate", &rate];
    for pair in 1..=field.plan.pairs {
        let (edged, mode) = field.warm_edge(sender, "native")?;
        row.mode = mode;
        let ran = field.singles(&field.edge(), &open, &edged)?;
        row.push("edge", pair, &ran, p99(&ran)?);
        edged.stop()?;

        let (edged, _) = field.warm_edge("gso", "off")?;
        let ran = field.singles(&field.edge(), &open, &edged)?;
        row.push(XDP_OFF, pair, &ran, p99(&ran)?);
        edged.stop()?;

        let reflector = field.reflector()?;
        let to = field.ceiling_address();
        let ran = field.singles(&to, &["--rate", &rate, "--any"], &reflector)?;
        row.push(REFLECTOR, pair, &ran, p99(&ran)?);
        reflector.stop()?;
    }
    Ok(row.finish())
}

/// P4, over the load.
fn under_load(row: &'static Row, field: &Field<'_>, sender: Option<&str>) -> Result<Value> {
    let sender = sender.unwrap_or("xsk");
    let mut row = Growing::of(row, ANSWERS_A_SECOND, "higher");
    let shares = field.plan.load_shares;
    let mut rates: Vec<String> = Vec::new();
    for round in 0..field.plan.load_rounds {
        // One number for each load and round.
        let pair = |load: usize| -> Result<u32> {
            Ok(1 + round * u32::try_from(shares.len())? + u32::try_from(load)?)
        };
        for (side, sender, xdp) in [("edge", sender, "native"), (XDP_OFF, "gso", "off")] {
            let (edged, mode) = field.warm_edge(sender, xdp)?;
            row.keep_mode(side, mode);
            if rates.is_empty() {
                let ran = field.singles(&field.edge(), &["--window", WINDOW], &edged)?;
                let most = ran.rate("answers")?;
                row.notes.push(format!("closed loop: {most:.0} answers/s"));
                let rate = |share: &f64| (share * most).floor().to_string();
                rates = shares.iter().map(rate).collect();
            }
            for (load, rate) in rates.iter().enumerate() {
                let ran = field.singles(&field.edge(), &["--rate", rate], &edged)?;
                row.push(side, pair(load)?, &ran, ran.rate("answers")?);
            }
            edged.stop()?;
        }
        let reflector = field.reflector()?;
        let to = field.ceiling_address();
        for (load, rate) in rates.iter().enumerate() {
            let ran = field.singles(&to, &["--rate", rate, "--any"], &reflector)?;
            row.push(REFLECTOR, pair(load)?, &ran, ran.rate("answers")?);
        }
        reflector.stop()?;
    }
    Ok(row.finish())
}

/// P3.
fn verdict(row: &'static Row, field: &Field<'_>, _: Option<&str>) -> Result<Value> {
    let mut row = Growing::of(row, "ns", "lower");
    row.targets
        .push(json!({"name": "the mark of 220 ns", "target": 1.0, "theirs": 220.0}));
    row.notes.push(NO_BUCKETS.into());
    for pair in 1..=field.plan.pairs {
        let mut verdicts = field.edge_bench(&field.ground.edge);
        let text = process::output(verdicts.arg("verdicts"))?;
        let figures: Value = serde_json::from_str(&text)?;
        let value = figures[HIT].as_f64().context("no figure of a hit came")?;
        eprintln!("   P3 pair {pair}: {figures}");
        row.runs
            .push(json!({"side": "edge", "pair": pair, "value": value, "unit": "ns"}));
        row.mode = figures;
    }
    Ok(row.finish())
}

/// P3 while memory is not warm.
fn cold(row: &'static Row, field: &Field<'_>, resident: u32) -> Result<Value> {
    let mut row = Growing::of(row, "ns", "lower");
    row.target(ALLOWED, 1.0, None);
    row.notes.push(NO_BUCKETS.into());
    let mut cold = field.edge_bench(&field.ground.edge);
    cold.args(["cold", "--resident", &resident.to_string()]);
    cold.args(["--pairs", &field.plan.pairs.to_string(), "--programs"]);
    let text = process::output(cold.arg(programs()))?;
    let figures: Value = serde_json::from_str(&text)?;
    eprintln!("   {}: {figures}", row.row.id);
    for pair in 1..=field.plan.pairs {
        let figure = |name: &str| {
            let figure = figures[name][pair as usize - 1].as_f64();
            figure.with_context(|| format!("no {name} of pair {pair} came"))
        };
        let bare = figure("bare_ns")?;
        for (side, value) in [
            ("edge", figure("edge_ns")?),
            (ALLOWED, 1.3 * bare + 150.0),
            (BARE, bare),
            (SAME_KEY, figure("same_key_ns")?),
        ] {
            row.runs
                .push(json!({"side": side, "pair": pair, "value": value, "unit": "ns"}));
        }
    }
    row.mode = figures;
    Ok(row.finish())
}

/// P5.
fn flood(row: &'static Row, field: &Field<'_>, sender: Option<&str>) -> Result<Value> {
    let mut row = Growing::of(row, BYTES_A_SECOND, "higher");
    row.target(DROPPED, 0.8, None);
    row.notes
        .push(String::from("source buckets are not built yet"));
    let (edged, mode) = field.warm_edge(sender.unwrap_or("gso"), "native")?;
    row.mode = mode;
    for pair in 1..=field.plan.pairs {
        for (side, of) in [("edge", FLOOD), (DROPPED, "group")] {
            let (ran, flooded) = field.load_beside_flood(of, &edged)?;
            let rate = flooded["requests"].as_f64().unwrap_or(0.0)
                / flooded["seconds"].as_f64().unwrap_or(1.0);
            row.notes.push(format!(
                "pair {pair}, {side}: {rate:.2e} of the flood a second"
            ));
            row.push(side, pair, &ran, ran.rate("bytes")?);
        }
    }
    edged.stop()?;
    Ok(row.finish())
}

/// P8, whole chunks.
fn memory(row: &'static Row, field: &Field<'_>, sender: Option<&str>) -> Result<Value> {
    let mark = ("the mark of 4 %", 4.0);
    memory_beside(row, field, sender, 131_072.0, mark)
}

/// P8, small objects.
fn small_memory(row: &'static Row, field: &Field<'_>, sender: Option<&str>) -> Result<Value> {
    let mark = ("the mark of 12 %", 12.0);
    let mut row = memory_beside(row, field, sender, 4096.0, mark)?;
    row["note"] = json!("slots for small objects are not built yet: each takes a whole chunk's");
    Ok(row)
}

/// What an edge takes beside the payload of full slots, in percent of that.
fn memory_beside(
    row: &'static Row,
    field: &Field<'_>,
    sender: Option<&str>,
    object_bytes: f64,
    (name, mark): (&str, f64),
) -> Result<Value> {
    let mut row = Growing::of(row, "%", "lower");
    row.targets
        .push(json!({"name": name, "target": 1.0, "theirs": mark}));
    let sender = sender.unwrap_or("gso");
    let umem_bytes = if sender == "xsk" {
        2 * UMEM_BYTES
    } else {
        UMEM_BYTES
    };
    let (edged, mode, store) = field.large_edge(sender)?;
    let number = |name: &str| {
        let number = store[name].as_f64();
        number.with_context(|| format!("`edge stat` gave no number of {name}"))
    };
    row.notes.push(format!(
        "{} of {} slots were filled",
        store["resident"], store["slots"]
    ));
    let payload = number("slots")? * object_bytes;
    #[expect(clippy::cast_precision_loss, reason = "far below 2^52 bytes")]
    let beside = (edged_memory(edged.id())? + umem_bytes) as f64;
    let value = (number("arena_bytes")? + beside - payload) / payload * 100.0;
    row.mode = mode;
    row.runs
        .push(json!({"side": "edge", "pair": 1, "value": value, "unit": "%"}));
    edged.stop()?;
    Ok(row.finish())
}

/// Anonymous memory and maps of the program, in bytes; arena and umem are in hugepages, which the
/// kernel counts apart.
fn edged_memory(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |name: &str| -> u64 {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        let number = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
        number.unwrap_or(0)
    };
    let mut maps = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        let bytes = text.lines().find_map(|line| line.strip_prefix("memlock:"));
        maps += bytes
            .and_then(|bytes| bytes.trim().parse::<u64>().ok())
            .unwrap_or(0);
    }
    Ok((kib("RssAnon:") << 10) + maps)
}

fn p99(ran: &Ran) -> Result<f64> {
    ran.result["latency_ns"]["p99"]
        .as_f64()
        .context("the generator gave no latency")
}

impl Field<'_> {
    /// Whole chunks by sockets.
    fn load(&self, to: &str, what: &[PathBuf; 2], server: &Daemon) -> Result<Ran> {
        let mut load = self.edge_bench(&self.ground.reader);
        load.args(["load", "--wait", "--edge", to]).args(what);
        load.args(["--seconds", &self.plan.seconds.to_string()]);
        let ran = self.ready_go(&mut load, server.id(), || self.pass(false));
        self.pass(true)?;
        ran
    }

    /// Single segments by AF_XDP, whose program takes the place of the one that passes.
    fn singles(&self, to: &str, how: &[&str], server: &Daemon) -> Result<Ran> {
        let mut singles = self.edge_bench(&self.ground.reader);
        self.link(singles.args(["singles", "--wait"]), to)?;
        singles.arg("--chunks").arg(&self.chunks);
        singles.args(["--seconds", &self.plan.seconds.to_string()]);
        singles.args(how);
        self.pass(false)?;
        let ran = self.ready_go(&mut singles, server.id(), || Ok(()));
        self.pass(true)?;
        ran
    }

    /// Whole chunks, while a flood goes on from other addresses.
    fn load_beside_flood(&self, of: &str, server: &Daemon) -> Result<(Ran, Value)> {
        let mut flood = self.edge_bench(&self.ground.reader);
        self.link(flood.arg("flood"), &self.edge())?;
        // Begun before the load, and over after it.
        let seconds = self.plan.seconds + FLOOD_LONGER;
        flood.args(["--of", of, "--seconds", &seconds.to_string()]);
        let mut load = self.edge_bench(&self.ground.reader);
        load.args(["load", "--wait", "--edge", &self.edge(), "--tickets"]);
        load.arg(&self.tickets);
        load.args(["--seconds", &self.plan.seconds.to_string()]);
        let told = self.folder.join("flood.json");
        let mut flooding = None;
        let ran = self.ready_go(&mut load, server.id(), || {
            self.pass(false)?;
            let told = File::create(&told).context("cannot write the flood's result")?;
            flood.stdout(told).stderr(Stdio::piped());
            flooding = Some(process::spawn(&mut flood)?);
            Ok(())
        });
        let flooding = flooding.context("the flood did not begin")?;
        let flooded = process::watch(flooding, stop::came);
        self.pass(true)?;
        let flooded = flooded?.ok_or_else(Stop::interrupted)?;
        if flooded.code != Some(0) {
            bail!("the flood failed ({:?}): {}", flooded.code, flooded.said);
        }
        Ok((ran?, serde_json::from_str(&fs::read_to_string(&told)?)?))
    }

    /// How AF_XDP generators are told their link.
    fn link(&self, command: &mut Command, to: &str) -> Result<()> {
        let (edge, reader) = (&self.ground.edge, &self.ground.reader);
        command.args(["--edge", to, "--net", NET, "--interface", reader.link]);
        command.args(["--edge-mac", &mac(edge)?, "--own-mac", &mac(reader)?]);
        command.arg("--programs").arg(programs());
        Ok(())
    }

    fn reflector(&self) -> Result<Daemon> {
        let programs = programs();
        let programs = programs.to_str().context("a path that is text")?;
        let port = CEILING_PORT.to_string();
        let link = self.ground.edge.link;
        let words = ["reflector", "--interface", link, "--port", &port];
        let more = ["--reply-bytes", REPLY_BYTES, "--programs", programs];
        self.ceiling(&[&words[..], &more].concat())
    }

    /// Each packet sent back, or dropped, in the driver.
    fn driver(&self, deed: &str) -> Result<Daemon> {
        let programs = programs();
        let programs = programs.to_str().context("a path that is text")?;
        let port = CEILING_PORT.to_string();
        let link = self.ground.edge.link;
        let words = ["driver", "--interface", link, "--port", &port];
        let more = ["--deed", deed, "--programs", programs];
        self.ceiling(&[&words[..], &more].concat())
    }

    /// As many requests as the generator can make, whatever comes back.
    fn offered(&self, to: &str, server: &Daemon) -> Result<Ran> {
        let mut flood = self.edge_bench(&self.ground.reader);
        self.link(flood.args(["flood", "--wait", "--of", "unknown"]), to)?;
        flood.args(["--seconds", &self.plan.seconds.to_string()]);
        self.pass(false)?;
        let ran = self.ready_go(&mut flood, server.id(), || Ok(()));
        self.pass(true)?;
        ran
    }

    /// Paths of chunk files, drawn like the chunks that the generator asks for.
    fn drawn_paths(&self) -> Result<PathBuf> {
        let file = self.folder.join("paths");
        if !file.exists() {
            let mut draw = self.edge_bench(&self.ground.reader);
            draw.args(["draw", "--mix", "zipf:0.9", "--count", DRAWN, "--chunks"]);
            process::run(draw.arg(&self.chunks).arg("--out").arg(&file))?;
        }
        Ok(file)
    }
}
