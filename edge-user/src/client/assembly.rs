//! One chunk, assembled from its segments: which were received, which are requested, and when to
//! request them again. Pure: time is an argument.

use std::time::Duration;

use edge_ebpf::wire::{DataHeader, Geometry, NackCode, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

use super::fetch_order::Wanted;
use super::request::{Measures, Request};
use super::rtt::RttEstimators;

/// What became of a segment.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// Not of this chunk, or not requested.
    Ignored,
    Duplicate,
    New {
        /// Time since its request, if known.
        delay: Option<Duration>,
        /// A sample of the path's round-trip time.
        path: Option<Duration>,
    },
}

/// Segments that timed out.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expired {
    pub segments: u32,
    /// Those that cannot be late because of a fetch.
    pub lost: u32,
    /// Send time of the latest request without a response to it or to a later one.
    pub unanswered_sent_at: Option<Duration>,
}

/// The last NACK.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    pub code: NackCode,
    /// The first of its kind since data arrived.
    pub since: Duration,
    pub last_nack_at: Duration,
}

#[derive(Debug)]
pub struct Assembly {
    wanted: Wanted,
    /// An earlier copy did not match the id.
    refetched: bool,
    segment_bytes: u16,
    geometry: Geometry,
    buffer: Vec<u8>,
    received: u128,
    /// Segments that were ever requested, and those requested again.
    requested: u128,
    rerequested: u128,
    requests: Vec<Request>,
    first_requested_at: Option<Duration>,
    /// Without any response.
    consecutive_timeouts: u32,
    /// The retry time of a NACK.
    paused_until: Duration,
    refused: Option<Refused>,
    pending_since: Option<Duration>,
    rejected_since: Option<Duration>,
    /// Code and port of a final refusal.
    final_refusal: Option<(NackCode, u64)>,
}

impl Assembly {
    pub fn new(wanted: Wanted, refetched: bool, segment_bytes: u16, mut buffer: Vec<u8>) -> Self {
        buffer.resize(wanted.chunk_bytes as usize, 0);
        Self {
            wanted,
            refetched,
            segment_bytes,
            geometry: geometry(wanted, segment_bytes),
            buffer,
            received: 0,
            requested: 0,
            rerequested: 0,
            requests: Vec::with_capacity(4),
            first_requested_at: None,
            consecutive_timeouts: 0,
            paused_until: Duration::ZERO,
            refused: None,
            pending_since: None,
            rejected_since: None,
            final_refusal: None,
        }
    }

    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub fn is_complete(&self) -> bool {
        self.received == self.geometry.all()
    }

    /// The bytes, and whether this was a second fetch.
    pub fn into_parts(self) -> (Wanted, Vec<u8>, bool) {
        assert!(
            self.is_complete(),
            "chunk {} is taken before it is whole",
            self.wanted.id
        );
        (self.wanted, self.buffer, self.refetched)
    }

    /// Starts over with another segment size: segments of two sizes never mix.
    pub fn resegment(&mut self, segment_bytes: u16) {
        if segment_bytes != self.segment_bytes {
            self.segment_bytes = segment_bytes;
            self.geometry = geometry(self.wanted, segment_bytes);
            self.received = 0;
            self.requested = 0;
            self.rerequested = 0;
            self.requests.clear();
        }
    }

    /// Port or cookie has changed: outstanding requests get no response.
    pub fn forget_requests(&mut self) {
        self.requests.clear();
        self.consecutive_timeouts = 0;
    }

    /// Segments to request now: neither received nor in flight.
    ///
    /// Until the first segment arrives, at most one request is outstanding: while an edge fetches
    /// the chunk, a second request replaces the first.
    pub fn missing(&self, now: Duration) -> u128 {
        if now < self.paused_until || (self.received == 0 && !self.requests.is_empty()) {
            return 0;
        }
        let in_flight = self
            .requests
            .iter()
            .fold(0, |in_flight, request| in_flight | request.want);
        self.geometry.all() & !self.received & !in_flight
    }

