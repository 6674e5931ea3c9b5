//! Cookies: the proof that a client receives at its source address.
//!
//! A cookie is SipHash-2-4 over the client's address, port and the cookie epoch, with a key for
//! each epoch. The edge keeps no state per client.

use crate::frame::Endpoint;
use crate::maps::{COOKIE_KEYS, CookieKey, Cookies};
use crate::wire::Cookie;

/// The length of a cookie epoch.
pub const EPOCH_SECONDS: u64 = 120;

/// The epoch at a time of the wall clock.
pub fn epoch_at(unix_seconds: u64) -> u32 {
    // 2^32 epochs are sixteen thousand years.
    u32::try_from(unix_seconds / EPOCH_SECONDS).unwrap_or(u32::MAX)
}

/// How long a new cookie is accepted at least: its epoch may end at once, and it is accepted
/// throughout the next one.
pub const LIFETIME_SECONDS: u16 = 120;

impl Cookies {
    pub const NONE: Self = Self {
        epoch: 0,
        reserved: 0,
        keys: [CookieKey {
            epoch: 0,
            live: 0,
            words: [0; 2],
        }; COOKIE_KEYS],
    };

    /// The key of an epoch, if the epoch is accepted.
    #[inline(always)]
    fn key(&self, epoch: u32) -> Option<&CookieKey> {
        // 0, 1 and 2 are the previous, the current and the next epoch.
        let age = epoch.wrapping_sub(self.epoch).wrapping_add(1);
        if age > 2 {
            return None;
        }
        let key = self.keys.get(epoch as usize & (COOKIE_KEYS - 1))?;
        (key.live == 1 && key.epoch == epoch).then_some(key)
    }

    /// A cookie of the current epoch for `client`.
    #[inline(always)]
    pub fn issue(&self, client: &Endpoint) -> Option<Cookie> {
        let key = self.key(self.epoch)?;
        Some(Cookie {
            epoch: self.epoch,
            value: value(key, client),
        })
    }

    /// Whether this cookie was issued to `client` in an accepted epoch.
    #[inline(always)]
    pub fn accepts(&self, cookie: &Cookie, client: &Endpoint) -> bool {
        // Constant time is not needed: an attacker needs a cookie only for an address at which it
        // does not receive, and then sees no answer to time.
        self.key(cookie.epoch)
            .is_some_and(|key| value(key, client) == cookie.value)
    }
}

#[inline(always)]
fn value(key: &CookieKey, client: &Endpoint) -> [u8; 8] {
    // 22 bytes: address, be16(port), be32(epoch); the top byte of the last word is the length.
    let tail = u64::from(client.port.swap_bytes())
        | u64::from(key.epoch.swap_bytes()) << 16
        | MESSAGE_BYTES << 56;
    siphash_2_4(
        key.words,
        [
            client.address.high.swap_bytes(),
            client.address.low.swap_bytes(),
            tail,
        ],
    )
    .to_le_bytes()
}

const MESSAGE_BYTES: u64 = 22;

/// SipHash-2-4 of a message of three padded words.
#[inline(always)]
fn siphash_2_4(key: [u64; 2], words: [u64; 3]) -> u64 {
    let [k0, k1] = key;
    let mut v = [
        k0 ^ 0x736f_6d65_7073_6575,
        k1 ^ 0x646f_7261_6e64_6f6d,
        k0 ^ 0x6c79_6765_6e65_7261,
        k1 ^ 0x7465_6462_7974_6573,
    ];
    for word in words {
        let [v0, v1, v2, v3] = round(round([v[0], v[1], v[2], v[3] ^ word]));
        v = [v0 ^ word, v1, v2, v3];
    }
    v = [v[0], v[1], v[2] ^ 0xff, v[3]];
    let [v0, v1, v2, v3] = round(round(round(round(v))));
    v0 ^ v1 ^ v2 ^ v3
}

