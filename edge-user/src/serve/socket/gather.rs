//! Of which parts of a slot the sends of a burst are made.

use edge_ebpf::wire::{DATA_HEADER_BYTES, Geometry};

use crate::cache::ChunkRef;
use crate::limits::SEND_BYTES_MAX;
use crate::serve::plan::{Run, Runs};
use crate::sys::send::SPANS_MAX;
use crate::sys::slab::{Slab, Span};

/// Cuts plans into sends, for segments of one size.
#[derive(Clone, Copy, Debug)]
pub struct Gather {
    /// Bytes of a full DATA datagram, and how many of them one send holds.
    stride: u16,
    segments_per_send: usize,
}

impl Gather {
    pub fn new(segment_bytes: u16) -> Self {
        let header = u16::try_from(DATA_HEADER_BYTES).expect("16");
        let stride = segment_bytes + header;
        Self {
            stride,
            segments_per_send: SEND_BYTES_MAX / usize::from(stride),
        }
    }

    /// Bytes of a full DATA datagram: what the kernel cuts a send into.
    pub const fn stride(&self) -> u16 {
        self.stride
    }

    pub fn segments_per_send(&self) -> u32 {
        u32::try_from(self.segments_per_send).unwrap_or(u32::MAX)
    }

    /// Hands over the parts of each send, lowest segment first, until `send` has no room.
    pub fn sends<E>(
        &self,
        slab: &Slab,
        stay: ChunkRef,
        geometry: Geometry,
        runs: Runs,
        mut send: impl FnMut(&[Span]) -> Result<(), E>,
    ) -> Result<(), E> {
        let mut spans = Spans::default();
        for run in runs {
            let mut rest = run;
            while rest.count > 0 {
                let room = self.segments_per_send - spans.segments;
                let count = rest.count.min(u8::try_from(room).unwrap_or(u8::MAX));
                let part = Run {
                    first: rest.first,
                    count,
                };
                spans.push(self.span(slab, stay, geometry, part), usize::from(count));
                rest = Run {
                    first: rest.first + count,
                    count: rest.count - count,
                };
                if spans.segments == self.segments_per_send {
                    send(spans.take())?;
                }
            }
        }
        if spans.segments > 0 {
            send(spans.take())?;
        }
        Ok(())
    }

    /// The stored datagrams of a run. Only the chunk's last one is short, and it comes last in
    /// every plan, as the kernel wants it.
    fn span(&self, slab: &Slab, stay: ChunkRef, geometry: Geometry, run: Run) -> Span {
        let stride = usize::from(self.stride);
        let last = run.first + run.count - 1;
        let (_, last_bytes) = geometry
            .segment(last)
            .expect("the plan names segments that exist");
        let start = usize::from(run.first) * stride;
        let end = usize::from(last) * stride + DATA_HEADER_BYTES + last_bytes;
        slab.span(stay.slot, start, end - start)
    }
}

/// The parts of one send.
struct Spans {
    list: [Span; SPANS_MAX],
    count: usize,
    segments: usize,
}

impl Default for Spans {
    fn default() -> Self {
        Self {
            list: [Span::EMPTY; SPANS_MAX],
            count: 0,
            segments: 0,
        }
    }
}

impl Spans {
    fn push(&mut self, span: Span, segments: usize) {
        self.list[self.count] = span;
        self.count += 1;
        self.segments += segments;
    }

    /// What was gathered; the next send begins empty.
    fn take(&mut self) -> &[Span] {
        let count = self.count;
        self.count = 0;
        self.segments = 0;
        &self.list[..count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cache::slot_bytes;
    use crate::serve::plan::plan;
    use crate::sys::mapping::Mapping;
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
            let slot_bytes = slot_bytes(segment_bytes);
            let arena = Mapping::anonymous(slot_bytes, false).unwrap();
            let (slab, _pieces) = Slab::partition(arena, slot_bytes, 1);
            let geometry = Geometry::new(chunk_bytes, segment_bytes).unwrap();
            let Some(runs) = plan(want, &geometry, max_burst) else { return Ok(()) };
            let planned_bytes: usize = runs
                .clone()
                .flat_map(|run| run.first..run.first + run.count)
                .map(|index| DATA_HEADER_BYTES + geometry.segment(index).unwrap().1)
                .sum();

            let gather = Gather::new(segment_bytes);
            let stay = ChunkRef { slot: 0, chunk_bytes };
            let mut sends = Vec::new();
            let each = |spans: &[Span]| {
                sends.push(spans.iter().map(Span::len_bytes).sum::<usize>());
                Ok::<(), Infallible>(())
            };
            gather.sends(&slab, stay, geometry, runs, each).unwrap();

            prop_assert_eq!(sends.iter().sum::<usize>(), planned_bytes);
            let stride = usize::from(gather.stride());
            let (_, full) = sends.split_last().unwrap();
            for bytes in full {
                prop_assert_eq!(*bytes, SEND_BYTES_MAX / stride * stride);
            }
            prop_assert!(sends.iter().all(|bytes| *bytes <= SEND_BYTES_MAX));
        }
    }
}
