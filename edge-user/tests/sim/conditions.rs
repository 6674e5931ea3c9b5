//! What a seed is tried under: drawn once, at the start.

use std::time::Duration;

use super::chance::Chance;

const MS: Duration = Duration::from_millis(1);

/// What strangers with a good cookie ask for, if they are such.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Crowd {
    None,
    /// All chunks there are.
    Any,
    /// Chunks nobody has, and more of them than one source may ask for at a time.
    Absent,
}

/// Chances are in thousandths.
#[derive(Clone, Debug)]
pub(crate) struct Conditions {
    /// None with XDP off.
    pub(crate) workers: usize,
    /// Hits leave by frames of the umem.
    pub(crate) by_frames: bool,
    pub(crate) readers: usize,
    /// One after another, for each reader.
    pub(crate) objects_each: u64,
    /// Out of how many.
    pub(crate) objects: usize,
    /// How many chunks are in the store from the start: at 60 the next one pushes another out.
    pub(crate) resident: usize,
    /// Whether one of them may have many segments.
    pub(crate) large: bool,

    pub(crate) loss: u64,
    pub(crate) repeats: u64,
    pub(crate) delay: Duration,
    /// GETs and HELLOs with IP options, which the program leaves to the kernel.
    pub(crate) options: u64,

    pub(crate) rx_frames: u32,
    pub(crate) rx_ring: u32,
    pub(crate) tx_frames: u32,
    pub(crate) sends: usize,
    pub(crate) socket_datagrams: usize,
    pub(crate) bounce_queue: usize,
    /// Each with so many threads, and buffers for so many chunks.
    pub(crate) origins: usize,
    pub(crate) origin_threads: usize,
    pub(crate) origin_slots: usize,

    /// A send ends after the flush that handed it over, and how long after.
    pub(crate) late: u64,
    pub(crate) late_by: Duration,
    pub(crate) send_fails: u64,
    /// The program's maps refuse a change.
    pub(crate) map_refuses: u64,
    /// The program reads a map element that is reused meanwhile: any pair may come of it.
    pub(crate) map_lies: u64,
    /// A descriptor that names no frame of ours.
    pub(crate) bad_descriptor: u64,
    /// A thread is not run for a while.
    pub(crate) stalls: u64,
    pub(crate) stall: Duration,

    pub(crate) origin_delay: Duration,
    pub(crate) origin_absent: u64,
    pub(crate) origin_fails: u64,
    pub(crate) origin_alters: u64,
    /// Reads that take this long.
    pub(crate) origin_hangs: u64,
    pub(crate) hang: Duration,

    /// Datagrams of theirs, and whether they are a crowd that may ask.
    pub(crate) strangers: u64,
    pub(crate) crowd: Crowd,
    /// Times at which the edge's wall clock is set forward or back.
    pub(crate) clock_steps: u64,
}

impl Conditions {
    pub(crate) fn draw(chance: &mut Chance) -> Self {
        let workers = chance.one_of(&[0, 1, 1, 2, 2, 2]);
        let rx_frames = chance.one_of(&[4, 16, 64]);
        let (crowd, strangers) = if chance.permille(10) {
            (Crowd::Absent, 2000)
        } else {
            let crowd = chance.one_of(&[Crowd::None, Crowd::Any]);
            (crowd, chance.one_of(&[0, 20, 60, 200]))
        };
        Self {
            workers,
            by_frames: chance.permille(400),
            readers: 1 + chance.index(4),
            objects_each: 1 + chance.one_of(&[0, 7, 7, 40]),
            objects: chance.one_of(&[3, 12, 90]),
            resident: chance.one_of(&[0, 2, 20, 60, 60]),
            large: chance.permille(50),
            loss: chance.one_of(&[0, 0, 10, 50, 200]),
            repeats: chance.one_of(&[0, 0, 20, 200]),
            delay: chance.one_of(&[MS / 10, MS, MS * 10, MS * 40]),
            options: chance.one_of(&[0, 0, 50, 300]),
            rx_frames,
            rx_ring: chance.one_of(&[2, rx_frames, rx_frames]),
            tx_frames: chance.one_of(&[2, 16, 128]),
            sends: chance.one_of(&[3, 8, 256, 256]),
            socket_datagrams: chance.one_of(&[2, 64, 1000, 1000]),
            bounce_queue: chance.one_of(&[1, 4, 64, 64]),
            origins: chance.one_of(&[1, 1, 2, 3]),
            origin_threads: chance.one_of(&[1, 4, 16, 16]),
            origin_slots: chance.one_of(&[1, 4, 32, 32]),
            late: chance.one_of(&[0, 100, 500, 900]),
            late_by: chance.one_of(&[MS / 10, MS * 5, MS * 100]),
            send_fails: chance.one_of(&[0, 0, 0, 50]),
            map_refuses: chance.one_of(&[0, 0, 0, 200]),
            map_lies: chance.one_of(&[0, 0, 0, 200]),
            bad_descriptor: chance.one_of(&[0, 0, 0, 20]),
            stalls: chance.one_of(&[0, 0, 5, 20]),
            stall: chance.one_of(&[MS, MS * 20, MS * 300]),
            origin_delay: chance.one_of(&[MS / 10, MS * 5, MS * 200, MS * 9000]),
            origin_absent: chance.one_of(&[0, 0, 0, 0, 50]),
            origin_fails: chance.one_of(&[0, 0, 0, 0, 100, 500]),
            origin_alters: chance.one_of(&[0, 0, 0, 0, 100, 500]),
            origin_hangs: chance.one_of(&[0, 0, 0, 0, 50, 300]),
            hang: chance.one_of(&[MS * 6000, MS * 12_000, MS * 25_000]),
            strangers,
            crowd,
            clock_steps: chance.one_of(&[0, 0, 0, 2]),
        }
    }

    /// Whether a chunk may wait too long for a thread of its origin.
    pub(crate) fn is_slow(&self) -> bool {
        self.origin_hangs > 0 || self.origin_delay > MS * 1000
    }

    /// Whether a reader may end without its object for no other cause than the way there.
    pub(crate) fn is_rough(&self) -> bool {
        self.loss >= 200
            || self.send_fails > 0
            || self.bad_descriptor > 0
            || self.stall > MS * 20 && self.stalls > 0
            || self.socket_datagrams < 64
            || self.rx_ring < 16
            || self.tx_frames < 128
            || self.sends < 64
            || self.bounce_queue < 64
            || self.origin_threads < 16
            || self.origin_slots < 32
            || self.late_by > MS * 5
            || self.clock_steps > 0
    }
}
