//! Cookie keys: derived from the secret, rotated every epoch, published to the program.

use std::io;

use aya::maps::{Array, MapData, MapError};
use edge_ebpf::maps::{COOKIE_KEYS, CookieKey, Cookies};
use hmac::{Hmac, KeyInit, Mac};
use rand::Rng as _;
use sha2::Sha256;

use crate::config::SECRET_BYTES;
use crate::sys::bpf::CookiesValue;
use crate::sys::undumped::Undumped;

/// The program's COOKIES map.
pub trait CookieMap: Send {
    fn set(&mut self, cookies: Cookies) -> Result<(), MapError>;
}

impl CookieMap for Array<MapData, CookiesValue> {
    fn set(&mut self, cookies: Cookies) -> Result<(), MapError> {
        Self::set(self, 0, CookiesValue(cookies), 0)
    }
}

/// The secret and the keys of the current epoch.
pub struct CookieKeys {
    secret: Undumped<u8>,
    cookies: Cookies,
    /// The program's copy, unless XDP is off.
    map: Option<Box<dyn CookieMap>>,
    initialised: bool,
    /// Whether the program has the current keys.
    published: bool,
}

impl std::fmt::Debug for CookieKeys {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("CookieKeys")
            .field("epoch", &self.cookies.epoch)
            .finish_non_exhaustive()
    }
}

impl CookieKeys {
    /// Generates a secret if none is configured.
    pub fn new(secret: Option<Undumped<u8>>, map: Option<Box<dyn CookieMap>>) -> io::Result<Self> {
        let secret = if let Some(secret) = secret {
            secret
        } else {
            let mut secret = Undumped::new(*SECRET_BYTES.start())?;
            rand::rng().fill_bytes(&mut secret);
            secret
        };
        Ok(Self {
            secret,
            cookies: Cookies::NONE,
            map,
            initialised: false,
            published: false,
        })
    }

    /// Accepts the keys of this epoch and its neighbours, here and in the program. After an error
    /// in publishing to the program, the next call tries again.
    pub fn rotate_to(&mut self, epoch: u32) -> Result<(), MapError> {
        if epoch != self.cookies.epoch || !self.initialised {
            // The fourth key stays: it is no longer accepted, and the next rotation overwrites it
            // while no one reads it.
            for epoch in [epoch.wrapping_sub(1), epoch, epoch.wrapping_add(1)] {
                self.cookies.keys[epoch as usize % COOKIE_KEYS] = key(&self.secret, epoch);
            }
            self.cookies.epoch = epoch;
            self.initialised = true;
            self.published = false;
        }
        if let Some(map) = &mut self.map
            && !self.published
        {
            map.set(self.cookies)?;
        }
        self.published = true;
        Ok(())
    }

    pub const fn cookies(&self) -> &Cookies {
        &self.cookies
    }
}

/// First 16 bytes of HMAC-SHA-256(secret, "edge1 cookie" ‖ be32(epoch)).
fn key(secret: &[u8], epoch: u32) -> CookieKey {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret).expect("HMAC takes a key of any length");
    mac.update(b"edge1 cookie");
    mac.update(&epoch.to_be_bytes());
    let digest: [u8; 32] = mac.finalize().into_bytes().into();
    let (words, _) = digest.as_chunks::<8>();
    // SipHash reads its key as two little-endian words.
    CookieKey {
        epoch,
        live: 1,
        words: [u64::from_le_bytes(words[0]), u64::from_le_bytes(words[1])],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_ebpf::frame::{Address, Endpoint};
    use edge_ebpf::golden;

    #[test]
    fn key_and_cookie_match_the_test_vector_of_the_specification() {
        // docs/WIRE.md, "Cookie": secret 00 01 … 1f, epoch 14000000, 192.0.2.7 port 40000.
        let mut secret = Undumped::new(32).unwrap();
        for (byte, value) in secret.iter_mut().zip(0..) {
            *byte = value;
        }
        let mut keys = CookieKeys::new(Some(secret), None).unwrap();
        keys.rotate_to(golden::EPOCH).unwrap();
        let words = keys.cookies().keys[golden::EPOCH as usize % COOKIE_KEYS].words;
        let bytes = [words[0].to_le_bytes(), words[1].to_le_bytes()].concat();
        assert_eq!(
            u128::from_be_bytes(bytes.try_into().unwrap()),
            0x2e02_6313_98c5_5110_8294_9d8d_b56b_edb7
        );
        let client = Endpoint {
            address: Address::v4([192, 0, 2, 7]),
            port: 40_000,
        };
        let cookie = keys.cookies().issue(&client).unwrap();
        assert_eq!(cookie.value, 0xe843_36ae_8ed4_fbd9_u64.to_be_bytes());
    }

    #[test]
    fn a_cookie_survives_one_rotation_and_a_clock_set_back_but_not_two_rotations() {
        let mut keys = CookieKeys::new(None, None).unwrap();
        let client = Endpoint {
            address: Address::v4([192, 0, 2, 7]),
            port: 40_000,
        };
        keys.rotate_to(100).unwrap();
        let cookie = keys.cookies().issue(&client).unwrap();
        for (epoch, accepted) in [
            (101, true),
            (102, false),
            (100, true),
            (7, false),
            (100, true),
        ] {
            keys.rotate_to(epoch).unwrap();
            assert_eq!(
                keys.cookies().accepts(&cookie, &client),
                accepted,
                "at epoch {epoch}"
            );
            assert!(keys.cookies().issue(&client).is_some());
        }
    }
}
