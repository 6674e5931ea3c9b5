//! What a publisher hands to a reader. A ticket is a key: whoever has it can read the object.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edge_ebpf::wire::ChunkId;
use sha2::{Digest, Sha256};
use thiserror::Error;
use zeroize::Zeroizing;

use super::cipher::{Key, Nonce, leaving_no_trace};
use crate::object::tree::{EMPTY_ROOT, OBJECT_BYTES_MAX, Shape};

const PREFIX: &str = "edge1:";
const PUBLIC_PREFIX: &str = "edgepub1:";
const VERSION: u8 = 1;
/// Version, flags, size, root.
const FACTS_BYTES: usize = 1 + 1 + 8 + 32;
const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const CHECK_BYTES: usize = 4;
const PUBLIC_BYTES: usize = FACTS_BYTES + CHECK_BYTES;
const PRIVATE_BYTES: usize = FACTS_BYTES + KEY_BYTES + NONCE_BYTES + CHECK_BYTES;
/// More than any ticket of this version has; what is longer is not worth decoding.
pub const TEXT_BYTES_MAX: usize = 1024;

/// Why a text is not a ticket. No message repeats more than one character of it.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum TicketError {
    #[error("this is not a ticket: a ticket begins with `edge1:` (or `edgepub1:`)")]
    Prefix,
    #[error("ticket typo: character {position} ({found:?}) cannot be in a ticket; copy it again")]
    Character { position: usize, found: char },
    #[error("ticket typo: it is {found} characters long instead of {expected}; copy it again")]
    Length { found: usize, expected: usize },
    #[error("ticket typo: its last character is wrong; copy it again")]
    LastCharacter,
    #[error("ticket typo: its check does not match, so a character is wrong; copy it again")]
    Check,
    #[error("this ticket is of version {0}; this program reads version 1: update it")]
    Version(u8),
    #[error("this ticket asks for features ({0:#04x}) this program does not have: update it")]
    Flags(u8),
    #[error("this ticket names an object of {0} bytes; no object has more than 32 GiB")]
    Size(u64),
    #[error("this ticket names an empty object with content: it was not made by `edge seal`")]
    EmptyRoot,
    #[error("this is a public ticket, which has no key: ask the publisher for the `edge1:` ticket")]
    Public,
}

/// What everybody may know of an object.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct PublicTicket {
    shape: Shape,
    root: ChunkId,
}

/// The same with the key. Neither printed nor copied by accident: no `Debug`, no `Clone`.
pub struct Ticket {
    public: PublicTicket,
    key: Key,
    nonce: Nonce,
}

/// Either kind, where either will do.
pub enum AnyTicket {
    Private(Ticket),
    Public(PublicTicket),
}

impl PublicTicket {
    /// The root of the empty object is known; any other object has a root that is not it.
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

    fn facts(&self) -> [u8; FACTS_BYTES] {
        let mut facts = [0; FACTS_BYTES];
        facts[0] = VERSION;
        facts[2..10].copy_from_slice(&self.shape.size_bytes().to_be_bytes());
        facts[10..].copy_from_slice(&self.root.0);
        facts
    }

    pub fn encode(&self) -> String {
        let mut bytes = self.facts().to_vec();
        bytes.extend_from_slice(&check_of(&bytes));
        format!("{PUBLIC_PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// Reads a ticket of either kind and keeps what is public of it.
    pub fn decode(text: &str) -> Result<Self, TicketError> {
        Ok(match AnyTicket::decode(text)? {
            AnyTicket::Private(ticket) => ticket.public,
            AnyTicket::Public(public) => public,
        })
    }
}

impl Ticket {
    pub fn new(public: PublicTicket, key: Key, nonce: Nonce) -> Self {
        Self { public, key, nonce }
    }

    pub fn public(&self) -> &PublicTicket {
        &self.public
    }

    pub fn key(&self) -> &Key {
        &self.key
    }

    pub fn nonce(&self) -> Nonce {
        self.nonce
    }

    pub fn encode(&self) -> Zeroizing<String> {
        leaving_no_trace(|| self.text())
    }

    fn text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(PRIVATE_BYTES));
        bytes.extend_from_slice(&self.public.facts());
        bytes.extend_from_slice(self.key.bytes());
        bytes.extend_from_slice(&self.nonce.0);
        let check = check_of(&bytes);
        bytes.extend_from_slice(&check);
        // Straight to where it is wiped: what grows or goes by way of the stack leaves copies.
        let mut body = Zeroizing::new([0; TEXT_BYTES_MAX]);
        let len = URL_SAFE_NO_PAD
            .encode_slice(bytes.as_slice(), body.as_mut_slice())
            .expect("a ticket is shorter than the longest");
        let body = str::from_utf8(&body[..len]).expect("base64 is ASCII");
        let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES_MAX));
        text.push_str(PREFIX);
        text.push_str(body);
        text
    }

    pub fn decode(text: &str) -> Result<Self, TicketError> {
        match AnyTicket::decode(text)? {
            AnyTicket::Private(ticket) => Ok(ticket),
            AnyTicket::Public(_) => Err(TicketError::Public),
        }
    }
}

