//! AES-256-CTR as in SEALING: the counter block of byte offset `o` is `nonce || be32(o / 16)`, so any
//! range that begins at a multiple of 16 can be decrypted on its own.

use aes::Aes256;
use ctr::Ctr32BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use rand::TryRng;
use rand::rngs::{SysError, SysRng};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::object::tree::OBJECT_BYTES_MAX;

const BLOCK_BYTES: u64 = 16;

/// The key of one object. Without `Debug`, `Display` and `Clone`, so that it is not logged and does
/// not outlive its owner. Boxed, so that a move leaves no copy, and wiped when dropped.
pub struct Key(Box<[u8; 32]>);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Key {}

impl Key {
    /// A new key, from the kernel's random number generator.
    pub fn generate() -> Result<Self, SysError> {
        let mut key = Self(Box::default());
        SysRng.try_fill_bytes(key.0.as_mut_slice())?;
        Ok(key)
    }

    /// For the key in a ticket.
    pub(super) fn from_bytes(bytes: &[u8; 32]) -> Self {
        let mut key = Self(Box::default());
        key.0.copy_from_slice(bytes);
        key
    }

    pub(super) fn bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

/// The first 12 bytes of every counter block of an object.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nonce(pub [u8; 12]);

impl Nonce {
    pub fn generate() -> Result<Self, SysError> {
        let mut bytes = [0; 12];
        SysRng.try_fill_bytes(&mut bytes)?;
        Ok(Self(bytes))
    }
}

/// Encrypts and decrypts bytes of one object: the same operation in this mode.
pub struct Cipher<'key> {
    key: &'key Key,
    nonce: Nonce,
}

impl<'key> Cipher<'key> {
    pub fn new(key: &'key Key, nonce: Nonce) -> Self {
        Self { key, nonce }
    }

    /// Encrypts or decrypts in place. `offset` is the position of the bytes in the object, a multiple
    /// of 16.
    pub fn apply(&self, offset: u64, bytes: &mut [u8]) {
        assert!(
            offset.is_multiple_of(BLOCK_BYTES),
            "offset {offset} is inside a cipher block"
        );
        assert!(
            offset.saturating_add(bytes.len() as u64) <= OBJECT_BYTES_MAX,
            "offset {offset} is beyond the largest object: counters would repeat"
        );
        let counter = u32::try_from(offset / BLOCK_BYTES).expect("bounded by the largest object");
        let mut block = [0; 16];
        block[..12].copy_from_slice(&self.nonce.0);
        block[12..].copy_from_slice(&counter.to_be_bytes());
        // New round keys for each chunk take 0.1 µs of some tens, and no copy of the key outlives its
        // use.
        with_stack_wiped(|| {
            Ctr32BE::<Aes256>::new(self.key.bytes().into(), &block.into()).apply_keystream(bytes);
        });
    }
}

/// More stack than any use of a key takes.
const STACK_BYTES: usize = 16 << 10;

/// Runs `work` with a key and wipes the stack it used: round keys are spilled there, and wiping the
/// final value leaves those copies.
pub(super) fn with_stack_wiped<T>(work: impl FnOnce() -> T) -> T {
    // Not inlined, so that both use the same part of the stack.
    #[inline(never)]
    fn run<T>(work: impl FnOnce() -> T) -> T {
        work()
    }
    #[inline(never)]
    fn wipe() {
        std::hint::black_box(&mut [0_u8; STACK_BYTES]);
    }
    let out = run(work);
    wipe();
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn two_keys_differ() {
        assert_ne!(
            Key::generate().unwrap().bytes(),
            Key::generate().unwrap().bytes()
        );
        assert_ne!(Nonce::generate().unwrap(), Nonce::generate().unwrap());
    }

    #[test]
    fn the_last_block_of_the_largest_object_has_a_counter_of_its_own() {
        let key = Key::from_bytes(&[7; 32]);
        let cipher = Cipher::new(&key, Nonce([9; 12]));
        let (mut first, mut last) = ([0; 16], [0; 16]);
        cipher.apply(0, &mut first);
        cipher.apply(OBJECT_BYTES_MAX - 16, &mut last);
        assert_ne!(first, last);
    }

    #[test]
    #[should_panic(expected = "counters would repeat")]
    fn a_byte_beyond_the_largest_object_is_refused() {
        Cipher::new(&Key::from_bytes(&[7; 32]), Nonce([9; 12]))
            .apply(OBJECT_BYTES_MAX, &mut [0; 1]);
    }

    proptest! {
        #[test]
        fn any_aligned_range_can_be_decrypted_on_its_own(
            plain in proptest::collection::vec(any::<u8>(), 1..2000),
            cut in 0_usize..2000,
            base in 0_u64..2_000_000_000,
        ) {
            let key = Key::from_bytes(&[7; 32]);
            let cipher = Cipher::new(&key, Nonce([9; 12]));
            let base = base * 16;
            let mut sealed = plain.clone();
            cipher.apply(base, &mut sealed);
            let cut = (cut % plain.len()) / 16 * 16;
            cipher.apply(base + cut as u64, &mut sealed[cut..]);
            prop_assert_eq!(&sealed[cut..], &plain[cut..]);
        }
    }
}
