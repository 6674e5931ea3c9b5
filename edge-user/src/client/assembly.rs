//! One chunk, put together from its segments: which have come, which were asked for, and when to
//! ask again. Pure: time comes in.

use std::time::Duration;

use edge_ebpf::wire::{DataHeader, Geometry, NackCode, SEGMENT_BYTES_MAX, SEGMENT_BYTES_MIN};

use super::pace::Trips;
use super::request::{Measures, Request};
use super::walk::Wanted;

/// What a segment meant.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Arrival {
    /// Not ours, or not asked for.
    Nothing,
    /// Here already.
    Again,
    /// New. How long it was on its way, or in the queue of a slow path, where that can be said.
    Segment {
        delay: Option<Duration>,
        /// The same for the path alone, without doubt.
        path: Option<Duration>,
    },
}

/// Segments that did not come in time.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Expired {
    pub segments: u32,
    /// Of these, those whose absence cannot be explained by an edge that is fetching the chunk.
    pub lost: u32,
    /// When the latest of the requests was sent that nothing came for, not even for a later one.
    pub silent: Option<Duration>,
}

/// What the edge said instead of data, last.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Refused {
    pub code: NackCode,
    /// Since when it says something of the kind.
    pub since: Duration,
    pub heard_at: Duration,
}

#[derive(Debug)]
pub struct Assembly {
    wanted: Wanted,
    /// An earlier copy was not what the id says.
    spoiled: bool,
    segment_bytes: u16,
    geometry: Geometry,
    buffer: Vec<u8>,
    have: u128,
    /// Segments that were ever asked for, and those that were given up and asked for again.
    asked: u128,
    repeated: u128,
    requests: Vec<Request>,
    /// When it was first asked for.
    first_asked_at: Option<Duration>,
    /// Timeouts in a row without any answer.
    vain: u32,
    /// Not to be asked for before this moment: the edge said so.
    quiet_until: Duration,
    /// What the edge last said instead of data, and since when it has been saying such things.
    refused: Option<Refused>,
    pending_since: Option<Duration>,
    turned_away_since: Option<Duration>,
    /// It was refused for good, with this code and on this port.
    refused_for_good: Option<(NackCode, u64)>,
}

impl Assembly {
    pub fn new(wanted: Wanted, spoiled: bool, segment_bytes: u16, mut buffer: Vec<u8>) -> Self {
        buffer.resize(wanted.chunk_bytes as usize, 0);
        Self {
            wanted,
            spoiled,
            segment_bytes,
            geometry: geometry(wanted, segment_bytes),
            buffer,
            have: 0,
            asked: 0,
            repeated: 0,
            requests: Vec::with_capacity(4),
            first_asked_at: None,
            vain: 0,
            quiet_until: Duration::ZERO,
            refused: None,
            pending_since: None,
            turned_away_since: None,
            refused_for_good: None,
        }
    }

    pub fn wanted(&self) -> &Wanted {
        &self.wanted
    }

    pub fn is_complete(&self) -> bool {
        self.have == self.geometry.all()
    }

    /// The bytes, and whether an earlier copy of them was altered.
    pub fn into_parts(self) -> (Wanted, Vec<u8>, bool) {
        assert!(
            self.is_complete(),
            "chunk {} is taken before it is whole",
            self.wanted.id
        );
        (self.wanted, self.buffer, self.spoiled)
    }

    /// The edge now uses this segment size. Segments of two sizes never mix.
    pub fn refit(&mut self, segment_bytes: u16) {
        if segment_bytes != self.segment_bytes {
            self.segment_bytes = segment_bytes;
            self.geometry = geometry(self.wanted, segment_bytes);
            self.have = 0;
            self.asked = 0;
            self.repeated = 0;
            self.requests.clear();
        }
    }

    /// What was asked for will not come: the port or the cookie it was asked with is gone.
    pub fn forget_requests(&mut self) {
        self.requests.clear();
        self.vain = 0;
    }

    /// Segments to ask for now: neither here nor on their way, unless the edge wants peace.
    ///
    /// Until the first one is here there is at most one request: to an edge that must fetch the
    /// chunk a second one would replace the first, and what the first asked for would not come.
    pub fn missing(&self, now: Duration) -> u128 {
        if now < self.quiet_until || (self.have == 0 && !self.requests.is_empty()) {
            return 0;
        }
        let coming = self
            .requests
            .iter()
            .fold(0, |coming, request| coming | request.want);
        self.geometry.all() & !self.have & !coming
    }

    /// Segments that were asked for and neither came nor were given up.
    pub fn segments_owed(&self) -> u32 {
        self.segments(|_| true)
    }