    /// Requested segments that were neither received nor timed out.
    pub fn segments_outstanding(&self) -> u32 {
        self.segments(|_| true)
    }

    /// The same without those that wait for a fetch the edge has confirmed.
    pub fn segments_in_flight(&self) -> u32 {
        self.segments(|request| request.wait_until.is_none())
    }

    fn segments(&self, which: impl Fn(&Request) -> bool) -> u32 {
        let which = self.requests.iter().filter(|request| which(request));
        which.map(|request| request.want.count_ones()).sum()
    }

    /// Whether no segment was received, so that the edge may have to fetch the chunk.
    pub fn is_empty(&self) -> bool {
        self.received == 0
    }

    /// Records a request. Returns the number of retransmitted segments.
    pub fn request(&mut self, now: Duration, want: u128) -> u32 {
        let again = want & self.requested;
        self.requested |= want;
        self.rerequested |= again;
        self.first_requested_at.get_or_insert(now);
        let measures = if self.received == 0 {
            Measures::Fetch
        } else {
            Measures::Path
        };
        self.requests
            .push(Request::new(want, now, measures, again != 0));
        again.count_ones()
    }

    /// Adds a segment with the tag of this chunk.
    pub fn insert(
        &mut self,
        now: Duration,
        header: &DataHeader,
        payload: &[u8],
        rtts: &mut RttEstimators,
    ) -> Arrival {
        if header.chunk_bytes != self.wanted.chunk_bytes {
            return Arrival::Ignored;
        }
        let Some(start) = header.place(payload.len(), self.segment_bytes) else {
            return Arrival::Ignored;
        };
        let bit = 1 << header.index;
        if self.requested & bit == 0 {
            return Arrival::Ignored;
        }
        if self.received & bit != 0 {
            if self.rerequested & bit != 0 {
                rtts.spurious_timeout(now);
            }
            return Arrival::Duplicate;
        }
        self.buffer[start..start + payload.len()].copy_from_slice(payload);
        self.received |= bit;
        self.consecutive_timeouts = 0;
        self.refused = None;
        let fetched = self.pending_since.take().is_some();
        self.rejected_since = None;
        let wanted_by = |request: &Request| request.want & bit != 0;
        let Some(at) = self.requests.iter().position(wanted_by) else {
            // It timed out before.
            rtts.spurious_timeout(now);
            return Arrival::New {
                delay: None,
                path: None,
            };
        };
        let request = &mut self.requests[at];
        request.want &= !bit;
        request.wait_until = None;
        let sent_at = (!request.is_retransmission).then_some(request.sent_at);
        rtts.on_segment(sent_at, request.last_segment_at.is_some(), now);
        let took = now.saturating_sub(request.sent_at);
        let is_first = request.last_segment_at.replace(now).is_none();
        let first_segment_at = *request.first_segment_at.get_or_insert(now);
        let delay = match request.measures {
            Measures::Path => took,
            // Without the fetch.
            Measures::Fetch => {
                rtts.smoothed().unwrap_or_default() + now.saturating_sub(first_segment_at)
            }
        };
        if is_first {
            match request.measures {
                Measures::Fetch if fetched => {
                    // Retransmissions do not speed up a fetch: measure from the first request.
                    let requested_at = self.first_requested_at.unwrap_or(request.sent_at);
                    rtts.fetch_sample(now.saturating_sub(requested_at));
                }
                Measures::Fetch if !request.is_retransmission => rtts.fetch_sample(took),
                Measures::Fetch => {}
                Measures::Path if request.is_retransmission => {}
                Measures::Path => rtts.path_sample(took),
            }
            if !request.is_retransmission {
                rtts.reset_backoff();
            }
        }
        let path = is_first && !request.is_retransmission && request.measures == Measures::Path;
        if request.want == 0 {
            self.requests.swap_remove(at);
        }
        Arrival::New {
            delay: Some(delay),
            path: path.then_some(took),
        }
    }

