//! Tickets: size, root and key of an object. Anyone with a ticket can read the object.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use zeroize::Zeroizing;

use super::cipher::{Key, Nonce, with_stack_wiped};
use crate::object::ticket::{
    CHECKSUM_BYTES, PREFIX, PUBLIC_FIELDS_BYTES, PublicTicket, TicketError, checksum, decode_text,
};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 12;
const TICKET_BYTES: usize = PUBLIC_FIELDS_BYTES + KEY_BYTES + NONCE_BYTES + CHECKSUM_BYTES;
/// More than any ticket of this version.
pub const TEXT_BYTES_MAX: usize = 1024;

/// A public ticket and the key. Without `Debug` and `Clone`, so that it is neither printed nor
/// copied by accident.
pub struct Ticket {
    public: PublicTicket,
    key: Key,
    nonce: Nonce,
}

/// Either kind of ticket.
pub enum AnyTicket {
    Private(Ticket),
    Public(PublicTicket),
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
        with_stack_wiped(|| self.text())
    }

    fn text(&self) -> Zeroizing<String> {
        let mut bytes = Zeroizing::new(Vec::with_capacity(TICKET_BYTES));
        bytes.extend_from_slice(&self.public.fields());
        bytes.extend_from_slice(self.key.bytes());
        bytes.extend_from_slice(&self.nonce.0);
        let check = checksum(&bytes);
        bytes.extend_from_slice(&check);
        // Straight into a buffer that is wiped: one that grows leaves copies.
        let mut body = Zeroizing::new([0; TEXT_BYTES_MAX]);
        let len = URL_SAFE_NO_PAD
            .encode_slice(bytes.as_slice(), body.as_mut_slice())
            .expect("longer than any ticket");
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

    fn parse(text: &str) -> Result<Self, TicketError> {
        let mut bytes = Zeroizing::new([0; TICKET_BYTES]);
        decode_text(text, PREFIX, bytes.as_mut_slice())?;
        let (fields, rest) = bytes.split_first_chunk().expect("public fields");
        let public = PublicTicket::from_fields(fields)?;
        let (key, rest) = rest.split_first_chunk().expect("a key");
        let (nonce, _) = rest.split_first_chunk().expect("a nonce");
        Ok(Self::new(public, Key::from_bytes(key), Nonce(*nonce)))
    }
}

impl AnyTicket {
    pub fn decode(text: &str) -> Result<Self, TicketError> {
        if text.starts_with(PREFIX) {
            with_stack_wiped(|| Ticket::parse(text)).map(Self::Private)
        } else {
            PublicTicket::decode(text).map(Self::Public)
        }
    }

    pub fn public(&self) -> &PublicTicket {
        match self {
            Self::Private(ticket) => ticket.public(),
            Self::Public(public) => public,
        }
    }
}

#[cfg(test)]
mod tests {
    use edge_ebpf::wire::ChunkId;
    use proptest::prelude::*;

    use super::*;
    use crate::object::tree::{OBJECT_BYTES_MAX, Shape};
    use crate::seal::test_vector as vector;

    /// A well-formed private ticket around these facts.
    fn forged(version: u8, flags: u8, size: u64, root: [u8; 32]) -> String {
        let mut bytes = vec![version, flags];
        bytes.extend_from_slice(&size.to_be_bytes());
        bytes.extend_from_slice(&root);
        bytes.extend_from_slice(&[1; KEY_BYTES + NONCE_BYTES]);
        bytes.extend_from_slice(&checksum(&bytes));
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
        let swapped = vector::TICKET.replace(PREFIX, "edgepub1:");
        assert!(matches!(error(&swapped), TicketError::Length { .. }));
        let swapped = vector::PUBLIC_TICKET.replace("edgepub1:", PREFIX);
        assert!(matches!(error(&swapped), TicketError::Length { .. }));
        assert_eq!(error("hello"), TicketError::Prefix);
        assert_eq!(error(""), TicketError::Prefix);
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