    /// The same without those of a fetch that the edge has confirmed: they are not on the path.
    pub fn segments_under_way(&self) -> u32 {
        self.segments(|request| request.wait_until.is_none())
    }

    fn segments(&self, which: impl Fn(&Request) -> bool) -> u32 {
        let which = self.requests.iter().filter(|request| which(request));
        which.map(|request| request.want.count_ones()).sum()
    }

    /// Whether nothing of it has come yet, so that the edge may have to fetch it.
    pub fn is_new(&self) -> bool {
        self.have == 0
    }

    /// Notes that these segments are being asked for; gives how many of them not for the first
    /// time.
    pub fn ask(&mut self, now: Duration, want: u128) -> u32 {
        let again = want & self.asked;
        self.asked |= want;
        self.repeated |= again;
        self.first_asked_at.get_or_insert(now);
        let measures = if self.have == 0 {
            Measures::First
        } else {
            Measures::Path
        };
        self.requests
            .push(Request::new(want, now, measures, again != 0));
        again.count_ones()
    }

    /// Takes in a segment whose tag is this chunk's.
    pub fn take(
        &mut self,
        now: Duration,
        header: &DataHeader,
        payload: &[u8],
        trips: &mut Trips,
    ) -> Arrival {
        if header.chunk_bytes != self.wanted.chunk_bytes {
            return Arrival::Nothing;
        }
        let Some(start) = header.place(payload.len(), self.segment_bytes) else {
            return Arrival::Nothing;
        };
        let bit = 1 << header.index;
        if self.asked & bit == 0 {
            return Arrival::Nothing;
        }
        if self.have & bit != 0 {
            if self.repeated & bit != 0 {
                trips.mistaken(now);
            }
            return Arrival::Again;
        }
        self.buffer[start..start + payload.len()].copy_from_slice(payload);
        self.have |= bit;
        self.vain = 0;
        self.refused = None;
        let fetched = self.pending_since.take().is_some();
        self.turned_away_since = None;
        let wanted_by = |request: &Request| request.want & bit != 0;
        let Some(at) = self.requests.iter().position(wanted_by) else {
            // It was given up, and comes after all.
            trips.mistaken(now);
            return Arrival::Segment {
                delay: None,
                path: None,
            };
        };
        let request = &mut self.requests[at];
        request.want &= !bit;
        request.wait_until = None;
        let sent_at = (!request.repeats).then_some(request.sent_at);
        trips.answered(sent_at, request.heard_at.is_some(), now);
        let took = now.saturating_sub(request.sent_at);
        let begins = request.heard_at.replace(now).is_none();
        let began_at = *request.began_at.get_or_insert(now);
        let delay = match request.measures {
            Measures::Path => took,
            // Without what may be the time of a fetch.
            Measures::First => trips.smooth().unwrap_or_default() + now.saturating_sub(began_at),
        };
        if begins {
            match request.measures {
                Measures::First if fetched => {
                    // Asking again does not make a fetch quicker: it is measured from the start.
                    let asked_at = self.first_asked_at.unwrap_or(request.sent_at);
                    trips.first_sample(now.saturating_sub(asked_at));
                }
                Measures::First if !request.repeats => trips.first_sample(took),
                Measures::First => {}
                Measures::Path if request.repeats => {}
                Measures::Path => trips.path_sample(took),
            }
            if !request.repeats {
                trips.fresh();
            }
        }
        let path = begins && !request.repeats && request.measures == Measures::Path;
        if request.want == 0 {
            self.requests.swap_remove(at);
        }
        Arrival::Segment {
            delay: Some(delay),
            path: path.then_some(took),
        }
    }

    /// Gives up requests that are overdue.
    pub fn expire(&mut self, now: Duration, trips: &Trips) -> Expired {
        let mut expired = Expired::default();
        let (have, vain) = (self.have, self.vain);
        let mut in_vain = false;
        self.requests.retain_mut(|request| {
            if trips.overtaken(request.sent_at) {
                request.overtaken_at.get_or_insert(now);
            }
            if now < request.deadline(vain, trips) {
                return true;
            }
            let segments = request.want.count_ones();
            expired.segments += segments;
            expired.lost += if have == 0 { 0 } else { segments };
            if request.heard_at.is_none() && request.wait_until.is_none() {
                in_vain = true;
                if request.overtaken_at.is_none() {
                    expired.silent = expired.silent.max(Some(request.sent_at));
                }
            }
            false
        });
        if in_vain {
            self.vain = self.vain.saturating_add(1);
        }
        expired
    }

