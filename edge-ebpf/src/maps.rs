//! Maps between program and server. Layouts are ABI: bump `ABI_VERSION` with any change.

use crate::frame::{Address, Tags};
use crate::reason::Reason;
use crate::wire::ChunkId;

/// The program passes everything to the kernel until its settings have this version.
pub const ABI_VERSION: u32 = 3;

/// Array of [`InterfaceSettings`], one for each served interface; the server sets its size when it
/// loads the program.
pub const SETTINGS: &str = "SETTINGS";
/// Hash of [`Address`] to 1: the addresses that [`Settings::locals`] is made of.
pub const LOCALS: &str = "LOCALS";
/// Array of one [`Cookies`].
pub const COOKIES: &str = "COOKIES";
/// Hash of [`ChunkId`] to [`Resident`]; the server sets its size when it loads the program.
pub const RESIDENT: &str = "RESIDENT";
/// AF_XDP sockets by [`row`]; the server sets its size.
pub const XSKS: &str = "XSKS";
/// Per-CPU array of [`Tally`], by [`tally_index`]; the server sets its size.
pub const COUNTERS: &str = "COUNTERS";
/// Name of the program itself.
pub const PROGRAM: &str = "edge_xdp";

/// Most service addresses of one edge: the program compares them one after another.
pub const ADDRESSES_MAX: usize = 8;
/// Most interfaces of one edge: the program compares them one after another.
pub const INTERFACES_MAX: u32 = 8;
/// Most RX queues of one interface that are served by AF_XDP.
pub const QUEUES_MAX: u32 = 64;

/// Most VLANs of one interface; frames under others go to the kernel.
pub const TAGS_MAX: usize = 16;
/// Most addresses of the host that the program knows.
pub const LOCALS_MAX: u32 = 1024;

/// What the program must know to recognise packets to the service.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    pub abi_version: u32,
    pub port: u16,
    pub segment_bytes: u16,
    /// MAC address of the interface.
    pub mac: [u8; 6],
    pub max_burst: u8,
    /// 1 if the kernel may have coalesced several datagrams into one frame.
    pub coalesced: u8,
    /// Unused entries are [`Tags::NONE`].
    pub tags: [Tags; TAGS_MAX],
    /// Unused entries are the unspecified address.
    pub addresses: [Address; ADDRESSES_MAX],
    pub locals: AddressFilter,
}

/// A filter that rules out most addresses without a lookup in LOCALS.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressFilter([u64; FILTER_WORDS]);

const FILTER_WORDS: usize = 16;

impl AddressFilter {
    pub const NONE: Self = Self([0; FILTER_WORDS]);

    /// The word and bit of an address.
    #[inline(always)]
    fn place(address: &Address) -> (usize, u32) {
        // Neighbours differ in the last bits, and IPv4 networks in the 16 bits before.
        let mixed = address.low ^ (address.low >> 16);
        let word = (mixed >> 6) as usize & (FILTER_WORDS - 1);
        (word, (mixed & 63) as u32)
    }

    pub fn insert(&mut self, address: &Address) {
        let (word, bit) = Self::place(address);
        if let Some(word) = self.0.get_mut(word) {
            *word |= 1 << bit;
        }
    }

    /// Whether the address may have been inserted.
    #[inline(always)]
    pub fn may_hold(&self, address: &Address) -> bool {
        let (word, bit) = Self::place(address);
        self.0.get(word).is_some_and(|word| (word >> bit) & 1 != 0)
    }
}

/// Value of SETTINGS: the live settings of one interface, and space for their successor.
///
/// The kernel copies an array's value byte by byte while programs run. So the server first writes
/// the set that is not live, and then `live`, of which one byte changes: no run of the program sees
/// a mixture of two sets. Rewriting unchanged bytes has no effect.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceSettings {
    /// 0 or 1.
    pub live: u32,
    /// The interface index; 0 if unused.
    pub interface_index: u32,
    /// The row of its queue 0. Stored here, because with a constant the verifier would walk the
    /// program once for each interface.
    pub first_row: u32,
    pub reserved: u32,
    pub sets: [Settings; 2],
}

impl InterfaceSettings {
    /// For the interface at this position of the list, before it is served.
    pub const fn new(interface_index: u32, place: u32) -> Self {
        Self {
            live: 0,
            interface_index,
            first_row: place.wrapping_mul(QUEUES_MAX),
            reserved: 0,
            sets: [Settings::NONE; 2],
        }
    }

    #[inline(always)]
    pub fn live(&self) -> Option<&Settings> {
        self.sets.get(self.live as usize)
    }

    /// The two values to write, in order, to replace the live settings.
    pub fn followed_by(&self, settings: &Settings) -> [Self; 2] {
        let mut written = *self;
        let next = usize::from(self.live == 0);
        if let Some(set) = written.sets.get_mut(next) {
            *set = *settings;
        }
        let live = u32::from(self.live == 0);
        [written, Self { live, ..written }]
    }
}

impl Settings {
    /// Matches no packet: the state before the server has written settings.
    pub const NONE: Self = Self {
        abi_version: 0,
        port: 0,
        segment_bytes: 0,
        mac: [0; 6],
        max_burst: 0,
        coalesced: 0,
        tags: [Tags::NONE; TAGS_MAX],
        addresses: [Address::UNSPECIFIED; ADDRESSES_MAX],
        locals: AddressFilter::NONE,
    };

