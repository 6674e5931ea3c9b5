//! AES-256-CTR as SEALING lays it out: the counter block of byte offset `o` is
//! `nonce || be32(o / 16)`, so any range that begins at a multiple of 16 opens alone.

use aes::Aes256;
use ctr::Ctr32BE;
use ctr::cipher::{KeyIvInit, StreamCipher};
use rand::TryRng;
use rand::rngs::{SysError, SysRng};
use zeroize::{Zeroize, ZeroizeOnDrop};

use crate::object::tree::OBJECT_BYTES_MAX;

const BLOCK_BYTES: u64 = 16;

/// The key of one object. It has no `Debug`, no `Display` and no `Clone`, so that it cannot slip
/// into a log or outlive its owner. It lies in one place, so that handing it on leaves no copy
/// behind, and is wiped there when dropped.
pub struct Key(Box<[u8; 32]>);

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl ZeroizeOnDrop for Key {}

impl Key {
    /// A new key, straight from the kernel.
    pub fn generate() -> Result<Self, SysError> {
        let mut key = Self(Box::default());
        SysRng.try_fill_bytes(key.0.as_mut_slice())?;
        Ok(key)
    }

    /// Only a ticket holds a key that was made before.
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

/// Seals and opens bytes of one object: in this mode both are the same operation.
pub struct Cipher<'key> {
    key: &'key Key,
    nonce: Nonce,
}

impl<'key> Cipher<'key> {
    pub fn new(key: &'key Key, nonce: Nonce) -> Self {
        Self { key, nonce }
    }

    /// Turns plaintext into ciphertext or back, in place.
    ///
    /// The bytes stand at `offset` of the object, a multiple of 16.
    pub fn apply(&self, offset: u64, bytes: &mut [u8]) {
        assert!(
            offset.is_multiple_of(BLOCK_BYTES),
            "offset {offset} is inside a cipher block"
        );
        assert!(
            offset.saturating_add(bytes.len() as u64) <= OBJECT_BYTES_MAX,
            "offset {offset} is behind the largest object, where counters would repeat"
        );
        let counter = u32::try_from(offset / BLOCK_BYTES).expect("bounded by the largest object");
        let mut block = [0; 16];
        block[..12].copy_from_slice(&self.nonce.0);
        block[12..].copy_from_slice(&counter.to_be_bytes());
        // The round keys are made anew for each chunk: a hundred nanoseconds against some tens of
        // microseconds, and no copy of the key lives longer than its use.
        leaving_no_trace(|| {
            Ctr32BE::<Aes256>::new(self.key.bytes().into(), &block.into()).apply_keystream(bytes);
        });
    }
}

/// What work with a key may reach on the stack below its caller, with room to spare.
const STACK_BYTES: usize = 16 << 10;

/// Works with a key, and wipes the stack it used. Round keys are moved and spilled there, and
/// wiping the value that they end up in leaves the copies.
pub(super) fn leaving_no_trace<T>(work: impl FnOnce() -> T) -> T {
    // Neither may become part of this function: the second lies where the first lay.
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
    fn two_keys_are_never_the_same() {
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
    fn a_byte_behind_the_largest_object_is_refused() {
        Cipher::new(&Key::from_bytes(&[7; 32]), Nonce([9; 12]))
            .apply(OBJECT_BYTES_MAX, &mut [0; 1]);
    }

    proptest! {
        #[test]
        fn any_aligned_range_opens_alone(
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