    /// The edge is fetching the chunk: wait this long before asking again.
    pub fn wait(&mut self, now: Duration, wait: Duration) {
        self.note_refusal(now, NackCode::Pending);
        for request in self
            .requests
            .iter_mut()
            .filter(|request| request.heard_at.is_none())
        {
            request.wait_until = Some(now + wait);
        }
    }

    /// The edge will not answer one of the requests: leave it in peace for this long.
    pub fn refuse(&mut self, now: Duration, code: NackCode, wait: Duration) {
        self.note_refusal(now, code);
        self.quiet_until = now + wait;
        // A NACK does not say which GET it answers; it is most likely the oldest.
        let unanswered = |(_, request): &(usize, &Request)| request.heard_at.is_none();
        let unanswered = self.requests.iter().enumerate().filter(unanswered);
        if let Some((oldest, _)) = unanswered.min_by_key(|(_, request)| request.sent_at) {
            self.requests.swap_remove(oldest);
        }
    }

    /// Notes that the edge refuses the chunk for good; whether it did so before on another port.
    pub fn is_repeated(&mut self, code: NackCode, port: u64) -> bool {
        let before = self.refused_for_good.replace((code, port));
        before.is_some_and(|(before, at)| before == code && at != port)
    }

    /// Whether a segment that does not fit is one of another segment size.
    pub fn is_of_another_size(&self, header: &DataHeader, payload_bytes: usize) -> bool {
        let len_bytes = u32::try_from(payload_bytes).unwrap_or(u32::MAX);
        let size = if header.index < header.last {
            Some(len_bytes)
        } else {
            // The last one has what the others left.
            let others = self.wanted.chunk_bytes.checked_sub(len_bytes);
            others.and_then(|bytes| bytes.checked_div(header.last.into()))
        };
        let size = size.and_then(|size| u16::try_from(size).ok());
        size.filter(|size| *size != self.segment_bytes)
            .filter(|size| (SEGMENT_BYTES_MIN..=SEGMENT_BYTES_MAX).contains(size))
            .is_some_and(|size| header.place(payload_bytes, size).is_some())
    }

    fn note_refusal(&mut self, now: Duration, code: NackCode) {
        // To wait for a fetch is one thing, to be turned away another, and an edge that tries
        // again and again says both in turn: each has its own patience.
        let since = if code == NackCode::Pending {
            &mut self.pending_since
        } else {
            &mut self.turned_away_since
        };
        self.refused = Some(Refused {
            code,
            since: *since.get_or_insert(now),
            heard_at: now,
        });
    }

    /// What the edge says instead of data.
    pub fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// When something is to be done about this chunk, if nothing comes.
    pub fn due(&self, now: Duration, trips: &Trips) -> Option<Duration> {
        let deadline = self
            .requests
            .iter()
            .map(|request| request.deadline(self.vain, trips))
            .min();
        let quiet = (self.quiet_until > now).then_some(self.quiet_until);
        deadline.into_iter().chain(quiet).min()
    }
}

