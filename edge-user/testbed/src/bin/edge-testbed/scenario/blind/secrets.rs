//! What only the reader may know of an object, and where its ciphertext is.
//!
//! Written from docs/SEALING.md alone: the search must not trust the code under test.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use base64::Engine as _;
use base64::engine::general_purpose::{GeneralPurpose, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use edge_ebpf::wire::ChunkId;
use serde::Serialize;

use super::runs::CHUNK_BYTES;

const KEY_BYTES: usize = 32;

/// The fields of a ticket.
#[derive(Debug)]
pub(super) struct Ticket {
    pub(super) size: u64,
    pub(super) root: [u8; 32],
    pub(super) key: [u8; KEY_BYTES],
}

impl Ticket {
    pub(super) fn read(file: &Path) -> Result<Self> {
        let text =
            fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
        Self::parse(text.trim()).with_context(|| format!("{} is not a ticket", file.display()))
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text.strip_prefix("edge1:")?).ok()?;
        (bytes.len() == 90).then_some(())?;
        Some(Self {
            size: u64::from_be_bytes(*bytes[2..].first_chunk()?),
            root: *bytes[10..].first_chunk()?,
            key: *bytes[42..].first_chunk()?,
        })
    }
}

/// An encoding of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub(super) enum Form {
    Raw,
    Hex,
    Base64,
}

/// Every string that reveals the key.
pub(super) fn forms(key: &[u8; KEY_BYTES]) -> Vec<(Form, Vec<u8>)> {
    let hex = ChunkId(*key).to_string();
    let mut forms = vec![
        (Form::Raw, key.to_vec()),
        (Form::Hex, hex.to_uppercase().into_bytes()),
        (Form::Hex, hex.into_bytes()),
    ];
    for alphabet in [&URL_SAFE_NO_PAD, &STANDARD_NO_PAD] {
        forms.extend((0..3).map(|before| (Form::Base64, base64_within(key, before, alphabet))));
    }
    forms
}

/// The characters that only the key determines, after this many bytes, or 3 or 6 more.
fn base64_within(key: &[u8], before: usize, alphabet: &GeneralPurpose) -> Vec<u8> {
    let text = alphabet.encode([&vec![0; before][..], key].concat());
    let only = (before * 8).div_ceil(6)..(before + key.len()) * 8 / 6;
    text.as_bytes()[only].to_vec()
}

/// The files of an object's data chunks at the origin, in order.
pub(super) fn data_chunks(origin: &Path, ticket: &Ticket) -> Result<Vec<PathBuf>> {
    if ticket.size == 0 {
        return Ok(Vec::new());
    }
    let data = ticket.size.div_ceil(CHUNK_BYTES);
    let mut level = vec![ticket.root];
    let mut on_level = data;
    while on_level > 1 {
        let mut below = Vec::new();
        for id in &level {
            let file = chunk_file(origin, id);
            let bytes =
                fs::read(&file).with_context(|| format!("cannot read {}", file.display()))?;
            below.extend(bytes.as_chunks().0);
        }
        level = below;
        on_level = on_level.div_ceil(CHUNK_BYTES / 32);
    }
    if u64::try_from(level.len())? != data {
        bail!(
            "the tree of an object lists {} data chunks instead of {data}",
            level.len()
        );
    }
    Ok(level.iter().map(|id| chunk_file(origin, id)).collect())
}

fn chunk_file(origin: &Path, id: &[u8; 32]) -> PathBuf {
    let hex = ChunkId(*id).to_string();
    origin
        .join("chunks")
        .join(&hex[..2])
        .join(&hex[2..4])
        .join(hex)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The test vector of docs/SEALING.md.
    const TICKET: &str = "edge1:AQAAAAAAAAYwOW2hJZu7vomhtzFRjSlhbETPipadGU0ht9qoLNTOpKmQAAECAwQF\
                          BgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh_w8fLz9PX29_j5-vt5WBe8";

    fn key() -> [u8; 32] {
        std::array::from_fn(|n| u8::try_from(n).unwrap())
    }

    #[test]
    fn the_ticket_of_the_document_is_read() {
        let ticket = Ticket::parse(TICKET).unwrap();
        assert_eq!(ticket.size, 405_561);
        assert_eq!(ticket.root[..4], [0x6d, 0xa1, 0x25, 0x9b]);
        assert_eq!(ticket.key, key());
        assert!(Ticket::parse("edge1:AQ").is_none());
        assert!(Ticket::parse("edge1:A*").is_none());
    }

    #[test]
    fn a_ticket_holds_its_key_in_a_form_that_is_looked_for() {
        let holds = |(form, bytes): &(Form, Vec<u8>)| {
            *form == Form::Base64 && TICKET.as_bytes().windows(bytes.len()).any(|w| w == bytes)
        };
        assert!(forms(&key()).iter().any(holds));
    }

    #[test]
    fn base64_is_known_at_each_of_its_three_alignments() {
        // By coreutils: base64 of 0, 1 and 2 bytes 0xff and the key, without the mixed characters.
        let expected = [
            "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh",
            "ABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f",
            "AAQIDBAUGBwgJCgsMDQ4PEBESExQVFhcYGRobHB0eH",
        ];
        for (before, expected) in expected.iter().enumerate() {
            let bytes = base64_within(&key(), before, &STANDARD_NO_PAD);
            assert_eq!(String::from_utf8(bytes).unwrap(), *expected);
        }
    }

    #[test]
    fn hex_is_looked_for_in_both_cases() {
        let forms = forms(&[0xab; 32]);
        for hex in ["ab", "AB"] {
            assert!(forms.contains(&(Form::Hex, hex.repeat(32).into_bytes())));
        }
    }
}