    /// Whether frames under these tags are served.
    #[inline(always)]
    pub fn serves_under(&self, tags: Tags) -> bool {
        self.tags.contains(&tags)
    }

    /// Whether this is a service address.
    #[inline(always)]
    pub fn serves(&self, address: &Address) -> bool {
        // Unused entries are the unspecified address, which must not match.
        *address != Address::UNSPECIFIED && self.addresses.iter().any(|ours| ours == address)
    }
}

/// A key is at index `epoch % 4`, so that the next one is written to an entry not in use.
pub const COOKIE_KEYS: usize = 4;

/// The accepted cookie epochs and their keys.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cookies {
    /// The current epoch, updated by the server because XDP has no wall clock.
    pub epoch: u32,
    pub reserved: u32,
    pub keys: [CookieKey; COOKIE_KEYS],
}

/// The key of one cookie epoch.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CookieKey {
    pub epoch: u32,
    /// 1 when the key is set.
    pub live: u32,
    /// The 16 key bytes, as SipHash reads them: two little-endian words.
    pub words: [u64; 2],
}

/// Value of RESIDENT: the slot of a chunk, and the generation in which the slot holds it.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resident {
    pub slot: u32,
    pub generation: u32,
}

impl Resident {
    /// Bytes in front of a steered packet.
    pub const METADATA_BYTES: usize = 8;

    /// The form in the metadata area, in native byte order.
    #[inline(always)]
    #[expect(
        clippy::host_endian_bytes,
        reason = "kernel and worker share one machine"
    )]
    pub const fn to_metadata(self) -> [u8; Self::METADATA_BYTES] {
        (((self.generation as u64) << 32) | self.slot as u64).to_ne_bytes()
    }

    #[expect(
        clippy::host_endian_bytes,
        reason = "kernel and worker share one machine"
    )]
    #[expect(
        clippy::cast_possible_truncation,
        reason = "the halves are taken apart"
    )]
    pub const fn from_metadata(bytes: [u8; Self::METADATA_BYTES]) -> Self {
        let both = u64::from_ne_bytes(bytes);
        Self {
            slot: both as u32,
            generation: (both >> 32) as u32,
        }
    }
}

/// Value of COUNTERS: packets and their frame bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Tally {
    pub packets: u64,
    pub bytes: u64,
}

/// The row of a queue in XSKS and COUNTERS. Queues beyond the last row share it.
#[inline(always)]
pub const fn row(first_row: u32, queue: u32) -> u32 {
    let last = QUEUES_MAX - 1;
    first_row.wrapping_add(if queue < last { queue } else { last })
}

/// Entries of one row of COUNTERS.
pub const TALLIES: u32 = Reason::COUNT;

/// The index in COUNTERS.
#[inline(always)]
pub const fn tally_index(row: u32, reason: Reason) -> u32 {
    // At most 8 interfaces by 64 queues by 64 reasons, so wrapping never happens.
    row.wrapping_mul(TALLIES).wrapping_add(reason as u32)
}

const _: () = {
    assert!(size_of::<ChunkId>() == 32);
    assert!(size_of::<Resident>() == 8);
    assert!(size_of::<Tally>() == 16);
    assert!(size_of::<CookieKey>() == 24);
    assert!(size_of::<Cookies>() == 8 + COOKIE_KEYS * 24);
    assert!(
        size_of::<Settings>()
            == 4 + 2 + 2 + 6 + 1 + 1 + TAGS_MAX * 4 + ADDRESSES_MAX * 16 + FILTER_WORDS * 8,
        "no padding"
    );
    assert!(size_of::<InterfaceSettings>() == 16 + 2 * size_of::<Settings>());
    assert!(
        COOKIE_KEYS.is_power_of_two(),
        "an epoch is masked to its index"
    );
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    /// Settings as a program may see them during an update: the first fields new, the rest old.
    fn torn(old: &Settings, new: &Settings, fields: usize) -> Settings {
        let is_new = |field: usize| field < fields;
        let pick = |field| if is_new(field) { new } else { old };
        Settings {
            abi_version: pick(0).abi_version,
            port: pick(1).port,
            segment_bytes: pick(2).segment_bytes,
            mac: pick(3).mac,
            max_burst: pick(4).max_burst,
            coalesced: pick(5).coalesced,
            tags: pick(6).tags,
            addresses: pick(7).addresses,
            locals: pick(8).locals,
        }
    }

    #[test]
    fn a_program_that_runs_during_an_update_sees_the_old_or_the_new_settings() {
        let first = golden::world().settings;
        let mut second = Settings {
            port: 9,
            segment_bytes: 1024,
            mac: [7; 6],
            max_burst: 1,
            coalesced: 1,
            ..Settings::NONE
        };
        second.abi_version = ABI_VERSION + 1;
        let mut written = InterfaceSettings::new(2, 0);
        for next in [first, second, Settings::NONE, first] {
            let before = *written.live().unwrap();
            for step in written.followed_by(&next) {
                for fields in 0..=9 {
                    let sets = core::array::from_fn(|set| {
                        torn(&written.sets[set], &step.sets[set], fields)
                    });
                    for live in [written.live, step.live] {
                        let seen = InterfaceSettings {
                            live,
                            sets,
                            ..written
                        };
                        let seen = seen.live().unwrap();
                        assert!([before, next].contains(seen), "{seen:?}");
                    }
                }
                written = step;
            }
            assert_eq!(written.live(), Some(&next));
        }
    }
}
