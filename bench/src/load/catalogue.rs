//! What can be requested: the chunks behind public tickets.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result, bail};
use edge_ebpf::wire::{CHUNK_BYTES_MAX, ChunkId};
use edge_user::client::fetch_order::{FetchOrder, Wanted};
use edge_user::object::ticket::PublicTicket;
use edge_user::object::tree::Verified;

use crate::ceiling;

/// A data chunk: the id that names and verifies it, and its length.
#[derive(Clone, Copy, Debug)]
pub struct Chunk {
    pub id: ChunkId,
    pub bytes: u32,
}

/// Reads a file of public tickets, one per line.
pub fn tickets(file: &Path) -> Result<Vec<PublicTicket>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    let tickets: Vec<PublicTicket> = lines
        .enumerate()
        .map(|(number, line)| {
            PublicTicket::decode(line.trim())
                .with_context(|| format!("{}: ticket {}", file.display(), number + 1))
        })
        .collect::<Result<_>>()?;
    if tickets.is_empty() {
        bail!(
            "{} contains no ticket; create some with `edge-bench seed`",
            file.display()
        );
    }
    Ok(tickets)
}

/// Writes a list of chunks for [`read()`]: id and length, one per line.
pub fn write(chunks: &[Chunk], file: &Path) -> Result<()> {
    let mut text = String::new();
    for chunk in chunks {
        writeln!(text, "{} {}", chunk.id, chunk.bytes).expect("a string grows");
    }
    fs::write(file, text).with_context(|| format!("cannot write {}", file.display()))
}

/// Reads a list that [`write()`] wrote.
pub fn read(file: &Path) -> Result<Vec<Chunk>> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    text.lines()
        .enumerate()
        .map(|(number, line)| {
            parse(line).with_context(|| format!("{}:{}: not a chunk", file.display(), number + 1))
        })
        .collect()
}

fn parse(line: &str) -> Option<Chunk> {
    let (hex, bytes) = line.split_once(' ')?;
    let mut id = [0; 32];
    for (byte, digits) in id.iter_mut().zip(hex.as_bytes().as_chunks::<2>().0) {
        *byte = u8::from_str_radix(std::str::from_utf8(digits).ok()?, 16).ok()?;
    }
    (hex.len() == 64).then_some(Chunk {
        id: ChunkId(id),
        bytes: bytes.parse().ok()?,
    })
}

/// The chunks of a ceiling, by number.
pub fn numbered(count: u32) -> Vec<Chunk> {
    let chunk = |number| Chunk {
        id: ceiling::numbered(number),
        bytes: CHUNK_BYTES_MAX,
    };
    (0..count).map(chunk).collect()
}

/// All data chunks, in the order of the objects. `fetch` returns the unverified bytes of an index
/// chunk.
pub fn chunks(
    tickets: &[PublicTicket],
    mut fetch: impl FnMut(&Chunk) -> Result<Vec<u8>>,
) -> Result<Vec<Chunk>> {
    let mut chunks = Vec::new();
    for ticket in tickets {
        let mut order = FetchOrder::new(ticket.shape().clone(), ticket.root());
        while let Some(Wanted {
            place,
            id,
            chunk_bytes,
        }) = order.take_next()
        {
            let chunk = Chunk {
                id,
                bytes: chunk_bytes,
            };
            if place.level == 0 {
                chunks.push(chunk);
                order.finish(place);
                continue;
            }
            let bytes = fetch(&chunk)?;
            let Ok(verified) = Verified::check(bytes, &id) else {
                bail!("index chunk {id:?} is corrupt: the edge is broken");
            };
            order.expand(place, &verified);
        }
    }
    if chunks.is_empty() {
        bail!("the tickets name no chunks: all objects are empty");
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_that_were_written_are_read_again_and_other_lines_are_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let chunks = numbered(3);
        write(&chunks, file.path()).unwrap();
        let read_again = read(file.path()).unwrap();
        let same = |(one, other): (&Chunk, &Chunk)| one.id == other.id && one.bytes == other.bytes;
        assert!(read_again.len() == 3 && chunks.iter().zip(&read_again).all(same));
        for wrong in ["", "00 1", "zz", &format!("{} x", "0".repeat(64))] {
            fs::write(file.path(), format!("{wrong}\n")).unwrap();
            let error = format!("{:#}", read(file.path()).unwrap_err());
            assert!(error.contains(":1: not a chunk"), "{wrong}: {error}");
        }
    }
}
