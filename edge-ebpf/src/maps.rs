//! Maps between program and server. Layouts are ABI: bump `ABI_VERSION` with any change.

use crate::frame::Address;
use crate::reason::Reason;
use crate::wire::ChunkId;

/// The program passes everything to the kernel until the server has told it this number.
pub const ABI_VERSION: u32 = 1;

/// Array of one [`Settings`].
pub const SETTINGS: &str = "SETTINGS";
/// Array of one [`Cookies`].
pub const COOKIES: &str = "COOKIES";
/// Hash of [`ChunkId`] to [`Resident`]; the server sets its size when it loads the program.
pub const RESIDENT: &str = "RESIDENT";
/// AF_XDP sockets by RX queue.
pub const XSKS: &str = "XSKS";
/// Per-CPU array of [`Tally`], by [`tally_index`].
pub const COUNTERS: &str = "COUNTERS";
/// Name of the program itself.
pub const PROGRAM: &str = "edge_xdp";

/// Most service addresses of one edge: the program compares them one after another.
pub const ADDRESSES_MAX: usize = 8;
/// Most RX queues that are served by AF_XDP.
pub const QUEUES_MAX: u32 = 64;

/// What the program must know to tell whose packet it has.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Settings {
    pub abi_version: u32,
    pub port: u16,
    pub segment_bytes: u16,
    /// How many of `addresses` are in use.
    pub address_count: u32,
    pub max_burst: u8,
    pub reserved: u8,
    /// Station address of the interface.
    pub mac: [u8; 6],
    pub reserved_too: [u8; 4],
    /// Only the first `address_count` count; the rest are zero, which is nobody's address.
    pub addresses: [Address; ADDRESSES_MAX],
}

impl Settings {
    /// Nothing is ours: the state before the server has spoken.
    pub const NONE: Self = Self {
        abi_version: 0,
        port: 0,
        segment_bytes: 0,
        address_count: 0,
        max_burst: 0,
        reserved: 0,
        mac: [0; 6],
        reserved_too: [0; 4],
        addresses: [Address::UNSPECIFIED; ADDRESSES_MAX],
    };

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

/// How many places COUNTERS has.
pub const TALLIES: u32 = QUEUES_MAX * Reason::COUNT;

/// Index in COUNTERS. Queues past the last one that has counters share its row.
#[inline(always)]
pub const fn tally_index(queue: u32, reason: Reason) -> u32 {
    let last = QUEUES_MAX - 1;
    let row = if queue < last { queue } else { last };
    // At most 64 queues by 64 reasons, so wrapping never happens.
    row.wrapping_mul(Reason::COUNT).wrapping_add(reason as u32)
}

const _: () = {
    assert!(size_of::<ChunkId>() == 32);
    assert!(size_of::<Resident>() == 8);
    assert!(size_of::<Tally>() == 16);
    assert!(size_of::<CookieKey>() == 24);
    assert!(size_of::<Cookies>() == 8 + COOKIE_KEYS * 24);
    assert!(
        size_of::<Settings>() == 4 + 2 + 2 + 4 + 1 + 1 + 6 + 4 + ADDRESSES_MAX * 16,
        "no hidden byte"
    );
    assert!(
        COOKIE_KEYS.is_power_of_two(),
        "an epoch is masked to its slot"
    );
};
