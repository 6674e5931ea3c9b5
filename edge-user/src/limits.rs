//! Every bound of the server (I9), with assertions that relate them.

use std::time::Duration;

use edge_ebpf::wire::{
    CHUNK_BYTES_MAX, DATA_HEADER_BYTES, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN, SEGMENTS_MAX,
};

use crate::sys::send::{INLINE_BYTES_MAX, SPANS_MAX};
use crate::sys::xsk::XskSizes;

// --- interfaces -----------------------------------------------------------------------------

/// Interfaces of one edge.
pub const INTERFACES_MAX: usize = edge_ebpf::maps::INTERFACES_MAX as usize;

// --- AF_XDP, for each queue -----------------------------------------------------------------

/// Packets that a worker takes from its ring at once.
pub const BATCH: u32 = 64;
/// For a socket that only receives. Requests are small, but a faulty driver may deliver any frame
/// up to the MTU, and zero-copy drivers want whole pages.
pub const XSK: XskSizes = XskSizes {
    frame_bytes: 4096,
    rx_frames: 2048,
    tx_frames: 0,
    fill_ring: 4096,
    rx_ring: 2048,
    tx_ring: 0,
    completion_ring: 64,
};
/// For a socket that also sends: enough TX frames for the segments of 18 whole chunks.
pub const XSK_SENDING: XskSizes = XskSizes {
    tx_frames: 2048,
    tx_ring: 2048,
    completion_ring: 2048,
    ..XSK
};
const _: () = assert!(
    XSK.fill_ring >= 2 * XSK.rx_frames,
    "the fill ring can hold every frame along with its stale entry"
);
const _: () = assert!(
    XSK.rx_ring >= XSK.rx_frames,
    "the RX ring can hold every frame"
);
const _: () = assert!(
    XSK_SENDING.tx_ring >= XSK_SENDING.tx_frames
        && XSK_SENDING.completion_ring >= XSK_SENDING.tx_frames,
    "the TX ring and the completion ring can each hold every frame"
);
const _: () = assert!(
    XSK.rx_frames >= 2 * BATCH,
    "one batch is held while another arrives"
);
const _: () = assert!(
    XSK_SENDING.tx_frames >= 2 * SEGMENTS_MAX,
    "one burst can be built while another is being sent"
);

/// How long startup waits for duplicate address detection, which takes two seconds at most, and
/// how often it polls.
pub const DAD_TIMEOUT: Duration = Duration::from_secs(4);
pub const DAD_POLL_INTERVAL: Duration = Duration::from_millis(50);
/// How long an idle worker polls its ring before it sleeps.
pub const SPIN: Duration = Duration::from_micros(50);

/// Log lines waiting to be written; further lines are dropped and counted.
pub const LOG_LINES: usize = 1024;

/// A serving thread counts as stalled after this long without a turn of its loop, over at least
/// this many checks.
pub const STALLED_AFTER: Duration = Duration::from_secs(5);
pub const STALLED_CHECKS: u32 = 3;
const _: () = assert!(
    STALLED_AFTER.as_secs() >= 3 * TICK.as_secs(),
    "an idle thread does not count as stalled"
);

/// Longer than any run of the XDP program: it takes microseconds, with softirqs off.
pub const PROGRAM_RUN_MAX: Duration = Duration::from_millis(10);

/// How soon a sender resubmits what the kernel had no memory for.
pub const SEND_RETRY_NS: i64 = 1_000_000;

// --- sends, for each thread -----------------------------------------------------------------

/// Sends in flight: at least two for each request of a batch.
pub const SENDS: u32 = 256;
const _: () = assert!(
    SENDS >= 2 * BATCH,
    "a whole batch can be answered before the next"
);
/// Largest UDP payload over IPv4, and so the largest GSO send.
pub const SEND_BYTES_MAX: usize = 65_507;
const _: () = assert!(
    SEND_BYTES_MAX / (SEGMENT_BYTES_MIN as usize + DATA_HEADER_BYTES) < SPANS_MAX,
    "every segment of a send can be a span of its own; Linux 6.1 allows 64 segments"
);
const _: () = assert!(
    SEGMENT_BYTES_MAX as usize + DATA_HEADER_BYTES <= INLINE_BYTES_MAX,
    "the longest WELCOME fits"
);

