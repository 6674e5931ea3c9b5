//! Memory of an edge beyond the payload that it holds.

use std::fs;

use anyhow::{Context as _, Result};
use serde_json::Value;

use super::super::testbed::Testbed;
use super::Turn;
use super::growing::Growing;

/// Umem of one queue: frames to receive into, and as many to send from with sender `xsk`.
const UMEM_BYTES: f64 = 8_388_608.0;

/// Memory beyond the payload of full slots, in percent of it.
pub(super) fn memory(
    row: &mut Growing,
    testbed: &Testbed<'_>,
    turn: Turn<'_>,
    object_bytes: f64,
) -> Result<()> {
    let memory = testbed.memory(turn)?;
    let payload = memory.slots * object_bytes;
    let value = (memory.arena + memory.beside() - payload) / payload * 100.0;
    row.notes.push(format!(
        "pair {}: {:.0} of {:.0} slots filled; beside the arena {:.0} MB of anonymous memory, \
         {:.0} MB of maps, {:.0} MB of umem",
        turn.pair,
        memory.filled,
        memory.slots,
        memory.anonymous / 1e6,
        memory.maps / 1e6,
        memory.umem / 1e6,
    ));
    row.figure("edge", turn.pair, value);
    row.mode = memory.mode;
    Ok(())
}

/// Memory of an edge with the large arena, in bytes.
#[derive(Clone)]
pub(in super::super) struct Memory {
    mode: Value,
    arena: f64,
    anonymous: f64,
    maps: f64,
    umem: f64,
    /// Number of slots, and of those that hold a chunk.
    slots: f64,
    filled: f64,
}

impl Memory {
    fn beside(&self) -> f64 {
        self.anonymous + self.maps + self.umem
    }
}

impl Testbed<'_> {
    /// Measured once per pair, for all rows.
    fn memory(&self, turn: Turn<'_>) -> Result<Memory> {
        if let Some(memory) = self.memory.borrow().get(&turn.pair) {
            return Ok(memory.clone());
        }
        let sender = turn.sender.unwrap_or("gso");
        let (edged, mode, store) = self.large_edge(sender)?;
        let number = |name: &str| {
            let number = store[name].as_f64();
            number.with_context(|| format!("`edge stat` has no number {name}"))
        };
        let [anonymous, maps] = taken(edged.id())?;
        let memory = Memory {
            mode,
            arena: number("arena_bytes")?,
            anonymous,
            maps,
            umem: if sender == "xsk" {
                2.0 * UMEM_BYTES
            } else {
                UMEM_BYTES
            },
            slots: number("slots")?,
            filled: number("resident")?,
        };
        edged.stop()?;
        self.memory.borrow_mut().insert(turn.pair, memory.clone());
        Ok(memory)
    }
}

/// Anonymous memory, and maps of the program; the kernel counts hugepages, which hold arena and
/// umem, separately.
fn taken(pid: u32) -> Result<[f64; 2]> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let anonymous_kib = number_behind("RssAnon:", &status).context("no RssAnon in /proc")?;
    let mut maps = 0.0;
    for entry in fs::read_dir(format!("/proc/{pid}/fdinfo"))? {
        // Closed meanwhile, or not a map.
        let text = fs::read_to_string(entry?.path()).unwrap_or_default();
        maps += number_behind("memlock:", &text).unwrap_or(0.0);
    }
    Ok([anonymous_kib * 1024.0, maps])
}

fn number_behind(name: &str, text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}
