//! The test vector of SEALING.

use sha2::{Digest, Sha256};

use super::cipher::{Key, Nonce};

pub(super) const SIZE_BYTES: u64 = 405_561;
pub(super) const NONCE: Nonce = Nonce([
    0xf0, 0xf1, 0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa, 0xfb,
]);
pub(super) const PLAINTEXT_SHA256: &str =
    "11d1dd8251f66dc92835b34fee36c4782aa83d80b1a3cd8f4b63c458b488f9cd";
pub(super) const CIPHERTEXT_SHA256: &str =
    "5577a5d3404e3a474e1f89fb3e967ec54f7eb974073c9781667ea07516946efa";
pub(super) const CIPHERTEXT_START: &str = "0b09de09c46c67be3fcbf10a0a5839a7";
pub(super) const IDS: [&str; 4] = [
    "7a22bf1f5058a81e",
    "f151ae1f2a91a507",
    "49d26271b67db29f",
    "32a04e284750e5d8",
];
pub(super) const ROOT: &str = "6da1259bbbbe89a1b731518d29616c44cf8a969d194d21b7daa82cd4cea4a990";
pub(super) const TICKET: &str = "edge1:AQAAAAAAAAYwOW2hJZu7vomhtzFRjSlhbETPipadGU0ht9qoLNTOpKmQAAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh_w8fLz9PX29_j5-vt5WBe8";
pub(super) const PUBLIC_TICKET: &str =
    "edgepub1:AQAAAAAAAAYwOW2hJZu7vomhtzFRjSlhbETPipadGU0ht9qoLNTOpKmQLY7aDQ";

pub(super) fn key() -> Key {
    Key::from_bytes(&std::array::from_fn(|at| u8::try_from(at).unwrap()))
}

pub(super) fn hex(bytes: &[u8]) -> String {
    let digits = |byte: &u8| [byte >> 4, byte & 0x0f].map(u32::from);
    let digits = bytes.iter().flat_map(digits);
    digits
        .map(|digit| char::from_digit(digit, 16).unwrap())
        .collect()
}

pub(super) fn plaintext() -> Vec<u8> {
    let mut out: Vec<u8> = (0_u64..)
        .flat_map(|block| {
            <[u8; 32]>::from(Sha256::digest(
                [&b"cdn-ref"[..], &block.to_be_bytes()].concat(),
            ))
        })
        .take(usize::try_from(SIZE_BYTES).unwrap())
        .collect();
    out.shrink_to_fit();
    out
}

#[test]
fn the_cipher_makes_the_ciphertext_of_the_vector() {
    let mut bytes = plaintext();
    assert_eq!(hex(&Sha256::digest(&bytes)), PLAINTEXT_SHA256);
    super::cipher::Cipher::new(&key(), NONCE).apply(0, &mut bytes);
    assert_eq!(hex(&bytes[..16]), CIPHERTEXT_START);
    assert_eq!(hex(&Sha256::digest(&bytes)), CIPHERTEXT_SHA256);
}
