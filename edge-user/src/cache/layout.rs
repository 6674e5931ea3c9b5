//! The layout of a slot: the chunk's DATA datagrams, headers included, at fixed offsets.

use std::ops::Range;

use edge_ebpf::wire::{CHUNK_BYTES_MAX, DATA_HEADER_BYTES, Geometry};

/// The layout of slots for segments of one size.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    segment_bytes: u16,
}

impl Layout {
    pub const fn new(segment_bytes: u16) -> Self {
        Self { segment_bytes }
    }

    pub const fn segment_bytes(self) -> u16 {
        self.segment_bytes
    }

    /// Size of a full datagram, and so the distance between datagrams.
    pub const fn stride_bytes(self) -> usize {
        self.segment_bytes as usize + DATA_HEADER_BYTES
    }

    /// Size of a slot: the datagrams of the largest chunk.
    pub const fn slot_bytes(self) -> usize {
        let datagrams = CHUNK_BYTES_MAX.div_ceil(self.segment_bytes as u32) as usize;
        // Rounded up, so that no two slots share a cache line.
        (datagrams * DATA_HEADER_BYTES + CHUNK_BYTES_MAX as usize).next_multiple_of(64)
    }

    /// `None` for a length that no chunk has.
    pub fn geometry(self, chunk_bytes: u32) -> Option<Geometry> {
        Geometry::new(chunk_bytes, self.segment_bytes)
    }

    /// The range of `count` datagrams from `first` on; `None` if the chunk has no such segments.
    #[inline]
    pub fn datagrams(self, geometry: &Geometry, first: u8, count: u8) -> Option<Range<usize>> {
        let last = first.checked_add(count.checked_sub(1)?)?;
        let (_, last_bytes) = geometry.segment(last)?;
        let place = |index: u8| usize::from(index).checked_mul(self.stride_bytes());
        let end = place(last)?.checked_add(DATA_HEADER_BYTES)?;
        Some(place(first)?..end.checked_add(last_bytes)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datagrams_lie_back_to_back_and_fill_their_slot() {
        for segment_bytes in [1024, 1216, 1440] {
            let layout = Layout::new(segment_bytes);
            let geometry = layout.geometry(CHUNK_BYTES_MAX).unwrap();
            let all = geometry.last + 1;
            let mut at = 0;
            for index in 0..all {
                let place = layout.datagrams(&geometry, index, 1).unwrap();
                let (_, payload_bytes) = geometry.segment(index).unwrap();
                assert_eq!(place, at..at + 16 + payload_bytes);
                at = place.end;
            }
            assert_eq!(layout.datagrams(&geometry, 0, all), Some(0..at));
            assert!((at..at + 64).contains(&layout.slot_bytes()));
            for (first, count) in [(0, 0), (all, 1), (0, all + 1), (255, 255)] {
                assert_eq!(layout.datagrams(&geometry, first, count), None);
            }
        }
    }
}
