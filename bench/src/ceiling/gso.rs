//! The `gso` sender alone: a request names the first of several slots, and all their segments are
//! sent. One request covers several chunks, so that receiving costs next to nothing; lost segments
//! are requested chunk by chunk.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use edge_ebpf::wire::{
    CHUNK_BYTES_MAX, Cookie, DATA_HEADER_BYTES, DataHeader, GET_BYTES, Geometry, Get,
    HELLO_HEADER_BYTES, Hello, Kind, Welcome, opening,
};
use edge_user::event_fd::EventFd;
use edge_user::limits::SENDS;
use edge_user::sys::epochs::{Epochs, Lent};
use edge_user::sys::receive::ReceiveRing;
use edge_user::sys::send::{Full, Lane, SendQueue as _, SendRing};
use edge_user::sys::slab::Slab;
use edge_user::sys::socket::ServiceSocket;

use super::{GROUP, GROUP_CHUNKS, Gso, numbered, say_ready};
use crate::memory::memory;

const BUFFERS: u16 = 512;
/// Interval of checks for a stop signal.
const LOOK: Duration = Duration::from_millis(100);
/// The edge's default.
const MAX_BURST: u8 = 53;

pub(super) fn serve(options: &Gso, stop: &AtomicBool) -> Result<()> {
    let geometry = Geometry::new(CHUNK_BYTES_MAX, options.segment_bytes)
        .context("no segments of this size")?;
    let (epochs, _lent) = chunks(options, geometry)?;
    let count = epochs.slab().block_count();
    let mut reader = epochs.reader(0);
    let socket = ServiceSocket::bind(options.listen)
        .with_context(|| format!("cannot listen on {}", options.listen))?;
    let sockets: Arc<[ServiceSocket]> = Arc::new([socket]);
    let mut sends = SendRing::new(SENDS, reader.holds(), &sockets)?;
    let mut receives = ReceiveRing::new(BUFFERS, sockets, EventFd::new()?)?;
    say_ready(&format!(
        "{} chunks on {}, hugepages {}",
        count,
        options.listen,
        epochs.slab().mapping().hugepages()
    ));
    let stride = usize::from(options.segment_bytes) + DATA_HEADER_BYTES;
    reader.quiescent();
    while !stop.load(Ordering::Relaxed) {
        receives.wait(LOOK, |datagram| {
            let Ok(datagram) = datagram else { return };
            let payload = datagram.payload;
            if let Some((number, want)) = wanted(payload) {
                let chunks = if want == GROUP { GROUP_CHUNKS } else { 1 };
                for number in (number..).take(chunks as usize) {
                    let Some(chunk) = epochs.loan(&reader, number % count) else {
                        continue;
                    };
                    let mut rest = want & geometry.all();
                    while rest != 0 {
                        let part = run(&mut rest, geometry, stride);
                        if sends.room() == 0 {
                            let (Ok(()) | Err(_)) = sends.flush(|_, _| {});
                        }
                        let segment_bytes = u16::try_from(stride).unwrap_or(u16::MAX);
                        // A full ring loses the reply; the generator requests it again.
                        let (Ok(()) | Err(Full)) = sends.queue_parts(
                            0,
                            Lane::Open,
                            &datagram.source,
                            &chunk,
                            &[part],
                            segment_bytes,
                        );
                    }
                }
            } else if let Some(welcome) = welcome(payload, options.segment_bytes) {
                let (Ok(()) | Err(Full)) = sends.queue_bytes(
                    0,
                    Lane::Open,
                    &datagram.source,
                    &welcome.encode(),
                    payload.len(),
                );
            }
        })?;
        sends.flush(|_, _| {})?;
    }
    Ok(())
}

/// Chunks as datagrams, each with its own tag and some bytes of its own.
fn chunks(options: &Gso, geometry: Geometry) -> Result<(Epochs, Vec<Lent>)> {
    let stride = usize::from(options.segment_bytes) + DATA_HEADER_BYTES;
    let segments = usize::from(geometry.last) + 1;
    let slot_bytes = segments * stride;
    let bytes = slot_bytes * options.chunks as usize;
    let mapping = memory(bytes).context("not enough memory for the chunks")?;
    let (slab, mut blocks) = Slab::partition(mapping, slot_bytes, options.chunks);
    for (block, number) in blocks.iter_mut().zip(0..) {
        let slot = slab.bytes_mut(block);
        for (index, datagram) in (0..).zip(slot.chunks_mut(stride)) {
            let header = DataHeader {
                index,
                last: geometry.last,
                chunk_bytes: CHUNK_BYTES_MAX,
                tag: numbered(number).tag(),
            };
            let (head, payload) = datagram.split_at_mut(DATA_HEADER_BYTES);
            head.copy_from_slice(&header.encode());
            payload.fill(index);
        }
    }
    let epochs = Epochs::new(Arc::new(slab), 1, 0);
    let lent = blocks.into_iter().map(|block| epochs.lend(block)).collect();
    Ok((epochs, lent))
}

/// Number of a slot, and the wanted segments.
fn wanted(payload: &[u8]) -> Option<(u32, u128)> {
    let get: &[u8; GET_BYTES] = payload.try_into().ok()?;
    if !get.starts_with(&opening(Kind::Get)) {
        return None;
    }
    let get = Get::decode(get).ok()?;
    Some((u32::from_be_bytes(*get.id.0.first_chunk()?), get.want))
}

/// Removes the lowest run from a want set, at most what one send carries.
fn run(rest: &mut u128, geometry: Geometry, stride: usize) -> Range<usize> {
    let first = rest.trailing_zeros();
    let count = (*rest >> first).trailing_ones().min(u32::from(MAX_BURST));
    let last = first + count - 1;
    let taken = (u128::MAX >> (127 - last)) & (u128::MAX << first);
    *rest &= !taken;
    let last = u8::try_from(last).expect("a chunk has at most 128 segments");
    let (_, last_bytes) = geometry
        .segment(last)
        .expect("the want set was cut to these");
    let start = first as usize * stride;
    start..start + (count as usize - 1) * stride + DATA_HEADER_BYTES + last_bytes
}

fn welcome(payload: &[u8], segment_bytes: u16) -> Option<Welcome> {
    let hello = payload.first_chunk::<HELLO_HEADER_BYTES>()?;
    if !hello.starts_with(&opening(Kind::Hello)) {
        return None;
    }
    Some(Welcome {
        segment_bytes,
        max_burst: MAX_BURST,
        lifetime_seconds: u16::MAX,
        nonce: Hello::decode(hello).ok()?.nonce,
        // Not zero, as no edge's is; the value is not checked.
        cookie: Cookie {
            epoch: 1,
            value: [1; 8],
        },
    })
}
