//! Every bound of the server (I9), in one place, proved against each other.

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

/// Packets a worker takes from its ring at once.
pub const BATCH: u32 = 64;
/// Of a socket that only receives. A request is small, but any frame up to the MTU may be steered
/// by mistake of a driver; a page is what zero-copy drivers want.
pub const XSK: XskSizes = XskSizes {
    frame_bytes: 4096,
    rx_frames: 2048,
    tx_frames: 0,
    fill_ring: 4096,
    rx_ring: 2048,
    tx_ring: 0,
    completion_ring: 64,
};
/// Of a socket that also sends: as many frames as 19 whole chunks have segments.
pub const XSK_SENDING: XskSizes = XskSizes {
    tx_frames: 2048,
    tx_ring: 2048,
    completion_ring: 2048,
    ..XSK
};
const _: () = assert!(
    XSK.fill_ring >= 2 * XSK.rx_frames,
    "every frame may be in the fill ring, and its old entry too"
);
const _: () = assert!(
    XSK.rx_ring >= XSK.rx_frames,
    "every frame may be in the RX ring"
);
const _: () = assert!(
    XSK_SENDING.tx_ring >= XSK_SENDING.tx_frames
        && XSK_SENDING.completion_ring >= XSK_SENDING.tx_frames,
    "every frame may be in the TX ring, and in the completion ring"
);
const _: () = assert!(
    XSK.rx_frames >= 2 * BATCH,
    "one batch is held while another arrives"
);
const _: () = assert!(
    XSK_SENDING.tx_frames >= 2 * SEGMENTS_MAX,
    "a burst can be made while another is on its way"
);

/// How long a start waits for a new IPv6 address to be found unique, which takes two seconds at
/// most, and how often it looks.
pub const DETECTION_FOR: Duration = Duration::from_secs(4);
pub const DETECTION_LOOK: Duration = Duration::from_millis(50);
/// How long a worker looks for packets before it sleeps.
pub const SPIN: Duration = Duration::from_micros(50);

/// Log lines that wait to be written; what finds no room is dropped and counted.
pub const LOG_LINES: usize = 1024;

/// How long a serving thread may go without a turn before the edge is not ready, and how often it
/// must have been looked at meanwhile.
pub const STALLED_AFTER: Duration = Duration::from_secs(5);
pub const STALLED_LOOKS: u32 = 3;
const _: () = assert!(
    STALLED_AFTER.as_secs() >= 3 * TICK.as_secs(),
    "an idle thread has turns enough"
);

/// Longer than any run of the XDP program: it takes microseconds, with softirqs off.
pub const PROGRAM_RUN_MAX: Duration = Duration::from_millis(10);

/// How soon a sender hands over again what the kernel had no memory for.
pub const SEND_RETRY_NS: i64 = 1_000_000;

// --- sends, for each thread -----------------------------------------------------------------

/// Sends that can be under way: two for each request of a batch.
pub const SENDS: u32 = 256;
const _: () = assert!(
    SENDS >= 2 * BATCH,
    "a whole batch is answered before the next"
);
/// Largest UDP payload over IPv4; the kernel cuts no more than this in one send.
pub const SEND_BYTES_MAX: usize = 65_507;
const _: () = assert!(
    SEND_BYTES_MAX / (SEGMENT_BYTES_MIN as usize + DATA_HEADER_BYTES) < SPANS_MAX,
    "every segment of a send can be a part of its own; Linux 6.1 cuts 64 at most"
);
const _: () = assert!(
    SEGMENT_BYTES_MAX as usize + DATA_HEADER_BYTES <= INLINE_BYTES_MAX,
    "the longest WELCOME fits"
);

/// Clients a sender knows to be reachable, in sets of a few.
pub const REACH_SETS: usize = 2048;
pub const REACH_WAYS: usize = 4;
/// For how many seconds at most a client counts as reachable, and for how many nothing more is sent
/// to one that was not reached yet.
pub const REACH_SECONDS: u32 = 2;
/// How long the kernel keeps what is sent to a neighbour that does not answer: three probes, a
/// second apart, and some.
pub const UNREACHED_SECONDS: u32 = 4;
/// From how much on its way to clients that were not reached a new one gets a single datagram at
/// first. Small against the smallest send buffer a system gives by default.
pub const UNREACHED_BYTES: u32 = 256 << 10;

