//! Keys of the cookie epochs: derived from the secret, turned over with the clock, told to the
//! program.

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

/// The secret and what follows from it now.
pub struct CookieKeys {
    secret: Undumped<u8>,
    cookies: Cookies,
    /// The program's copy, unless XDP is off.
    map: Option<Box<dyn CookieMap>>,
    /// Whether there are keys yet, and whether the program has them too.
    made: bool,
    told: bool,
}

impl std::fmt::Debug for CookieKeys {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.debug_struct("CookieKeys")
            .field("epoch", &self.cookies.epoch)
            .finish_non_exhaustive()
    }
}

impl CookieKeys {
    /// Without a secret to share with other edges, one is made.
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
            made: false,
            told: false,
        })
    }

    /// Makes the keys of this epoch and its neighbours the accepted ones, here and in the program.
    /// Says what went wrong with the program's copy; the next call tries again.
    pub fn turn_to(&mut self, epoch: u32) -> Result<(), MapError> {
        if epoch != self.cookies.epoch || !self.made {
            // The fourth place keeps what it has: nobody accepts it, and next time it is written
            // while nobody reads it.
            for epoch in [epoch.wrapping_sub(1), epoch, epoch.wrapping_add(1)] {
                self.cookies.keys[epoch as usize % COOKIE_KEYS] = key(&self.secret, epoch);
            }
            self.cookies.epoch = epoch;
            self.made = true;
            self.told = false;
        }
        if let Some(map) = &mut self.map
            && !self.told
        {
            map.set(self.cookies)?;
        }
        self.told = true;
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
    fn the_key_and_cookie_of_the_specification_come_out() {
        // docs/WIRE.md, "Cookie": secret 00 01 … 1f, epoch 14000000, 192.0.2.7 port 40000.
        let mut secret = Undumped::new(32).unwrap();
        for (byte, value) in secret.iter_mut().zip(0..) {
            *byte = value;
        }
        let mut jar = CookieKeys::new(Some(secret), None).unwrap();
        jar.turn_to(golden::EPOCH).unwrap();
        let words = jar.cookies().keys[golden::EPOCH as usize % COOKIE_KEYS].words;
        let bytes = [words[0].to_le_bytes(), words[1].to_le_bytes()].concat();
        assert_eq!(
            u128::from_be_bytes(bytes.try_into().unwrap()),
            0x2e02_6313_98c5_5110_8294_9d8d_b56b_edb7
        );
        let client = Endpoint {
            address: Address::v4([192, 0, 2, 7]),
            port: 40_000,
        };
        let cookie = jar.cookies().issue(&client).unwrap();
        assert_eq!(cookie.value, 0xe843_36ae_8ed4_fbd9_u64.to_be_bytes());
    }

    #[test]
    fn a_cookie_outlives_one_turn_and_not_two_and_a_clock_set_back_is_survived() {
        let mut jar = CookieKeys::new(None, None).unwrap();
        let client = Endpoint {
            address: Address::v4([192, 0, 2, 7]),
            port: 40_000,
        };
        jar.turn_to(100).unwrap();
        let cookie = jar.cookies().issue(&client).unwrap();
        for (epoch, accepted) in [
            (101, true),
            (102, false),
            (100, true),
            (7, false),
            (100, true),
        ] {
            jar.turn_to(epoch).unwrap();
            assert_eq!(
                jar.cookies().accepts(&cookie, &client),
                accepted,
                "at epoch {epoch}"
            );
            assert!(jar.cookies().issue(&client).is_some());
        }
    }
}
