//! The five datagrams, byte by byte. `docs/WIRE.md` is the normative text.
//!
//! All integers are big-endian. A reserved byte is sent as zero and must be zero.

use crate::cursor::{part, put};
use crate::reason::Reason;

/// The first byte of every datagram.
pub const MAGIC: u8 = 0xED;
pub const VERSION: u8 = 1;
/// The default UDP port of the service.
pub const SERVICE_PORT: u16 = 7347;
/// The largest chunk, in bytes of ciphertext.
pub const CHUNK_BYTES_MAX: u32 = 131_072;
/// Payload of a full DATA datagram: an IPv6 packet of 1280 bytes, the minimum MTU.
pub const SEGMENT_BYTES_DEFAULT: u16 = 1216;
/// Smallest payload of a full DATA datagram: 128 segments hold a whole chunk.
pub const SEGMENT_BYTES_MIN: u16 = 1024;
/// Largest payload of a full DATA datagram.
pub const SEGMENT_BYTES_MAX: u16 = 1440;
/// Most segments of a chunk: the bits of a want set.
pub const SEGMENTS_MAX: u32 = 128;
/// Shortest HELLO; the answer has the same length.
pub const HELLO_BYTES_MIN: usize = 1200;
/// Longest HELLO: the longest DATA datagram of any edge, because the client does not know the
/// segment size yet.
pub const HELLO_BYTES_MAX: usize = DATA_HEADER_BYTES + SEGMENT_BYTES_MAX as usize;
/// A HELLO without its padding.
pub const HELLO_HEADER_BYTES: usize = 16;
/// A WELCOME without its padding.
pub const WELCOME_HEADER_BYTES: usize = 32;
/// Length of a GET.
pub const GET_BYTES: usize = 64;
/// Header of a DATA datagram.
pub const DATA_HEADER_BYTES: usize = 16;
/// Length of a NACK.
pub const NACK_BYTES: usize = 24;

const _: () = {
    assert!(
        SEGMENT_BYTES_MIN as u32 * SEGMENTS_MAX >= CHUNK_BYTES_MAX,
        "a want set covers every chunk"
    );
    assert!(
        NACK_BYTES <= GET_BYTES,
        "a NACK is never longer than its GET"
    );
    assert!(
        WELCOME_HEADER_BYTES <= HELLO_BYTES_MIN,
        "a WELCOME fits the length of its HELLO"
    );
};

/// The SHA-256 of a chunk's bytes.
#[repr(C)]
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId(pub [u8; 32]);

impl ChunkId {
    /// The abbreviation of the id in DATA and NACK.
    #[inline(always)]
    pub fn tag(&self) -> [u8; 8] {
        part::<0, 8, 32>(&self.0)
    }
}

impl core::fmt::Display for ChunkId {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        self.0.iter().try_for_each(|byte| write!(out, "{byte:02x}"))
    }
}

impl core::fmt::Debug for ChunkId {
    fn fmt(&self, out: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        core::fmt::Display::fmt(self, out)
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    Hello = 1,
    Welcome = 2,
    Get = 3,
    Data = 4,
    Nack = 5,
}

/// The first two bytes of a datagram.
#[inline(always)]
pub const fn opening(kind: Kind) -> [u8; 2] {
    [MAGIC, VERSION << 4 | kind as u8]
}

/// A cookie and the epoch of its key.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Cookie {
    pub epoch: u32,
    pub value: [u8; 8],
}

/// Client to edge: proves the client's address and the path MTU.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Hello {
    pub nonce: [u8; 8],
}

impl Hello {
    /// The bytes before the padding, which is zero and extends to the length to be proved.
    pub fn encode(&self) -> [u8; HELLO_HEADER_BYTES] {
        let mut out = [0; HELLO_HEADER_BYTES];
        put::<0, 2, _>(&mut out, opening(Kind::Hello));
        put::<8, 8, _>(&mut out, self.nonce);
        out
    }

    /// The caller has checked the opening.
    #[inline(always)]
    pub fn decode(bytes: &[u8; HELLO_HEADER_BYTES]) -> Result<Self, Reason> {
        if part::<2, 6, _>(bytes) != [0; 6] {
            return Err(Reason::BadReserved);
        }
        Ok(Self {
            nonce: part::<8, 8, _>(bytes),
        })
    }
}