impl AnyTicket {
    pub fn decode(text: &str) -> Result<Self, TicketError> {
        leaving_no_trace(|| Self::parse(text))
    }

    fn parse(text: &str) -> Result<Self, TicketError> {
        let (prefix, expected_bytes) = if text.starts_with(PREFIX) {
            (PREFIX, PRIVATE_BYTES)
        } else if text.starts_with(PUBLIC_PREFIX) {
            (PUBLIC_PREFIX, PUBLIC_BYTES)
        } else {
            return Err(TicketError::Prefix);
        };
        let bytes = binary(text, prefix.len(), expected_bytes)?;
        let (body, check) = bytes.split_at(bytes.len() - CHECK_BYTES);
        if check != check_of(body) {
            return Err(TicketError::Check);
        }
        // Only now: a typo in the version byte is a typo, not another version.
        match body[0] {
            VERSION => {}
            other => return Err(TicketError::Version(other)),
        }
        match body[1] {
            0 => {}
            other => return Err(TicketError::Flags(other)),
        }
        let size_bytes = u64::from_be_bytes(array(&body[2..10]));
        if size_bytes > OBJECT_BYTES_MAX {
            return Err(TicketError::Size(size_bytes));
        }
        let shape = Shape::of(size_bytes).ok_or(TicketError::Size(size_bytes))?;
        let public = PublicTicket::new(shape, ChunkId(array(&body[10..FACTS_BYTES])))?;
        if prefix == PUBLIC_PREFIX {
            return Ok(Self::Public(public));
        }
        let (key, nonce) = body[FACTS_BYTES..]
            .split_first_chunk()
            .expect("as long as a private ticket");
        let key = Key::from_bytes(key);
        Ok(Self::Private(Ticket::new(public, key, Nonce(array(nonce)))))
    }

    pub fn public(&self) -> &PublicTicket {
        match self {
            Self::Private(ticket) => ticket.public(),
            Self::Public(public) => public,
        }
    }
}

/// The bytes behind the prefix, as long as they must be.
fn binary(
    text: &str,
    prefix_bytes: usize,
    expected_bytes: usize,
) -> Result<Zeroizing<Vec<u8>>, TicketError> {
    let body = &text[prefix_bytes..];
    let strange = |(_, found): &(usize, char)| {
        !(found.is_ascii_alphanumeric() || *found == '-' || *found == '_')
    };
    if let Some((at, found)) = body.char_indices().find(strange) {
        return Err(TicketError::Character {
            position: prefix_bytes + at + 1,
            found,
        });
    }
    let expected = prefix_bytes + (expected_bytes * 8).div_ceil(6);
    if text.len() != expected {
        return Err(TicketError::Length {
            found: text.len(),
            expected,
        });
    }
    // Alphabet and length are right, so what is left to fault are the trailing bits.
    let mut bytes = Zeroizing::new(vec![0; expected_bytes]);
    match URL_SAFE_NO_PAD.decode_slice(body, &mut bytes) {
        Ok(len) => {
            assert_eq!(len, expected_bytes, "the length of the text was right");
            Ok(bytes)
        }
        Err(_) => Err(TicketError::LastCharacter),
    }
}

