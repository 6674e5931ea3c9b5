//! What an edge takes beside the payload it holds.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::super::field::Field;
use super::Row;
use super::growing::Growing;

/// Umem of one queue: frames to receive into, and as many again with a sender that sends from some.
const UMEM_BYTES: u64 = 8 << 20;

pub(super) fn whole_chunks(
    row: &'static Row,
    field: &Field<'_>,
    sender: Option<&str>,
) -> Result<Value> {
    let mark = ("the mark of 4 %", 4.0);
    memory_beside(row, field, sender, 131_072.0, mark)
}

pub(super) fn small_objects(
    row: &'static Row,
    field: &Field<'_>,
    sender: Option<&str>,
) -> Result<Value> {
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