/// Edge to client: the cookie and the parameters for GETs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Welcome {
    pub segment_bytes: u16,
    /// Most segments sent for one GET.
    pub max_burst: u8,
    /// How long the cookie is accepted.
    pub lifetime_seconds: u16,
    pub nonce: [u8; 8],
    pub cookie: Cookie,
}

impl Welcome {
    #[inline(always)]
    pub fn encode(&self) -> [u8; WELCOME_HEADER_BYTES] {
        let mut out = [0; WELCOME_HEADER_BYTES];
        put::<0, 2, _>(&mut out, opening(Kind::Welcome));
        put::<2, 2, _>(&mut out, self.segment_bytes.to_be_bytes());
        put::<4, 1, _>(&mut out, [self.max_burst]);
        put::<6, 2, _>(&mut out, self.lifetime_seconds.to_be_bytes());
        put::<8, 8, _>(&mut out, self.nonce);
        put::<16, 4, _>(&mut out, self.cookie.epoch.to_be_bytes());
        put::<24, 8, _>(&mut out, self.cookie.value);
        out
    }

    pub fn decode(bytes: &[u8; WELCOME_HEADER_BYTES]) -> Result<Self, Reason> {
        expect_opening(part::<0, 2, _>(bytes), Kind::Welcome)?;
        if part::<5, 1, _>(bytes) != [0] || part::<20, 4, _>(bytes) != [0; 4] {
            return Err(Reason::BadReserved);
        }
        let [max_burst] = part::<4, 1, _>(bytes);
        Ok(Self {
            segment_bytes: u16::from_be_bytes(part::<2, 2, _>(bytes)),
            max_burst,
            lifetime_seconds: u16::from_be_bytes(part::<6, 2, _>(bytes)),
            nonce: part::<8, 8, _>(bytes),
            cookie: Cookie {
                epoch: u32::from_be_bytes(part::<16, 4, _>(bytes)),
                value: part::<24, 8, _>(bytes),
            },
        })
    }
}

/// Client to edge: requests segments of a chunk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Get {
    pub cookie: Cookie,
    pub id: ChunkId,
    /// Bit i is set when segment i is wanted.
    pub want: u128,
}

impl Get {
    pub fn encode(&self) -> [u8; GET_BYTES] {
        let mut out = [0; GET_BYTES];
        put::<0, 2, _>(&mut out, opening(Kind::Get));
        put::<4, 4, _>(&mut out, self.cookie.epoch.to_be_bytes());
        put::<8, 8, _>(&mut out, self.cookie.value);
        put::<16, 32, _>(&mut out, self.id.0);
        put::<48, 16, _>(&mut out, self.want.to_be_bytes());
        out
    }

    /// The caller has checked the opening.
    #[inline(always)]
    pub fn decode(bytes: &[u8; GET_BYTES]) -> Result<Self, Reason> {
        if part::<2, 2, _>(bytes) != [0; 2] {
            return Err(Reason::BadReserved);
        }
        Ok(Self {
            cookie: Cookie {
                epoch: u32::from_be_bytes(part::<4, 4, _>(bytes)),
                value: part::<8, 8, _>(bytes),
            },
            id: ChunkId(part::<16, 32, _>(bytes)),
            want: u128::from_be_bytes(part::<48, 16, _>(bytes)),
        })
    }
}

/// Edge to client: the header of a segment, followed by its payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DataHeader {
    pub index: u8,
    /// Index of the chunk's last segment.
    pub last: u8,
    pub chunk_bytes: u32,
    pub tag: [u8; 8],
}

impl DataHeader {
    pub fn encode(&self) -> [u8; DATA_HEADER_BYTES] {
        let mut out = [0; DATA_HEADER_BYTES];
        put::<0, 2, _>(&mut out, opening(Kind::Data));
        put::<2, 2, _>(&mut out, [self.index, self.last]);
        put::<4, 4, _>(&mut out, self.chunk_bytes.to_be_bytes());
        put::<8, 8, _>(&mut out, self.tag);
        out
    }

    pub fn decode(bytes: &[u8; DATA_HEADER_BYTES]) -> Result<Self, Reason> {
        expect_opening(part::<0, 2, _>(bytes), Kind::Data)?;
        let [index, last] = part::<2, 2, _>(bytes);
        Ok(Self {
            index,
            last,
            chunk_bytes: u32::from_be_bytes(part::<4, 4, _>(bytes)),
            tag: part::<8, 8, _>(bytes),
        })
    }

