//! A text that may be a ticket. What is accepted is encoded to the very same text again; what is
//! refused is refused for the reason that `docs/SEALING.md` gives, in one line.
//!
//! Input: 0 and a text; or 1 and the bytes inside a ticket, whose check is put right.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use edge_user::object::ticket::{PublicTicket, TicketError};
use edge_user::seal::ticket::{AnyTicket, Ticket};
use sha2::{Digest as _, Sha256};

use crate::input::Input;

/// Most bytes an object can have.
const SIZE_MAX: u64 = 32 << 30;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() {
        0 => text(&String::from_utf8_lossy(input.rest())),
        1 => facts(input, "edge1:", 86),
        _ => facts(input, "edgepub1:", 42),
    }
}

fn text(text: &str) {
    let ticket = match AnyTicket::decode(text) {
        Ok(ticket) => ticket,
        Err(error) => {
            let message = error.to_string();
            assert_eq!(message.lines().count(), 1, "{message:?}");
            assert!(message.len() < 200, "{message:?}");
            assert!(Ticket::decode(text).is_err() && PublicTicket::decode(text).is_err());
            return;
        }
    };
    let public = ticket.public();
    match &ticket {
        AnyTicket::Private(ticket) => {
            assert_eq!(*ticket.encode(), text);
            assert_eq!(PublicTicket::decode(text), Err(TicketError::Private));
        }
        AnyTicket::Public(ticket) => {
            assert_eq!(ticket.encode(), text);
            assert_eq!(PublicTicket::decode(text).as_ref(), Ok(ticket));
        }
    }
    let size_bytes = public.shape().size_bytes();
    assert!(size_bytes <= SIZE_MAX);
    assert_eq!(size_bytes.div_ceil(131_072), public.shape().data_chunks());
    assert_eq!(PublicTicket::decode(&public.encode()).as_ref(), Ok(public));
}

fn facts(input: Input<'_>, prefix: &str, len_bytes: usize) {
    let mut bytes = input.rest().to_vec();
    bytes.resize(len_bytes, 0);
    let check = Sha256::digest(&bytes);
    let whole = [bytes.as_slice(), &check[..4]].concat();
    let encoded = format!("{prefix}{}", URL_SAFE_NO_PAD.encode(whole));
    let size_bytes = u64::from_be_bytes(bytes[2..10].try_into().expect("8 bytes"));
    let expected = match (bytes[0], bytes[1]) {
        (1, 0) if size_bytes > SIZE_MAX => Err(TicketError::Size(size_bytes)),
        (1, 0) if size_bytes == 0 && bytes[10..42] != [0; 32] => Err(TicketError::EmptyRoot),
        (1, 0) => Ok(()),
        (1, flags) => Err(TicketError::Flags(flags)),
        (version, _) => Err(TicketError::Version(version)),
    };
    let decoded = AnyTicket::decode(&encoded);
    assert_eq!(decoded.as_ref().map(drop), expected.as_ref().map(drop));
    if let Ok(ticket) = decoded {
        assert_eq!(ticket.public().root().0, bytes[10..42]);
        assert_eq!(ticket.public().shape().size_bytes(), size_bytes);
        if let AnyTicket::Private(ticket) = &ticket {
            // The key shows itself only in what it is encoded to, below.
            assert_eq!(ticket.nonce().0, bytes[74..86]);
        }
    }
    text(&encoded);
}