    /// Removes requests that timed out.
    pub fn expire(&mut self, now: Duration, rtts: &RttEstimators) -> Expired {
        let mut expired = Expired::default();
        let (received, consecutive_timeouts) = (self.received, self.consecutive_timeouts);
        let mut timed_out = false;
        self.requests.retain_mut(|request| {
            if rtts.overtaken(request.sent_at) {
                request.overtaken_at.get_or_insert(now);
            }
            if now < request.deadline(consecutive_timeouts, rtts) {
                return true;
            }
            let segments = request.want.count_ones();
            expired.segments += segments;
            expired.lost += if received == 0 { 0 } else { segments };
            if request.last_segment_at.is_none() && request.wait_until.is_none() {
                timed_out = true;
                if request.overtaken_at.is_none() {
                    expired.unanswered_sent_at =
                        expired.unanswered_sent_at.max(Some(request.sent_at));
                }
            }
            false
        });
        if timed_out {
            self.consecutive_timeouts = self.consecutive_timeouts.saturating_add(1);
        }
        expired
    }

    /// The edge is fetching the chunk: requests wait this long.
    pub fn on_pending(&mut self, now: Duration, wait: Duration) {
        self.note_refusal(now, NackCode::Pending);
        for request in self
            .requests
            .iter_mut()
            .filter(|request| request.last_segment_at.is_none())
        {
            request.wait_until = Some(now + wait);
        }
    }

    /// The edge refused a request: no requests for this long.
    pub fn on_refusal(&mut self, now: Duration, code: NackCode, wait: Duration) {
        self.note_refusal(now, code);
        self.paused_until = now + wait;
        // A NACK does not name its GET: most likely it is the oldest.
        let unanswered = |(_, request): &(usize, &Request)| request.last_segment_at.is_none();
        let unanswered = self.requests.iter().enumerate().filter(unanswered);
        if let Some((oldest, _)) = unanswered.min_by_key(|(_, request)| request.sent_at) {
            self.requests.swap_remove(oldest);
        }
    }

    /// Records a final refusal. Returns whether it repeats one received on another port.
    pub fn is_repeated_refusal(&mut self, code: NackCode, port: u64) -> bool {
        let before = self.final_refusal.replace((code, port));
        before.is_some_and(|(before, at)| before == code && at != port)
    }

    /// Whether a segment that was ignored is valid for another segment size.
    pub fn is_of_another_size(&self, header: &DataHeader, payload_bytes: usize) -> bool {
        let len_bytes = u32::try_from(payload_bytes).unwrap_or(u32::MAX);
        let size = if header.index < header.last {
            Some(len_bytes)
        } else {
            let others = self.wanted.chunk_bytes.checked_sub(len_bytes);
            others.and_then(|bytes| bytes.checked_div(header.last.into()))
        };
        let size = size.and_then(|size| u16::try_from(size).ok());
        size.filter(|size| *size != self.segment_bytes)
            .filter(|size| (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(size))
            .is_some_and(|size| header.place(payload_bytes, size).is_some())
    }

    fn note_refusal(&mut self, now: Duration, code: NackCode) {
        // An edge that retries its origin sends PENDING and ORIGIN in turn: each has its own
        // timeout.
        let since = if code == NackCode::Pending {
            &mut self.pending_since
        } else {
            &mut self.rejected_since
        };
        self.refused = Some(Refused {
            code,
            since: *since.get_or_insert(now),
            last_nack_at: now,
        });
    }

    pub fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// When this chunk needs attention if nothing arrives.
    pub fn next_timeout(&self, now: Duration, rtts: &RttEstimators) -> Option<Duration> {
        let deadline = self
            .requests
            .iter()
            .map(|request| request.deadline(self.consecutive_timeouts, rtts))
            .min();
        let paused = (self.paused_until > now).then_some(self.paused_until);
        deadline.into_iter().chain(paused).min()
    }
}

fn geometry(wanted: Wanted, segment_bytes: u16) -> Geometry {
    Geometry::new(wanted.chunk_bytes, segment_bytes)
        .expect("chunk lengths come from the shape, segment sizes from a valid WELCOME")
}

#[cfg(test)]
mod tests {
    use edge_ebpf::wire::ChunkId;

