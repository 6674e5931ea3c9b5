//! Named packets with the verdict each must get. The same rows are judged by the host's tests, by
//! the loaded program (`edge-user/tests/prog.rs`), and timed by the benchmarks.

/// Frames, byte by byte, made another way than the code under test makes them.
pub mod build;
/// The table.
mod rows;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use crate::frame::Address;
use crate::maps::{
    ABI_VERSION, ADDRESSES_MAX, COOKIE_KEYS, CookieKey, Cookies, Resident, Settings,
};
use crate::reason::Reason;
use crate::steer::Tables;
use crate::wire::{ChunkId, SEGMENT_BYTES_DEFAULT, SERVICE_PORT};

/// A packet, and what must become of it.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub frame: Vec<u8>,
    pub expect: Expect,
    /// The tables it is judged by; the same for every case.
    pub world: World,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Expect {
    Pass(Reason),
    Drop(Reason),
    /// Sent back, and these are the bytes.
    Reply(Reason, Vec<u8>),
    Steer(Resident),
}

/// Tables of an edge that serves 192.0.2.10 and `2001:db8::10` and holds one chunk.
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub settings: Settings,
    pub cookies: Cookies,
    pub id: ChunkId,
    pub resident: Resident,
}

impl Tables for World {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn cookies(&self) -> Option<&Cookies> {
        Some(&self.cookies)
    }

    fn resident(&self, id: &ChunkId) -> Option<Resident> {
        (*id == self.id).then_some(self.resident)
    }
}

/// The epoch of the specification's vector.
pub const EPOCH: u32 = 14_000_000;
const EDGE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x10];
const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x07];
const EDGE_V4: [u8; 4] = [192, 0, 2, 10];
const CLIENT_V4: [u8; 4] = [192, 0, 2, 7];
const EDGE_V6: [u8; 16] = [
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
const CLIENT_V6: [u8; 16] = [
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x07,
];
const CLIENT_PORT: u16 = 40_000;
const NONCE: [u8; 8] = *b"\x01nonce\x02\x03";
const MAX_BURST: u8 = 53;

/// The world every case is judged by.
pub fn world() -> World {
    let mut addresses = [Address::UNSPECIFIED; ADDRESSES_MAX];
    let [first, second, ..] = &mut addresses;
    *first = Address::v4(EDGE_V4);
    *second = Address::v6(EDGE_V6);
    let key = |epoch, words| CookieKey {
        epoch,
        live: 1,
        words,
    };
    let mut keys = [CookieKey::default(); COOKIE_KEYS];
    for key in [
        key(EPOCH - 1, [11, 12]),
        // The key of the specification's vector, as two little-endian words.
        key(EPOCH, [0x1051_c598_1363_022e, 0xb7ed_6bb5_8d9d_9482]),
        key(EPOCH + 1, [31, 32]),
    ] {
        if let Some(place) = keys.get_mut(key.epoch as usize % COOKIE_KEYS) {
            *place = key;
        }
    }
    World {
        settings: Settings {
            abi_version: ABI_VERSION,
            port: SERVICE_PORT,
            segment_bytes: SEGMENT_BYTES_DEFAULT,
            address_count: 2,
            max_burst: MAX_BURST,
            reserved: 0,
            mac: EDGE_MAC,
            reserved_too: [0; 4],
            addresses,
        },
        cookies: Cookies {
            epoch: EPOCH,
            reserved: 0,
            keys,
        },
        id: ChunkId([0x5e; 32]),
        resident: Resident {
            slot: 0x0102_0304,
            generation: 0x0a0b_0c0d,
        },
    }
}

/// Every golden packet.
pub fn all() -> Vec<Case> {
    let world = world();
    let mut rows = Vec::new();
    rows::left_to_the_kernel(&world, &mut rows);
    rows::dropped(&world, &mut rows);
    rows::answered(&world, &mut rows);
    rows::steered(&world, &mut rows);
    rows.into_iter()
        .map(|(name, frame, expect)| Case {
            name,
            frame,
            expect,
            world,
        })
        .collect()
}
