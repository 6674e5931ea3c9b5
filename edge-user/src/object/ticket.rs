//! Public tickets: size and root of an object. Also the text format both kinds of ticket share.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edge_ebpf::wire::ChunkId;
use sha2::{Digest, Sha256};
use thiserror::Error;

use super::tree::{EMPTY_ROOT, OBJECT_BYTES_MAX, Shape};

/// Of a ticket with a key, which `seal` decodes.
pub const PREFIX: &str = "edge1:";
const PUBLIC_PREFIX: &str = "edgepub1:";
const VERSION: u8 = 1;
/// Version, flags, size, root: the fields both kinds begin with.
pub const PUBLIC_FIELDS_BYTES: usize = 1 + 1 + 8 + 32;
pub const CHECKSUM_BYTES: usize = 4;
const PUBLIC_BYTES: usize = PUBLIC_FIELDS_BYTES + CHECKSUM_BYTES;

/// Why a text is not a ticket. No message contains more than one character of it.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TicketError {
    #[error("not a ticket: a ticket begins with `edge1:` (or `edgepub1:`)")]
    Prefix,
    #[error("ticket typo: character {position} ({found:?}) is not allowed; copy it again")]
    Character { position: usize, found: char },
    #[error("ticket typo: {found} characters instead of {expected}; copy it again")]
    Length { found: usize, expected: usize },
    #[error("ticket typo: the last character is wrong; copy it again")]
    LastCharacter,
    #[error("ticket typo: the checksum does not match; copy it again")]
    Checksum,
    #[error("the ticket has version {0}, and this program reads version 1: update this program")]
    Version(u8),
    #[error("the ticket requires unknown features ({0:#04x}): update this program")]
    Flags(u8),
    #[error("the ticket is for an object of {0} bytes; the maximum is 32 GiB")]
    Size(u64),
    #[error("the ticket is for an empty object, but has a root: `edge seal` did not create it")]
    EmptyRoot,
    #[error("this is a public ticket, without the key: ask the publisher for the `edge1:` ticket")]
    Public,
    #[error("this ticket contains the key: use the public ticket (`edgepub1:`) here")]
    Private,
}

/// Size and root of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicTicket {
    shape: Shape,
    root: ChunkId,
}

impl PublicTicket {
    /// Refuses an empty object with a root.
    pub fn new(shape: Shape, root: ChunkId) -> Result<Self, TicketError> {
        if shape.root().is_none() && root != EMPTY_ROOT {
            return Err(TicketError::EmptyRoot);
        }
        Ok(Self { shape, root })
    }

    pub fn shape(&self) -> &Shape {
        &self.shape
    }

    pub fn root(&self) -> ChunkId {
        self.root
    }

    pub fn encode(&self) -> String {
        let mut bytes = self.fields().to_vec();
        bytes.extend_from_slice(&checksum(&bytes));
        format!("{PUBLIC_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    pub fn decode(text: &str) -> Result<Self, TicketError> {
        if text.starts_with(PREFIX) {
            return Err(TicketError::Private);
        }
        if !text.starts_with(PUBLIC_PREFIX) {
            return Err(TicketError::Prefix);
        }
        let mut bytes = [0; PUBLIC_BYTES];
        decode_text(text, PUBLIC_PREFIX, &mut bytes)?;
        let (fields, _) = bytes.split_first_chunk().expect("longer than its fields");
        Self::from_fields(fields)
    }

    /// The first fields of either kind of ticket.
    pub fn fields(&self) -> [u8; PUBLIC_FIELDS_BYTES] {
        let mut fields = [0; PUBLIC_FIELDS_BYTES];
        fields[0] = VERSION;
        fields[2..10].copy_from_slice(&self.shape.size_bytes().to_be_bytes());
        fields[10..].copy_from_slice(&self.root.0);
        fields
    }

    pub fn from_fields(fields: &[u8; PUBLIC_FIELDS_BYTES]) -> Result<Self, TicketError> {
        let [version, flags, rest @ ..] = fields;
        if *version != VERSION {
            return Err(TicketError::Version(*version));
        }
        if *flags != 0 {
            return Err(TicketError::Flags(*flags));
        }
        let (size, root) = rest.split_first_chunk().expect("size and root");
        let size_bytes = u64::from_be_bytes(*size);
        let shape = Shape::of(size_bytes).ok_or(TicketError::Size(size_bytes))?;
        Self::new(shape, ChunkId(root.try_into().expect("32 bytes")))
    }
}

/// Decodes the text after the prefix into `out`, which has the length of the ticket, and verifies
/// the checksum at its end.
pub fn decode_text(text: &str, prefix: &str, out: &mut [u8]) -> Result<(), TicketError> {
    let body = &text[prefix.len()..];
    let invalid = |(_, found): &(usize, char)| {
        !(found.is_ascii_alphanumeric() || *found == '-' || *found == '_')
    };
    if let Some((at, found)) = body.char_indices().find(invalid) {
        return Err(TicketError::Character {
            position: prefix.len() + at + 1,
            found,
        });
    }
    let expected = prefix.len() + (out.len() * 8).div_ceil(6);
    if text.len() != expected {
        return Err(TicketError::Length {
            found: text.len(),
            expected,
        });
    }
    // Alphabet and length are valid, so only the trailing bits can be wrong.
    match URL_SAFE_NO_PAD.decode_slice(body, out) {
        Ok(len) => assert_eq!(len, out.len(), "the length of the text was checked"),
        Err(_) => return Err(TicketError::LastCharacter),
    }
    // Before version and flags: a typo there is a typo, not another version.
    let (content, check) = out.split_at(out.len() - CHECKSUM_BYTES);
    if *check == checksum(content) {
        Ok(())
    } else {
        Err(TicketError::Checksum)
    }
}

pub fn checksum(content: &[u8]) -> [u8; CHECKSUM_BYTES] {
    *Sha256::digest(content)
        .first_chunk()
        .expect("a digest of 32 bytes")
}

const _: () = assert!(OBJECT_BYTES_MAX == 32 << 30, "as a message says");

#[cfg(test)]
mod tests {
    use super::*;

    /// The public ticket of the test vector in SEALING.
    const VECTOR: &str = "edgepub1:AQAAAAAAAAYwOW2hJZu7vomhtzFRjSlhbETPipadGU0ht9qoLNTOpKmQLY7aDQ";

    #[test]
    fn a_public_ticket_decodes_and_encodes() {
        let ticket = PublicTicket::decode(VECTOR).unwrap();
        assert_eq!(ticket.shape().size_bytes(), 405_561);
        assert!(ticket.root().to_string().starts_with("6da1259bbbbe89a1"));
        assert_eq!(ticket.encode(), VECTOR);
    }

    #[test]
    fn non_zero_trailing_bits_are_an_error() {
        let last = VECTOR.len() - 1;
        assert!(VECTOR.ends_with('Q'));
        let dirty = format!("{}R", &VECTOR[..last]);
        assert_eq!(
            PublicTicket::decode(&dirty),
            Err(TicketError::LastCharacter)
        );
    }

    #[test]
    fn a_ticket_with_a_key_is_refused_without_being_decoded() {
        assert_eq!(
            PublicTicket::decode("edge1:anything"),
            Err(TicketError::Private)
        );
    }
}
