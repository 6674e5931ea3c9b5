//! The shared memory of a ring: two indices and the entries.

use std::io;
use std::ptr::NonNull;
use std::sync::Arc;
use std::sync::atomic::AtomicU32;

use memmap2::MmapMut;

/// Offsets within a ring's memory, as given by the kernel.
#[derive(Clone, Copy, Debug)]
pub struct RingOffsets {
    pub producer: usize,
    pub consumer: usize,
    pub entries: usize,
}

/// An entry type: plain integers, for which any bit pattern is valid.
pub trait Entry: Copy + sealed::Sealed {}

mod sealed {
    #[expect(unnameable_types, reason = "a sealed trait")]
    pub trait Sealed {}
}

impl sealed::Sealed for u64 {}
impl Entry for u64 {}
impl sealed::Sealed for libc::xdp_desc {}
impl Entry for libc::xdp_desc {}

/// A ring's memory, as one end sees it.
#[derive(Debug)]
pub struct RingMemory<T> {
    producer: NonNull<AtomicU32>,
    consumer: NonNull<AtomicU32>,
    entries: NonNull<T>,
    len: u32,
    /// Keeps the memory that the pointers refer to mapped.
    map: Arc<MmapMut>,
}

// SAFETY: the pointers refer to memory that this value keeps mapped; nothing is tied to a thread.
unsafe impl<T: Send> Send for RingMemory<T> {}

impl<T: Entry> RingMemory<T> {
    /// A ring of `len` entries (a power of two) in this memory.
    pub fn new(mut map: MmapMut, offsets: RingOffsets, len: u32) -> Self {
        assert!(len.is_power_of_two(), "a ring's length is a power of two");
        let index_end = offsets.producer.max(offsets.consumer) + size_of::<u32>();
        let entries_end = offsets.entries + len as usize * size_of::<T>();
        assert!(
            index_end.max(entries_end) <= map.len(),
            "the ring fits its memory"
        );
        let base = map.as_mut_ptr();
        let at = |offset: usize| {
            // SAFETY: the assertion above keeps every offset used here inside the mapping.
            let pointer = unsafe { base.add(offset) };
            NonNull::new(pointer).expect("memory is never mapped at zero")
        };
        let (producer, consumer) = (at(offsets.producer).cast(), at(offsets.consumer).cast());
        let entries: NonNull<T> = at(offsets.entries).cast();
        assert!(
            producer.is_aligned() && consumer.is_aligned() && entries.is_aligned(),
            "the kernel aligns ring indices and entries"
        );
        Self {
            producer,
            consumer,
            entries,
            len,
            map: Arc::new(map),
        }
    }

    /// Both ends of a ring in anonymous memory, for tests and for simulating the kernel.
    pub fn pair(len: u32) -> io::Result<(Self, Self)> {
        let offsets = RingOffsets {
            producer: 0,
            consumer: 64,
            entries: 128,
        };
        let map = MmapMut::map_anon(offsets.entries + len as usize * size_of::<T>())?;
        let one = Self::new(map, offsets, len);
        let other = Self {
            map: Arc::clone(&one.map),
            ..one
        };
        Ok((one, other))
    }

    pub const fn capacity(&self) -> u32 {
        self.len
    }

    pub fn producer(&self) -> &AtomicU32 {
        // SAFETY: aligned and mapped, checked in `new`; the other side is atomic too.
        unsafe { self.producer.as_ref() }
    }

    pub fn consumer(&self) -> &AtomicU32 {
        // SAFETY: as for the producer.
        unsafe { self.consumer.as_ref() }
    }

    fn entry(&self, index: u32) -> NonNull<T> {
        let place = (index & (self.len - 1)) as usize;
        // SAFETY: the index is below `len`, and the mapping holds `len` entries.
        unsafe { self.entries.add(place) }
    }

    /// Writes the entry with this index.
    ///
    /// # Safety
    ///
    /// Nothing else reads or writes the entry during the call.
    pub unsafe fn write(&self, index: u32, entry: T) {
        let place = self.entry(index);
        // SAFETY: in the mapping and aligned; exclusive, as the caller promises.
        unsafe { place.write(entry) };
    }

    /// Reads the entry with this index.
    ///
    /// # Safety
    ///
    /// Nothing writes the entry during the call.
    pub unsafe fn read(&self, index: u32) -> T {
        let place = self.entry(index);
        // SAFETY: in the mapping and aligned; not written, as the caller promises; and any bit
        // pattern is a valid `Entry`.
        unsafe { place.read() }
    }
}