fn check_of(body: &[u8]) -> [u8; CHECK_BYTES] {
    array(&Sha256::digest(body)[..CHECK_BYTES])
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    bytes.try_into().expect("cut to this length by the caller")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::seal::vector;

    /// A well-formed private ticket around these facts.
    fn forged(version: u8, flags: u8, size: u64, root: [u8; 32]) -> String {
        let mut bytes = vec![version, flags];
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(&root);
        bytes.extend_from_slice(&[1; KEY_BYTES + NONCE_BYTES]);
        bytes.extend_from_slice(&check_of(&bytes));
        format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    fn error(text: &str) -> TicketError {
        AnyTicket::decode(text).err().expect("not a ticket")
    }

    #[test]
    fn both_tickets_of_the_vector_decode_and_encode() {
        let ticket = Ticket::decode(vector::TICKET).unwrap();
        assert_eq!(ticket.public().root().to_string(), vector::ROOT);
        assert_eq!(ticket.public().shape().size_bytes(), vector::SIZE_BYTES);
        assert_eq!(ticket.key().bytes(), vector::key().bytes());
        assert_eq!(ticket.nonce(), vector::NONCE);
        assert_eq!(*ticket.encode(), vector::TICKET);
        assert_eq!(ticket.public().encode(), vector::PUBLIC_TICKET);
        assert_eq!(
            PublicTicket::decode(vector::PUBLIC_TICKET).as_ref(),
            Ok(ticket.public())
        );
        assert_eq!(
            PublicTicket::decode(vector::TICKET).as_ref(),
            Ok(ticket.public())
        );
        assert_eq!(
            Ticket::decode(vector::PUBLIC_TICKET).err(),
            Some(TicketError::Public)
        );
    }

    #[test]
    fn every_wrong_character_is_called_a_typo() {
        for text in [vector::TICKET, vector::PUBLIC_TICKET] {
            let start = text.find(':').unwrap() + 1;
            for at in start..text.len() {
                for wrong in "AZaz09-_+/= ?é".chars() {
                    if text[at..].starts_with(wrong) {
                        continue;
                    }
                    let typo = format!("{}{wrong}{}", &text[..at], &text[at + 1..]);
                    let message = error(&typo).to_string();
                    assert!(
                        message.starts_with("ticket typo"),
                        "{at} {wrong}: {message}"
                    );
                }
            }
        }
    }

    #[test]
    fn cut_and_grown_tickets_are_called_typos() {
        for text in [vector::TICKET, vector::PUBLIC_TICKET] {
            for len in text.find(':').unwrap() + 1..text.len() {
                assert!(matches!(error(&text[..len]), TicketError::Length { .. }));
            }
            assert!(matches!(
                error(&format!("{text}A")),
                TicketError::Length { .. }
            ));
        }
    }

    #[test]
    fn a_private_ticket_under_the_public_prefix_is_refused_and_the_reverse() {
        let swapped = vector::TICKET.replace(PREFIX, PUBLIC_PREFIX);
        assert!(matches!(error(&swapped), TicketError::Length { .. }));
        let swapped = vector::PUBLIC_TICKET.replace(PUBLIC_PREFIX, PREFIX);
        assert!(matches!(error(&swapped), TicketError::Length { .. }));
        assert_eq!(error("hello"), TicketError::Prefix);
        assert_eq!(error(""), TicketError::Prefix);
    }

    #[test]
    fn non_zero_trailing_bits_are_an_error() {
        let last = vector::PUBLIC_TICKET.len() - 1;
        assert!(vector::PUBLIC_TICKET.ends_with('Q'));
        let dirty = format!("{}R", &vector::PUBLIC_TICKET[..last]);
        assert_eq!(error(&dirty), TicketError::LastCharacter);
    }

    #[test]
    fn other_versions_flags_sizes_and_empty_roots_are_refused_each_with_its_name() {
        assert_eq!(error(&forged(2, 0, 1, [1; 32])), TicketError::Version(2));
        assert_eq!(error(&forged(1, 4, 1, [1; 32])), TicketError::Flags(4));
        let size = OBJECT_BYTES_MAX + 1;
        assert_eq!(error(&forged(1, 0, size, [1; 32])), TicketError::Size(size));
        assert_eq!(error(&forged(1, 0, 0, [1; 32])), TicketError::EmptyRoot);
        assert!(AnyTicket::decode(&forged(1, 0, OBJECT_BYTES_MAX, [1; 32])).is_ok());
        assert!(AnyTicket::decode(&forged(1, 0, 0, [0; 32])).is_ok());
    }

    proptest! {
        #[test]
        fn no_text_makes_the_decoder_panic(text in ".{0,200}", behind in "edge(pub)?1:.{0,130}") {
            let (Ok(_) | Err(_)) = AnyTicket::decode(&text);
            let (Ok(_) | Err(_)) = AnyTicket::decode(&behind);
        }

        #[test]
        fn every_ticket_survives_encode_and_decode(
            size in 1..=OBJECT_BYTES_MAX, root: [u8; 32], key: [u8; 32], nonce: [u8; 12],
        ) {
            let public = PublicTicket::new(Shape::of(size).unwrap(), ChunkId(root)).unwrap();
            let ticket = Ticket::new(public, Key::from_bytes(&key), Nonce(nonce));
            let again = Ticket::decode(&ticket.encode()).unwrap();
            prop_assert_eq!(again.public(), ticket.public());
            prop_assert_eq!(again.key().bytes(), &key);
            prop_assert_eq!(again.nonce(), Nonce(nonce));
            prop_assert_eq!(PublicTicket::decode(&ticket.public().encode()).unwrap(), again.public);
        }
    }
}