fn geometry(wanted: Wanted, segment_bytes: u16) -> Geometry {
    Geometry::new(wanted.chunk_bytes, segment_bytes)
        .expect("chunk lengths come from the shape, segment sizes from a checked WELCOME")
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

    fn take(chunk: &mut Assembly, now: Duration, index: u8) -> Arrival {
        let (start, len) = chunk.geometry.segment(index).unwrap();
        let payload: Vec<u8> = (start..start + len).map(pattern).collect();
        let header = DataHeader {
            index,
            last: chunk.geometry.last,
            chunk_bytes: chunk.wanted.chunk_bytes,
            tag: TAG,
        };
        chunk.take(now, &header, &payload, &mut Trips::default())
    }

    fn pattern(at: usize) -> u8 {
        u8::try_from(at % 251).unwrap()
    }

    #[test]
    fn segments_in_any_order_and_twice_make_the_chunk() {
        let mut chunk = assembly(5000);
        assert_eq!(chunk.missing(MS), 0b11111);
        assert_eq!(chunk.ask(MS, 0b11111), 0);
        assert_eq!((chunk.missing(MS), chunk.segments_under_way()), (0, 5));
        for index in [4, 2, 0, 3] {
            let arrival = take(&mut chunk, MS * 4, index);
            assert!(matches!(arrival, Arrival::Segment { path: None, .. }));
        }
        assert_eq!(take(&mut chunk, MS * 4, 2), Arrival::Again);
        assert!(!chunk.is_complete());
        take(&mut chunk, MS * 4, 1);
        assert!(chunk.is_complete());
        let (_, bytes, _) = chunk.into_parts();
        assert!(bytes.into_iter().eq((0..5000).map(pattern)));
    }

    #[test]
    fn data_nobody_asked_for_or_of_another_shape_is_ignored() {
        let mut chunk = assembly(5000);
        assert_eq!(take(&mut chunk, MS, 0), Arrival::Nothing);
        chunk.ask(MS, 0b1);
        assert_eq!(take(&mut chunk, MS, 1), Arrival::Nothing);
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
            let arrival = chunk.take(MS, &header, &payload, &mut Trips::default());
            assert_eq!(arrival, Arrival::Nothing, "{header:?} {len}");
        }
    }

    #[test]
    fn what_does_not_come_is_missing_again_and_the_wait_doubles() {
        let mut chunk = assembly(5000);
        let trips = Trips::default();
        chunk.ask(MS, 0b11111);
        let due = chunk.due(MS, &trips).unwrap();
        assert_eq!(
            chunk.expire(due.saturating_sub(MS), &trips),
            Expired::default()
        );
        // Nothing of the chunk was ever seen, so the edge may just be fetching it.
        assert_eq!(
            chunk.expire(due, &trips),
            Expired {
                segments: 5,
                lost: 0,
                silent: Some(MS),
            }
        );
        assert_eq!(chunk.ask(due, chunk.missing(due)), 5);
        let next = chunk.due(due, &trips).unwrap();
        assert_eq!(next.abs_diff(due), due.abs_diff(MS) * 2);
        take(&mut chunk, due + MS, 0);
        let due = chunk.due(due, &trips).unwrap();
        assert_eq!(
            chunk.expire(due, &trips),
            Expired {
                segments: 4,
                lost: 4,
                silent: None,
            }
        );
        assert_eq!(chunk.ask(due, 0b00110), 2);
        // It may be the answer to the first request, and measures nothing.
        let arrival = take(&mut chunk, due, 1);
        assert!(matches!(arrival, Arrival::Segment { path: None, .. }));
    }

    #[test]
    fn what_is_asked_once_the_chunk_is_there_measures_the_path() {
        let mut chunk = assembly(5000);
        chunk.ask(MS, 0b00001);
        take(&mut chunk, MS * 50, 0);
        chunk.ask(MS * 51, 0b11110);
        let arrival = take(&mut chunk, MS * 53, 3);
        let path = Some(MS * 2);
        assert_eq!(arrival, Arrival::Segment { delay: path, path });
    }

    #[test]
    fn a_fetch_that_the_edge_confirmed_is_owed_and_not_under_way() {
        let mut chunk = assembly(5000);
        chunk.ask(MS, 0b00011);
        chunk.wait(MS, MS * 1000);
        assert_eq!((chunk.segments_owed(), chunk.segments_under_way()), (2, 0));
        assert_eq!(chunk.missing(MS), 0);
    }

    #[test]
    fn segments_of_another_size_are_told_from_nonsense() {
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
    fn a_refusal_gives_peace_and_frees_one_request_and_data_ends_it() {
        let mut chunk = assembly(5000);
        chunk.ask(MS, 0b00001);
        assert_eq!(chunk.missing(MS), 0);
        take(&mut chunk, MS, 0);
        chunk.ask(MS, 0b00010);
        chunk.ask(MS * 2, 0b11100);
        chunk.refuse(MS * 3, NackCode::Busy, MS * 100);
        assert_eq!(chunk.segments_under_way(), 3);
        assert_eq!(
            (chunk.missing(MS * 102), chunk.missing(MS * 103)),
            (0, 0b00010)
        );
        assert_eq!(chunk.due(MS * 4, &Trips::default()), Some(MS * 103));
        let refused = chunk.refused().unwrap();
        assert_eq!((refused.code, refused.since), (NackCode::Busy, MS * 3));
        take(&mut chunk, MS * 5, 4);
        assert_eq!(chunk.refused(), None);
    }

    #[test]
    fn pending_extends_the_wait() {
        let mut chunk = assembly(5000);
        chunk.ask(MS, 0b11111);
        chunk.wait(MS * 2, MS * 1000);
        assert_eq!(chunk.due(MS * 2, &Trips::default()), Some(MS * 1002));
        let refused = chunk.refused().unwrap();
        assert_eq!((refused.code, refused.since), (NackCode::Pending, MS * 2));
    }

    #[test]
    fn another_segment_size_starts_the_chunk_again() {
        let mut chunk = assembly(5000);
        chunk.ask(MS, 0b11111);
        take(&mut chunk, MS, 0);
        chunk.refit(1216);
        assert_eq!(chunk.have, 1);
        chunk.refit(1024);
        assert_eq!((chunk.have, chunk.missing(MS)), (0, 0b11111));
    }
}