    /// The offset in the chunk of a payload of this length, if header and length agree with each
    /// other and with the edge's segment size.
    pub fn place(&self, payload_bytes: usize, segment_bytes: u16) -> Option<usize> {
        let geometry = Geometry::new(self.chunk_bytes, segment_bytes)?;
        let (start, len) = geometry.segment(self.index)?;
        (self.last == geometry.last && len == payload_bytes).then_some(start)
    }
}

/// Why there is no DATA.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum NackCode {
    /// No origin has the chunk.
    Absent = 1,
    /// The chunk is being fetched; DATA may follow without another GET.
    Pending = 2,
    /// Over a limit.
    Busy = 3,
    /// The cookie is missing, wrong or expired: repeat the HELLO.
    Cookie = 4,
    /// No origin can be read.
    Origin = 5,
    /// No wanted segment exists.
    Range = 6,
}

impl NackCode {
    const fn from_byte(byte: u8) -> Option<Self> {
        Some(match byte {
            1 => Self::Absent,
            2 => Self::Pending,
            3 => Self::Busy,
            4 => Self::Cookie,
            5 => Self::Origin,
            6 => Self::Range,
            _ => return None,
        })
    }
}

/// Edge to client: no DATA for this GET.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Nack {
    pub code: NackCode,
    /// When to repeat the request; 0 means never.
    pub retry_ms: u32,
    pub tag: [u8; 8],
    /// The cookie of the GET, so that only those who saw the GET can refuse it.
    pub echo: [u8; 8],
}

impl Nack {
    #[inline(always)]
    pub fn encode(&self) -> [u8; NACK_BYTES] {
        let mut out = [0; NACK_BYTES];
        put::<0, 2, _>(&mut out, opening(Kind::Nack));
        put::<2, 1, _>(&mut out, [self.code as u8]);
        put::<4, 4, _>(&mut out, self.retry_ms.to_be_bytes());
        put::<8, 8, _>(&mut out, self.tag);
        put::<16, 8, _>(&mut out, self.echo);
        out
    }

    pub fn decode(bytes: &[u8; NACK_BYTES]) -> Result<Self, Reason> {
        expect_opening(part::<0, 2, _>(bytes), Kind::Nack)?;
        let [code, reserved] = part::<2, 2, _>(bytes);
        if reserved != 0 {
            return Err(Reason::BadReserved);
        }
        Ok(Self {
            code: NackCode::from_byte(code).ok_or(Reason::BadKind)?,
            retry_ms: u32::from_be_bytes(part::<4, 4, _>(bytes)),
            tag: part::<8, 8, _>(bytes),
            echo: part::<16, 8, _>(bytes),
        })
    }
}

fn expect_opening(found: [u8; 2], kind: Kind) -> Result<(), Reason> {
    let [magic, version_kind] = found;
    if magic != MAGIC {
        Err(Reason::BadMagic)
    } else if version_kind >> 4 != VERSION {
        Err(Reason::BadVersion)
    } else if version_kind & 0x0f != kind as u8 {
        Err(Reason::BadKind)
    } else {
        Ok(())
    }
}

/// The division of a chunk into segments, of which all but the last are full.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Geometry {
    chunk_bytes: u32,
    segment_bytes: u16,
    /// Index of the last segment.
    pub last: u8,
}