    use super::*;
    use crate::object::tree::Place;

    const MS: Duration = Duration::from_millis(1);
    const TAG: [u8; 8] = [7; 8];

    fn assembly(chunk_bytes: u32) -> Assembly {
        let place = Place { level: 0, index: 0 };
        let wanted = Wanted {
            place,
            id: ChunkId([7; 32]),
            chunk_bytes,
        };
        Assembly::new(wanted, false, 1216, Vec::new())
    }

    fn insert(chunk: &mut Assembly, now: Duration, index: u8) -> Arrival {
        let (start, len) = chunk.geometry.segment(index).unwrap();
        let payload: Vec<u8> = (start..start + len).map(pattern).collect();
        let header = DataHeader {
            index,
            last: chunk.geometry.last,
            chunk_bytes: chunk.wanted.chunk_bytes,
            tag: TAG,
        };
        chunk.insert(now, &header, &payload, &mut RttEstimators::default())
    }

    fn pattern(at: usize) -> u8 {
        u8::try_from(at % 251).unwrap()
    }

    #[test]
    fn reordered_and_duplicate_segments_make_the_chunk() {
        let mut chunk = assembly(5000);
        assert_eq!(chunk.missing(MS), 0b11111);
        assert_eq!(chunk.request(MS, 0b11111), 0);
        assert_eq!((chunk.missing(MS), chunk.segments_in_flight()), (0, 5));
        for index in [4, 2, 0, 3] {
            let arrival = insert(&mut chunk, MS * 4, index);
            assert!(matches!(arrival, Arrival::New { path: None, .. }));
        }
        assert_eq!(insert(&mut chunk, MS * 4, 2), Arrival::Duplicate);
        assert!(!chunk.is_complete());
        insert(&mut chunk, MS * 4, 1);
        assert!(chunk.is_complete());
        let (_, bytes, _) = chunk.into_parts();
        assert!(bytes.into_iter().eq((0..5000).map(pattern)));
    }

    #[test]
    fn data_that_was_not_requested_or_has_another_shape_is_ignored() {
        let mut chunk = assembly(5000);
        assert_eq!(insert(&mut chunk, MS, 0), Arrival::Ignored);
        chunk.request(MS, 0b1);
        assert_eq!(insert(&mut chunk, MS, 1), Arrival::Ignored);
        let good = DataHeader {
            index: 0,
            last: 4,
            chunk_bytes: 5000,
            tag: TAG,
        };
        for (header, len) in [
            (
                DataHeader {
                    chunk_bytes: 5001,
                    ..good
                },
                1216,
            ),
            (DataHeader { last: 3, ..good }, 1216),
            (
                DataHeader {
                    index: 255,
                    last: 255,
                    ..good
                },
                1216,
            ),
            (good, 1215),
            (good, 0),
        ] {
            let payload = vec![0; len];
            let arrival = chunk.insert(MS, &header, &payload, &mut RttEstimators::default());
            assert_eq!(arrival, Arrival::Ignored, "{header:?} {len}");
        }
    }

    #[test]
    fn lost_segments_are_missing_again_and_the_timeout_doubles() {
        let mut chunk = assembly(5000);
        let rtts = RttEstimators::default();
        chunk.request(MS, 0b11111);
        let due = chunk.next_timeout(MS, &rtts).unwrap();
        assert_eq!(
            chunk.expire(due.saturating_sub(MS), &rtts),
            Expired::default()
        );
        // The edge may be fetching the chunk.
        assert_eq!(
            chunk.expire(due, &rtts),
            Expired {
                segments: 5,
                lost: 0,
                unanswered_sent_at: Some(MS),
            }
        );
        assert_eq!(chunk.request(due, chunk.missing(due)), 5);
        let next = chunk.next_timeout(due, &rtts).unwrap();
        assert_eq!(next.abs_diff(due), due.abs_diff(MS) * 2);
        insert(&mut chunk, due + MS, 0);
        let due = chunk.next_timeout(due, &rtts).unwrap();
        assert_eq!(
            chunk.expire(due, &rtts),
            Expired {
                segments: 4,
                lost: 4,
                unanswered_sent_at: None,
            }
        );
        assert_eq!(chunk.request(due, 0b00110), 2);
        // It may belong to the first request, and measures nothing.
        let arrival = insert(&mut chunk, due, 1);
        assert!(matches!(arrival, Arrival::New { path: None, .. }));
    }

