//! Named packets with the verdict each must get. The same rows are used by the host's tests, by the
//! tests of the loaded program (`edge-user/tests/prog.rs`), and by the benchmarks.

/// Builds frames byte by byte, independently of the code under test.
pub mod build;
/// The table.
mod rows;
#[cfg(test)]
mod tests;

use alloc::vec::Vec;

use crate::frame::{Address, Tags};
use crate::maps::{
    ABI_VERSION, ADDRESSES_MAX, AddressFilter, COOKIE_KEYS, CookieKey, Cookies, Resident, Settings,
    TAGS_MAX,
};
use crate::reason::Reason;
use crate::steer::Tables;
use crate::wire::{ChunkId, SEGMENT_BYTES_DEFAULT, SERVICE_PORT};

/// A packet and its expected verdict.
#[derive(Debug)]
pub struct Case {
    pub name: &'static str,
    pub frame: Vec<u8>,
    pub expect: Expect,
    /// The tables it is decided with.
    pub world: World,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Expect {
    Pass(Reason),
    Drop(Reason),
    /// Sent back as this frame.
    Reply(Reason, Vec<u8>),
    Steer(Resident),
}

/// Tables of an edge that serves 192.0.2.10 and `2001:db8::10`, untagged and under VLAN 5, and
/// holds one chunk.
#[derive(Clone, Copy, Debug)]
pub struct World {
    pub settings: Settings,
    pub cookies: Cookies,
    /// The addresses of its host.
    pub locals: [Address; 4],
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

    fn is_local(&self, address: &Address) -> bool {
        self.locals.contains(address)
    }
}

/// The epoch of the specification's test vector.
pub const EPOCH: u32 = 14_000_000;
const EDGE_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x10];
const CLIENT_MAC: [u8; 6] = [0x02, 0, 0, 0, 0, 0x07];
const EDGE_V4: [u8; 4] = [192, 0, 2, 10];
const CLIENT_V4: [u8; 4] = [192, 0, 2, 7];
const EDGE_V6: [u8; 16] = [
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10,
];
/// Addresses of the edge's host that are not service addresses.
const HOST_V4: [u8; 4] = [192, 0, 2, 12];
const HOST_V6: [u8; 16] = [
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x12,
];
const CLIENT_V6: [u8; 16] = [
    0x20, 0x01, 0x0d, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x07,
];
const CLIENT_PORT: u16 = 40_000;
const NONCE: [u8; 8] = *b"\x01nonce\x02\x03";
const MAX_BURST: u8 = 53;

/// The tables of every case.
pub fn world() -> World {
    let mut addresses = [Address::UNSPECIFIED; ADDRESSES_MAX];
    let [first, second, ..] = &mut addresses;
    *first = Address::v4(EDGE_V4);
    *second = Address::v6(EDGE_V6);
    let locals = [*first, *second, Address::v4(HOST_V4), Address::v6(HOST_V6)];
    let mut filter = AddressFilter::NONE;
    for local in &locals {
        filter.insert(local);
    }
    let mut tags = [Tags::NONE; TAGS_MAX];
    let [untagged, customer, both, ..] = &mut tags;
    *untagged = Tags::UNTAGGED;
    *customer = Tags::UNTAGGED.around(false, 5);
    *both = Tags::UNTAGGED.around(true, 5).around(false, 5);
    let key = |epoch, words| CookieKey {
        epoch,
        live: 1,
        words,
    };
    let mut keys = [CookieKey::default(); COOKIE_KEYS];
    for key in [
        key(EPOCH - 1, [11, 12]),
        // The key of the specification's test vector, as two little-endian words.
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
            mac: EDGE_MAC,
            max_burst: MAX_BURST,
            coalesced: 0,
            tags,
            addresses,
            locals: filter,
        },
        cookies: Cookies {
            epoch: EPOCH,
            reserved: 0,
            keys,
        },
        locals,
        id: ChunkId([0x5e; 32]),
        resident: Resident {
            slot: 0x0102_0304,
            generation: 0x0a0b_0c0d,
        },
    }
}

/// All golden packets, for drivers that deliver one datagram per frame.
pub fn all() -> Vec<Case> {
    cases(&world())
}

/// All golden packets, for generic mode, where the kernel may coalesce several datagrams into one
/// frame.
pub fn generic() -> Vec<Case> {
    let mut world = world();
    world.settings.coalesced = 1;
    let mut cases = cases(&world);
    for case in &mut cases {
        if let Expect::Drop(Reason::BadLength | Reason::HelloSize | Reason::GetSize) = case.expect {
            case.expect = Expect::Pass(Reason::Coalesced);
        }
    }
    cases
}

fn cases(world: &World) -> Vec<Case> {
    let mut rows = Vec::new();
    rows::left_to_the_kernel(world, &mut rows);
    rows::dropped(world, &mut rows);
    rows::answered(world, &mut rows);
    rows::steered(world, &mut rows);
    if world.settings.coalesced == 1 {
        rows::coalesced(world, &mut rows);
    }
    rows.into_iter()
        .map(|(name, frame, expect)| Case {
            name,
            frame,
            expect,
            world: *world,
        })
        .collect()
}