/// The set-associative table of reachable clients, for each sender.
pub const REACH_SETS: usize = 2048;
pub const REACH_WAYS: usize = 4;
/// For how many seconds at most a client counts as reachable, and for how many nothing more is
/// sent to a client that has not been reached.
pub const REACH_SECONDS: u32 = 2;
/// How long the kernel queues packets for an unresolved neighbour: three probes, a second apart,
/// plus a margin.
pub const UNREACHED_SECONDS: u32 = 4;
/// With more than this in flight to unreached clients, a new client gets a single datagram at
/// first. Small compared with the smallest default send buffer.
pub const UNREACHED_BYTES: u32 = 256 << 10;

// --- between the two paths ------------------------------------------------------------------

/// Steered requests waiting for the socket front.
pub const BOUNCE_QUEUE: usize = 4096;

// --- socket front ---------------------------------------------------------------------------

/// Datagrams the kernel can hand over at once.
pub const RECEIVE_BUFFERS: u16 = 512;
/// Completed flights and bounced requests handled before the next batch of datagrams.
pub const COMPLETIONS_PER_ROUND: usize = 8;
pub const BOUNCES_PER_ROUND: usize = 256;
/// How long a serving thread sleeps at most: the socket front rotates cookie keys, it and the
/// engine check deadlines, and a worker shows that it is alive.
pub const TICK: Duration = Duration::from_secs(1);

// --- fetch ----------------------------------------------------------------------------------

/// Fronts of one engine.
pub const FRONTS_MAX: usize = 4;
/// Chunks that a front can wait for.
pub const FLIGHTS: usize = 1024;
/// A source may hold one flight for every seven that are free: an eighth of all when it is alone.
/// Some forty sources that take all they can still leave one for another.
pub const FLIGHT_SHARES: usize = 7;
/// Requests that can wait for one chunk.
pub const WAITERS_PER_FLIGHT: usize = 256;
/// Requests that can wait in total.
pub const WAITERS: usize = 16_384;
/// How long a request waits for its chunk.
pub const WAITER_DEADLINE: Duration = Duration::from_secs(5);
pub const ORIGINS_MAX: usize = 8;
/// Threads that read from one origin; further fetches are queued.
pub const ORIGIN_THREADS: usize = 16;
/// Slots being filled from one origin; in a small store all origins share a quarter of the slots.
pub const ORIGIN_SLOTS: usize = 32;
/// How long one fetch may take, over all origins.
pub const FETCH_DEADLINE: Duration = Duration::from_secs(10);
/// Failed fetches that are remembered (negative cache entries).
pub const NEGATIVES: usize = 16_384;
/// How long an absent chunk stays in the negative cache.
pub const ABSENT_FOR: Duration = Duration::from_secs(5);
/// How long a failed fetch stays in the negative cache.
pub const FAILED_FOR: Duration = Duration::from_millis(FAILED_MS as u64);
/// `FAILED_FOR` as sent to clients.
pub const FAILED_MS: u32 = 1000;
/// Rate limit of warnings about unusable chunks.
pub const LOG_LINES_PER_WINDOW: u64 = 16;
pub const LOG_WINDOW: Duration = Duration::from_secs(10);
/// Retry delay sent with BUSY and PENDING.
pub const RETRY_MS: u32 = 250;
/// Token bucket of the fetches that a source starts: burst and refill interval.
pub const SOURCE_FETCHES: u32 = 2048;
pub const SOURCE_FETCH_EVERY: Duration = Duration::from_nanos(1_000_000_000 / 512);
/// Sources with an account of their own; all others share one.
pub const SOURCES: usize = 4096;
const _: () = assert!(
    NEGATIVES as u128 / 2
        >= SOURCE_FETCHES as u128 + ABSENT_FOR.as_nanos() / SOURCE_FETCH_EVERY.as_nanos(),
    "one source cannot fill the negative cache"
);
const _: () = assert!(WAITERS >= FLIGHTS, "each flight has a waiter");
const _: () = assert!(WAITERS_PER_FLIGHT <= WAITERS, "the bounds nest");

// --- store ----------------------------------------------------------------------------------

/// Slots kept free ahead of need, so that a fill does not wait for a quiescent state; a small
/// store keeps a sixteenth.
pub const SLOTS_AHEAD: usize = 32;
/// Leases that may outlast a reader's quiescent state; in a small store, one for every four slots.
pub const OWNED_LEASES: u32 = 1024;
/// Fewest slots a store can work with.
pub const SLOTS_MIN: u32 = 64;
/// Largest chunk, as a length in memory.
pub const CHUNK_BYTES: usize = CHUNK_BYTES_MAX as usize;