impl Geometry {
    /// `None` for an invalid chunk or segment size.
    pub fn new(chunk_bytes: u32, segment_bytes: u16) -> Option<Self> {
        if !(1..=CHUNK_BYTES_MAX).contains(&chunk_bytes)
            || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes)
        {
            return None;
        }
        let count = chunk_bytes.div_ceil(u32::from(segment_bytes));
        let last = u8::try_from(count.checked_sub(1)?).ok()?;
        Some(Self {
            chunk_bytes,
            segment_bytes,
            last,
        })
    }

    pub const fn chunk_bytes(&self) -> u32 {
        self.chunk_bytes
    }

    /// Offset and length of a segment in the chunk.
    pub fn segment(&self, index: u8) -> Option<(usize, usize)> {
        if index > self.last {
            return None;
        }
        let full = u32::from(self.segment_bytes);
        let start = u32::from(index).checked_mul(full)?;
        let len = self.chunk_bytes.checked_sub(start)?.min(full);
        Some((usize::try_from(start).ok()?, usize::try_from(len).ok()?))
    }

    /// The want set of all segments.
    pub const fn all(&self) -> u128 {
        // `last` is below 128, so the shift is in range.
        u128::MAX >> (127_u8.saturating_sub(self.last))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_chunk_has_108_segments_and_the_last_is_short() {
        let geometry = Geometry::new(CHUNK_BYTES_MAX, SEGMENT_BYTES_DEFAULT).unwrap();
        assert_eq!(geometry.last, 107);
        assert_eq!(
            geometry.segment(107),
            Some((107 * 1216, 131_072 - 107 * 1216))
        );
        assert_eq!(geometry.segment(108), None);
        assert_eq!(geometry.all().count_ones(), 108);
    }

    #[test]
    fn segments_cover_a_chunk_without_gap_for_every_legal_segment_size() {
        for segment_bytes in SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX {
            for chunk_bytes in [1, 1023, 1024, 1216, 1217, 65_536, CHUNK_BYTES_MAX] {
                let geometry = Geometry::new(chunk_bytes, segment_bytes).unwrap();
                let mut next = 0;
                for index in 0..=geometry.last {
                    let (start, len) = geometry.segment(index).unwrap();
                    assert_eq!(start, next);
                    assert!(len > 0);
                    next = start + len;
                }
                assert_eq!(next, chunk_bytes as usize);
                assert_eq!(geometry.all().count_ones(), u32::from(geometry.last) + 1);
            }
        }
    }

    #[test]
    fn invalid_chunk_and_segment_sizes_have_no_geometry() {
        assert_eq!(Geometry::new(0, SEGMENT_BYTES_DEFAULT), None);
        assert_eq!(
            Geometry::new(CHUNK_BYTES_MAX + 1, SEGMENT_BYTES_DEFAULT),
            None
        );
        assert_eq!(Geometry::new(1, SEGMENT_BYTES_MIN - 1), None);
        assert_eq!(Geometry::new(1, SEGMENT_BYTES_MAX + 1), None);
    }

    #[test]
    fn data_is_placed_only_where_header_and_length_agree() {
        let header = DataHeader {
            index: 1,
            last: 2,
            chunk_bytes: 3000,
            tag: [7; 8],
        };
        assert_eq!(header.place(1216, 1216), Some(1216));
        assert_eq!(header.place(1215, 1216), None);
        assert_eq!(DataHeader { last: 3, ..header }.place(1216, 1216), None);
        assert_eq!(
            DataHeader { index: 2, ..header }.place(568, 1216),
            Some(2432)
        );
        assert_eq!(DataHeader { index: 3, ..header }.place(568, 1216), None);
        assert_eq!(
            DataHeader {
                chunk_bytes: u32::MAX,
                ..header
            }
            .place(1216, 1216),
            None
        );
    }

    #[test]
    fn every_datagram_survives_encode_and_decode() {
        let cookie = Cookie {
            epoch: 14_000_000,
            value: *b"cookie!!",
        };
        let get = Get {
            cookie,
            id: ChunkId([9; 32]),
            want: 1 << 127 | 5,
        };
        assert_eq!(Get::decode(&get.encode()), Ok(get));
        let hello = Hello {
            nonce: *b"nonce...",
        };
        assert_eq!(Hello::decode(&hello.encode()), Ok(hello));
        let welcome = Welcome {
            segment_bytes: 1216,
            max_burst: 53,
            lifetime_seconds: 240,
            nonce: hello.nonce,
            cookie,
        };
        assert_eq!(Welcome::decode(&welcome.encode()), Ok(welcome));
        let data = DataHeader {
            index: 3,
            last: 107,
            chunk_bytes: 131_072,
            tag: [1; 8],
        };
        assert_eq!(DataHeader::decode(&data.encode()), Ok(data));
        let nack = Nack {
            code: NackCode::Busy,
            retry_ms: 250,
            tag: [2; 8],
            echo: [3; 8],
        };
        assert_eq!(Nack::decode(&nack.encode()), Ok(nack));
    }
}
