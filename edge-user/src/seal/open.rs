//! Decrypts verified chunks.

use edge_ebpf::wire::CHUNK_BYTES_MAX;

use super::cipher::Cipher;
use super::ticket::Ticket;
use crate::object::tree::Verified;

/// Decrypts the data chunks of one object, in any order.
pub struct Opener<'ticket> {
    cipher: Cipher<'ticket>,
}

impl<'ticket> Opener<'ticket> {
    pub fn new(ticket: &'ticket Ticket) -> Self {
        Self {
            cipher: Cipher::new(ticket.key(), ticket.nonce()),
        }
    }

    /// Decrypts the data chunk with this index, in place.
    pub fn open(&self, index: u64, chunk: Verified) -> Vec<u8> {
        let mut bytes = chunk.into_bytes();
        self.cipher
            .apply(index * u64::from(CHUNK_BYTES_MAX), &mut bytes);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::tree::id_of;
    use crate::seal::test_vector as vector;

    #[test]
    fn the_chunks_of_the_vector_can_be_decrypted_in_any_order() {
        let ticket = Ticket::decode(vector::TICKET).unwrap();
        let plain = vector::plaintext();
        let mut sealed = plain.clone();
        Cipher::new(&vector::key(), vector::NONCE).apply(0, &mut sealed);
        let opener = Opener::new(&ticket);
        for index in [3, 0, 2, 1] {
            let chunk = sealed
                .chunks(CHUNK_BYTES_MAX as usize)
                .nth(index)
                .unwrap()
                .to_vec();
            let id = id_of(&chunk);
            assert!(id.to_string().starts_with(vector::IDS[index]));
            let bytes = opener.open(index as u64, Verified::check(chunk, &id).ok().unwrap());
            assert_eq!(
                bytes,
                plain.chunks(CHUNK_BYTES_MAX as usize).nth(index).unwrap()
            );
        }
    }

    #[test]
    fn bytes_that_do_not_match_their_id_cannot_be_decrypted() {
        let id = id_of(b"one");
        assert_eq!(
            Verified::check(b"two".to_vec(), &id).err(),
            Some(b"two".to_vec())
        );
    }
}