// --- between the two paths ------------------------------------------------------------------

/// Steered requests that wait for the socket front.
pub const BOUNCE_QUEUE: usize = 4096;

// --- socket front ---------------------------------------------------------------------------

/// Datagrams the kernel can hand over at once.
pub const RECEIVE_BUFFERS: u16 = 512;
/// Flights that landed whose waiters are answered, and bounced requests that are answered, before
/// datagrams are looked at again.
pub const LANDED_PER_ROUND: usize = 8;
pub const BOUNCES_PER_ROUND: usize = 256;
/// How long a serving thread sleeps at most. The socket front turns cookies over then, and it and
/// the engine look at deadlines; for a worker it is a sign of life.
pub const TICK: Duration = Duration::from_secs(1);

// --- fetch ----------------------------------------------------------------------------------

/// Fronts that can ask the engine for chunks.
pub const FRONTS_MAX: usize = 4;
/// Chunks that a front can wait for.
pub const FLIGHTS: usize = 1024;
/// A source may have one part in so many of the flights that are free: an eighth of all when it is
/// alone, and some forty sources that take all they can leave one for another.
pub const FLIGHT_SHARES: usize = 7;
/// Requests that can wait for one chunk.
pub const WAITERS_PER_FLIGHT: usize = 256;
/// Requests that can wait in all.
pub const WAITERS: usize = 16_384;
/// How long a request waits for its chunk.
pub const WAITER_DEADLINE: Duration = Duration::from_secs(5);
/// Origins there can be.
pub const ORIGINS_MAX: usize = 8;
/// Threads that wait for the disk of one origin; further fetches wait their turn.
pub const ORIGIN_THREADS: usize = 16;
/// Slots that the chunks of one origin are read into, at most; all origins together have a quarter
/// of a small store.
pub const ORIGIN_SLOTS: usize = 32;
/// How long one fetch may take, over all origins.
pub const FETCH_DEADLINE: Duration = Duration::from_secs(10);
/// Chunks remembered as not to be had.
pub const NEGATIVES: usize = 16_384;
/// For how long "the origin does not have it" is believed.
pub const ABSENT_FOR: Duration = Duration::from_secs(5);
/// For how long a failed fetch is not tried again.
pub const FAILED_FOR: Duration = Duration::from_millis(FAILED_MS as u64);
/// The same, as a client is told it.
pub const FAILED_MS: u32 = 1000;
/// How many chunks that cannot be used the log hears of, in how long a time.
pub const LOG_LINES_PER_WINDOW: u64 = 16;
pub const LOG_WINDOW: Duration = Duration::from_secs(10);
/// When a client that was told BUSY or PENDING asks again.
pub const RETRY_MS: u32 = 250;
/// Fetches that a source may begin at once, and after what time it may begin another.
pub const SOURCE_FETCHES: u32 = 2048;
pub const SOURCE_FETCH_EVERY: Duration = Duration::from_nanos(1_000_000_000 / 512);
/// Sources that are told apart; any further ones are counted as one.
pub const SOURCES: usize = 4096;
const _: () = assert!(
    NEGATIVES as u128 / 2
        >= SOURCE_FETCHES as u128 + ABSENT_FOR.as_nanos() / SOURCE_FETCH_EVERY.as_nanos(),
    "all that one source can learn to be absent is remembered for its time"
);
const _: () = assert!(WAITERS >= FLIGHTS, "each flight has a waiter");
const _: () = assert!(WAITERS_PER_FLIGHT <= WAITERS, "the bounds nest");

// --- store ----------------------------------------------------------------------------------

/// Slots kept free ahead of need, so that a fill does not wait for a quiescent state; small
/// stores keep a sixteenth.
pub const SLOTS_AHEAD: usize = 32;
/// Leases that may outlast a reader's quiescent state; in a small store one for four slots.
pub const OWNED_LEASES: u32 = 1024;
/// Fewest slots a store can work with.
pub const SLOTS_MIN: u32 = 64;
/// Largest chunk, as a length in memory.
pub const CHUNK_BYTES: usize = CHUNK_BYTES_MAX as usize;