#[inline(always)]
fn round([mut v0, mut v1, mut v2, mut v3]: [u64; 4]) -> [u64; 4] {
    v0 = v0.wrapping_add(v1);
    v1 = v1.rotate_left(13) ^ v0;
    v0 = v0.rotate_left(32);
    v2 = v2.wrapping_add(v3);
    v3 = v3.rotate_left(16) ^ v2;
    v0 = v0.wrapping_add(v3);
    v3 = v3.rotate_left(21) ^ v0;
    v2 = v2.wrapping_add(v1);
    v1 = v1.rotate_left(17) ^ v2;
    v2 = v2.rotate_left(32);
    [v0, v1, v2, v3]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Address;
    use core::hash::Hasher;
    use proptest::prelude::*;
    use siphasher::sip::SipHasher24;

    fn cookies(epoch: u32) -> Cookies {
        let mut cookies = Cookies {
            epoch,
            ..Cookies::NONE
        };
        for epoch in epoch - 1..=epoch + 1 {
            let words = [u64::from(epoch) * 3, 0x0706_0504_0302_0100];
            cookies.keys[epoch as usize % COOKIE_KEYS] = CookieKey {
                epoch,
                live: 1,
                words,
            };
        }
        cookies
    }

    #[test]
    fn the_cookie_matches_the_test_vector_of_the_specification() {
        // docs/WIRE.md, "Cookie": secret 00 01 … 1f, epoch 14000000, 192.0.2.7 port 40000.
        let key = 0x2e02_6313_98c5_5110_8294_9d8d_b56b_edb7_u128.to_be_bytes();
        let word = |at: usize| u64::from_le_bytes(key[at..at + 8].try_into().unwrap());
        let key = CookieKey {
            epoch: 14_000_000,
            live: 1,
            words: [word(0), word(8)],
        };
        let client = Endpoint {
            address: Address::v4([192, 0, 2, 7]),
            port: 40_000,
        };
        assert_eq!(
            value(&key, &client),
            0xe843_36ae_8ed4_fbd9_u64.to_be_bytes()
        );
    }

    #[test]
    fn three_epochs_are_accepted_and_no_fourth() {
        let client = Endpoint {
            address: Address::v4([192, 0, 2, 7]),
            port: 40_000,
        };
        let cookie = cookies(100).issue(&client).unwrap();
        for (epoch, accepted) in [
            (98, false),
            (99, true),
            (100, true),
            (101, true),
            (102, false),
        ] {
            assert_eq!(
                cookies(epoch).accepts(&cookie, &client),
                accepted,
                "at epoch {epoch}"
            );
        }
    }

    #[test]
    fn a_cookie_is_valid_only_for_the_address_and_port_it_was_issued_to() {
        let cookies = cookies(100);
        let client = Endpoint {
            address: Address::v4([192, 0, 2, 7]),
            port: 40_000,
        };
        let cookie = cookies.issue(&client).unwrap();
        assert!(cookies.accepts(&cookie, &client));
        assert!(!cookies.accepts(
            &cookie,
            &Endpoint {
                port: 40_001,
                ..client
            }
        ));
        let neighbour = Address::v4([192, 0, 2, 8]);
        assert!(!cookies.accepts(
            &cookie,
            &Endpoint {
                address: neighbour,
                ..client
            }
        ));
        assert!(!Cookies::NONE.accepts(&Cookie { epoch: 0, ..cookie }, &client));
        assert_eq!(Cookies::NONE.issue(&client), None);
    }

    proptest! {
        #[test]
        fn our_siphash_is_siphash(key: [u64; 2], high: u64, low: u64, port: u16, epoch: u32) {
            let client = Endpoint { address: Address { high, low }, port };
            let mut oracle = SipHasher24::new_with_keys(key[0], key[1]);
            oracle.write(&high.to_be_bytes());
            oracle.write(&low.to_be_bytes());
            oracle.write(&port.to_be_bytes());
            oracle.write(&epoch.to_be_bytes());
            let key = CookieKey { epoch, live: 1, words: key };
            prop_assert_eq!(value(&key, &client), oracle.finish().to_le_bytes());
        }
    }
}
