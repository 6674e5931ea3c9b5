//! Maps between program and server. Layouts are ABI: bump `ABI_VERSION` with any change.

use crate::frame::{Address, Tags};
use crate::reason::Reason;
use crate::wire::ChunkId;

/// The program passes everything to the kernel until the server has told it this number.
pub const ABI_VERSION: u32 = 3;

/// Array of [`InterfaceSettings`], one for each interface that is served; the server sets its size
/// when it loads the program.
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

/// Most VLANs an edge is asked by: more go to the kernel.
pub const TAGS_MAX: usize = 16;
/// Most addresses of the host that the program knows as such.
pub const LOCALS_MAX: u32 = 1024;

/// What the program must know to tell whose packet it has.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    pub abi_version: u32,
    pub port: u16,
    pub segment_bytes: u16,
    /// Station address of the interface.
    pub mac: [u8; 6],
    pub max_burst: u8,
    /// 1 where the kernel may have put several datagrams into one frame.
    pub coalesced: u8,
    /// Unused places hold [`Tags::NONE`].
    pub tags: [Tags; TAGS_MAX],
    /// Unused places are zero, which is nobody's address.
    pub addresses: [Address; ADDRESSES_MAX],
    pub locals: AddressFilter,
}

/// Which addresses are certainly not in LOCALS: most packets need no look there.
#[repr(transparent)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AddressFilter([u64; FILTER_WORDS]);

const FILTER_WORDS: usize = 16;

impl AddressFilter {
    pub const NONE: Self = Self([0; FILTER_WORDS]);

    /// Word and bit of an address.
    #[inline(always)]
    fn place(address: &Address) -> (usize, u32) {
        // Neighbours differ in their last bits, and networks of IPv4 in the 16 before.
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

    /// Whether the address may be one of those that were inserted.
    #[inline(always)]
    pub fn may_hold(&self, address: &Address) -> bool {
        let (word, bit) = Self::place(address);
        self.0.get(word).is_some_and(|word| (word >> bit) & 1 != 0)
    }
}

/// Value of SETTINGS: what is in force on one interface, and room for what follows it.
///
/// The kernel copies an array's value byte by byte, under the eyes of programs that run. So the
/// server writes the set that is not live, and then `live`, of which one byte changes: no run of
/// the program sees half of one set and half of another. Bytes that stay the same are written
/// again, which nobody sees.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InterfaceSettings {
    /// 0 or 1.
    pub live: u32,
    /// The kernel's index of the interface; 0 is no interface's.
    pub interface_index: u32,
    /// Row of its queue 0. Read from here, because a number that the verifier knows would have it
    /// follow the program once for each interface.
    pub first_row: u32,
    pub reserved: u32,
    pub sets: [Settings; 2],
}

impl InterfaceSettings {
    /// Of the interface at this place of the list, before it is served.
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

    /// What is to be written, one after the other, for these settings to follow those in force.
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
    /// Nothing is ours: the state before the server has spoken.
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

    /// Whether a frame under these tags may be for the service.
    #[inline(always)]
    pub fn serves_under(&self, tags: Tags) -> bool {
        self.tags.contains(&tags)
    }

    /// Whether this is an address of the service.
    #[inline(always)]
    pub fn serves(&self, address: &Address) -> bool {
        // Unused places hold the unspecified address, which must match nothing.
        *address != Address::UNSPECIFIED && self.addresses.iter().any(|ours| ours == address)
    }
}

/// Keys live in slot `epoch % 4`, so that the next one is written where nobody reads.
pub const COOKIE_KEYS: usize = 4;

/// The cookie epochs that are accepted, and their keys.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Cookies {
    /// Epoch of the wall clock, kept current by the server: XDP has no wall clock.
    pub epoch: u32,
    pub reserved: u32,
    pub keys: [CookieKey; COOKIE_KEYS],
}

/// Key of one cookie epoch.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct CookieKey {
    pub epoch: u32,
    /// 1 when the key is set.
    pub live: u32,
    /// The 16 key bytes, as SipHash reads them: two little-endian words.
    pub words: [u64; 2],
}

/// Value of RESIDENT: where a chunk lies, and which stay of it there is meant.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Resident {
    pub slot: u32,
    pub generation: u32,
}

impl Resident {
    /// Bytes in front of a steered packet.
    pub const METADATA_BYTES: usize = 8;

    /// As it lies in the metadata area, in the byte order of the machine both run on.
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

/// The row of a queue in XSKS and COUNTERS. Queues past the last one that has a row share its.
#[inline(always)]
pub const fn row(first_row: u32, queue: u32) -> u32 {
    let last = QUEUES_MAX - 1;
    first_row.wrapping_add(if queue < last { queue } else { last })
}

/// Places of COUNTERS in one row.
pub const TALLIES: u32 = Reason::COUNT;

/// Index in COUNTERS.
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
        "no hidden byte"
    );
    assert!(size_of::<InterfaceSettings>() == 16 + 2 * size_of::<Settings>());
    assert!(
        COOKIE_KEYS.is_power_of_two(),
        "an epoch is masked to its slot"
    );
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::golden;

    /// As a program may see settings while they are written: the first fields new, the rest old.
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
    fn a_program_that_runs_while_settings_change_sees_the_old_or_the_new_ones() {
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