    #[test]
    fn a_request_for_a_chunk_the_edge_has_measures_the_path() {
        let mut chunk = assembly(5000);
        chunk.request(MS, 0b00001);
        insert(&mut chunk, MS * 50, 0);
        chunk.request(MS * 51, 0b11110);
        let arrival = insert(&mut chunk, MS * 53, 3);
        let path = Some(MS * 2);
        assert_eq!(arrival, Arrival::New { delay: path, path });
    }

    #[test]
    fn segments_of_a_confirmed_fetch_are_outstanding_and_not_in_flight() {
        let mut chunk = assembly(5000);
        chunk.request(MS, 0b00011);
        chunk.on_pending(MS, MS * 1000);
        assert_eq!(
            (chunk.segments_outstanding(), chunk.segments_in_flight()),
            (2, 0)
        );
        assert_eq!(chunk.missing(MS), 0);
    }

    #[test]
    fn segments_of_another_size_are_recognised() {
        let chunk = assembly(5000);
        let of = |index, last, len| {
            let header = DataHeader {
                index,
                last,
                chunk_bytes: 5000,
                tag: TAG,
            };
            chunk.is_of_another_size(&header, len)
        };
        // 1400 bytes make four segments, the last of 800; 1216 is the present size.
        assert!(of(0, 3, 1400) && of(3, 3, 800) && of(4, 4, 904));
        assert!(!of(0, 4, 1216) && !of(4, 4, 136));
        assert!(!of(0, 3, 1000) && !of(3, 3, 799) && !of(0, 0, 5000) && !of(9, 3, 1400));
    }

    #[test]
    fn a_refusal_pauses_requests_and_removes_one_and_data_ends_it() {
        let mut chunk = assembly(5000);
        chunk.request(MS, 0b00001);
        assert_eq!(chunk.missing(MS), 0);
        insert(&mut chunk, MS, 0);
        chunk.request(MS, 0b00010);
        chunk.request(MS * 2, 0b11100);
        chunk.on_refusal(MS * 3, NackCode::Busy, MS * 100);
        assert_eq!(chunk.segments_in_flight(), 3);
        assert_eq!(
            (chunk.missing(MS * 102), chunk.missing(MS * 103)),
            (0, 0b00010)
        );
        assert_eq!(
            chunk.next_timeout(MS * 4, &RttEstimators::default()),
            Some(MS * 103)
        );
        let refused = chunk.refused().unwrap();
        assert_eq!((refused.code, refused.since), (NackCode::Busy, MS * 3));
        insert(&mut chunk, MS * 5, 4);
        assert_eq!(chunk.refused(), None);
    }

    #[test]
    fn pending_extends_the_timeout() {
        let mut chunk = assembly(5000);
        chunk.request(MS, 0b11111);
        chunk.on_pending(MS * 2, MS * 1000);
        assert_eq!(
            chunk.next_timeout(MS * 2, &RttEstimators::default()),
            Some(MS * 1002)
        );
        let refused = chunk.refused().unwrap();
        assert_eq!((refused.code, refused.since), (NackCode::Pending, MS * 2));
    }

    #[test]
    fn another_segment_size_starts_the_chunk_over() {
        let mut chunk = assembly(5000);
        chunk.request(MS, 0b11111);
        insert(&mut chunk, MS, 0);
        chunk.resegment(1216);
        assert_eq!(chunk.received, 1);
        chunk.resegment(1024);
        assert_eq!((chunk.received, chunk.missing(MS)), (0, 0b11111));
    }
}
