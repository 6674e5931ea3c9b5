//! Divides a burst into sends, each gathered from parts of a slot.

use std::array;
use std::ops::Range;

use edge_ebpf::wire::Geometry;

use crate::cache::layout::Layout;
use crate::limits::SEND_BYTES_MAX;
use crate::serve::plan::Runs;
use crate::sys::send::SPANS_MAX;

#[derive(Clone, Copy, Debug)]
pub struct Gather {
    layout: Layout,
    /// Size of a full DATA datagram, and how many of them fit a send.
    stride_bytes: u16,
    segments_per_send: u8,
}

impl Gather {
    pub fn new(layout: Layout) -> Self {
        let stride_bytes = layout.stride_bytes();
        let segments = SEND_BYTES_MAX / stride_bytes;
        Self {
            layout,
            stride_bytes: u16::try_from(stride_bytes).expect("a datagram is below 64 KiB"),
            segments_per_send: u8::try_from(segments).unwrap_or(u8::MAX),
        }
    }

    /// Size of a full DATA datagram: the GSO segment size.
    pub const fn stride_bytes(&self) -> u16 {
        self.stride_bytes
    }

    pub fn segments_per_send(&self) -> u32 {
        self.segments_per_send.into()
    }

    /// Calls `send` with the parts of each send, lowest segment first, until it fails. Only the
    /// chunk's last datagram is short, and it comes last in every plan, as GSO requires.
    pub fn sends<E>(
        &self,
        geometry: &Geometry,
        runs: Runs,
        mut send: impl FnMut(&[Range<usize>]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut parts: [Range<usize>; SPANS_MAX] = array::from_fn(|_| 0..0);
        let (mut count, mut segments) = (0, 0);
        for run in runs {
            let (mut first, mut left) = (run.first, run.count);
            while left > 0 {
                let taken = left.min(self.segments_per_send - segments);
                let part = self.layout.datagrams(geometry, first, taken);
                parts[count] = part.expect("the plan names segments that exist");
                count += 1;
                segments += taken;
                first += taken;
                left -= taken;
                if segments == self.segments_per_send {
                    send(&parts[..count])?;
                    (count, segments) = (0, 0);
                }
            }
        }
        if segments > 0 {
            send(&parts[..count])?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::plan::plan;
    use edge_ebpf::wire::DATA_HEADER_BYTES;
    use proptest::prelude::*;
    use std::convert::Infallible;

    proptest! {
        #[test]
        fn the_sends_of_a_plan_hold_its_segments_and_only_the_last_datagram_is_short(
            want in any::<u128>(),
            chunk_bytes in 1_u32..=131_072,
            segment_bytes in 1024_u16..=1440,
            max_burst in 1_u8..=128,
        ) {
            let geometry = Geometry::new(chunk_bytes, segment_bytes).unwrap();
            let Some(runs) = plan(want, &geometry, max_burst) else { return Ok(()) };
            let planned_bytes: usize = runs
                .clone()
                .flat_map(|run| run.first..run.first + run.count)
                .map(|index| DATA_HEADER_BYTES + geometry.segment(index).unwrap().1)
                .sum();

            let gather = Gather::new(Layout::new(segment_bytes));
            let mut sends = Vec::new();
            let each = |parts: &[Range<usize>]| {
                sends.push(parts.iter().map(Range::len).sum::<usize>());
                Ok::<(), Infallible>(())
            };
            gather.sends(&geometry, runs, each).unwrap();

            prop_assert_eq!(sends.iter().sum::<usize>(), planned_bytes);
            let stride = usize::from(gather.stride_bytes());
            let (_, full) = sends.split_last().unwrap();
            for bytes in full {
                prop_assert_eq!(*bytes, SEND_BYTES_MAX / stride * stride);
            }
            prop_assert!(sends.iter().all(|bytes| *bytes <= SEND_BYTES_MAX));
        }
    }
}
