//! A datagram, decoded and encoded. What is accepted, and what it says, stands in the tables of
//! `docs/WIRE.md`; what was accepted is encoded to the same bytes again.
//!
//! Input: which datagram, then its bytes.

use edge_ebpf::wire::{
    CHUNK_BYTES_MAX, DataHeader, Geometry, Get, Hello, Nack, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN,
    Welcome,
};

use crate::input::Input;

pub(crate) fn run(data: &[u8]) {
    let mut input = Input::new(data);
    match input.byte() {
        1 => hello(input.array()),
        2 => welcome(input.array()),
        3 => get(input.array()),
        4 => data_header(input.array(), input.u16(), input.u16()),
        5 => nack(input.array()),
        _ => geometry(input.u32(), input.u16()),
    }
}

fn u16_at(bytes: &[u8], at: usize) -> u16 {
    u16::from_be_bytes(bytes[at..at + 2].try_into().expect("2 bytes"))
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(bytes[at..at + 4].try_into().expect("4 bytes"))
}

fn hello(mut bytes: [u8; 16]) {
    // Whoever decodes a request has looked at its opening before.
    bytes[..2].copy_from_slice(&[0xed, 0x11]);
    let decoded = Hello::decode(&bytes);
    assert_eq!(decoded.is_ok(), bytes[2..8] == [0; 6]);
    if let Ok(hello) = decoded {
        assert_eq!(hello.nonce, bytes[8..16]);
        assert_eq!(hello.encode(), bytes);
    }
}

fn get(mut bytes: [u8; 64]) {
    bytes[..2].copy_from_slice(&[0xed, 0x13]);
    let decoded = Get::decode(&bytes);
    assert_eq!(decoded.is_ok(), bytes[2..4] == [0; 2]);
    if let Ok(get) = decoded {
        assert_eq!(get.cookie.epoch, u32_at(&bytes, 4));
        assert_eq!(get.cookie.value, bytes[8..16]);
        assert_eq!(get.id.0, bytes[16..48]);
        for segment in 0..128 {
            let wanted = bytes[63 - segment / 8] >> (segment % 8) & 1 == 1;
            assert_eq!(get.want >> segment & 1 == 1, wanted, "segment {segment}");
        }
        assert_eq!(get.encode(), bytes);
    }
}

fn welcome(bytes: [u8; 32]) {
    let good = bytes[..2] == [0xed, 0x12] && bytes[5] == 0 && bytes[20..24] == [0; 4];
    let decoded = Welcome::decode(&bytes);
    assert_eq!(decoded.is_ok(), good);
    if let Ok(welcome) = decoded {
        assert_eq!(welcome.segment_bytes, u16_at(&bytes, 2));
        assert_eq!(welcome.max_burst, bytes[4]);
        assert_eq!(welcome.lifetime_seconds, u16_at(&bytes, 6));
        assert_eq!(welcome.nonce, bytes[8..16]);
        assert_eq!(welcome.cookie.epoch, u32_at(&bytes, 16));
        assert_eq!(welcome.cookie.value, bytes[24..32]);
        assert_eq!(welcome.encode(), bytes);
    }
}

fn nack(bytes: [u8; 24]) {
    let good = bytes[..2] == [0xed, 0x15] && (1..=6).contains(&bytes[2]) && bytes[3] == 0;
    let decoded = Nack::decode(&bytes);
    assert_eq!(decoded.is_ok(), good);
    if let Ok(nack) = decoded {
        assert_eq!(nack.code as u8, bytes[2]);
        assert_eq!(nack.retry_ms, u32_at(&bytes, 4));
        assert_eq!(nack.tag, bytes[8..16]);
        assert_eq!(nack.echo, bytes[16..24]);
        assert_eq!(nack.encode(), bytes);
    }
}

fn data_header(bytes: [u8; 16], payload_bytes: u16, segment_bytes: u16) {
    let decoded = DataHeader::decode(&bytes);
    assert_eq!(decoded.is_ok(), bytes[..2] == [0xed, 0x14]);
    let Ok(header) = decoded else { return };
    assert_eq!((header.index, header.last), (bytes[2], bytes[3]));
    assert_eq!(header.chunk_bytes, u32_at(&bytes, 4));
    assert_eq!(header.tag, bytes[8..16]);
    assert_eq!(header.encode(), bytes);
    // Most segment sizes are legal, so that most inputs get past the first question.
    let segment_bytes = SEGMENT_BYTES_MIN + segment_bytes % 450;
    let place = header.place(payload_bytes.into(), segment_bytes);
    let expected =
        segment(header.chunk_bytes, segment_bytes, header.index).filter(|(_, len, last)| {
            *len == u32::from(payload_bytes) && *last == u32::from(header.last)
        });
    let expected = expected.map(|(start, ..)| start as usize);
    assert_eq!(place, expected);
}

/// "Segments": start and length of one, and the index of the last.
fn segment(chunk_bytes: u32, segment_bytes: u16, index: u8) -> Option<(u32, u32, u32)> {
    if !(1..=CHUNK_BYTES_MAX).contains(&chunk_bytes)
        || !(SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(&segment_bytes)
    {
        return None;
    }
    let (index, full) = (u32::from(index), u32::from(segment_bytes));
    let last = (chunk_bytes - 1) / full;
    let len = match index.cmp(&last) {
        std::cmp::Ordering::Less => full,
        std::cmp::Ordering::Equal => chunk_bytes - last * full,
        std::cmp::Ordering::Greater => return None,
    };
    Some((index * full, len, last))
}

fn geometry(chunk_bytes: u32, segment_bytes: u16) {
    let geometry = Geometry::new(chunk_bytes, segment_bytes);
    let expected = segment(chunk_bytes, segment_bytes, 0);
    assert_eq!(geometry.is_some(), expected.is_some());
    let (Some(geometry), Some((.., last))) = (geometry, expected) else {
        return;
    };
    assert_eq!(u32::from(geometry.last), last);
    assert!(last < 128, "more segments than a want set has bits");
    assert_eq!(geometry.all(), u128::MAX >> (127 - last));
    for index in 0..=u8::MAX {
        let found = geometry.segment(index);
        let expected = segment(chunk_bytes, segment_bytes, index);
        let expected = expected.map(|(start, len, _)| (start as usize, len as usize));
        assert_eq!(found, expected, "segment {index}");
    }
}
