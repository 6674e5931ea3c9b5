//! Memory that no core dump holds: for what names clients, and for secrets.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};
use std::slice;

use memmap2::{Advice, MmapMut};

/// A fixed number of values, zeros at first, in memory of its own.
pub struct Undumped<T> {
    map: MmapMut,
    count: usize,
    _values: PhantomData<T>,
}

/// What may begin as zeros.
///
/// # Safety
///
/// All bits zero are a value of the type.
pub unsafe trait Zeroed {}

// SAFETY: every bit pattern is a value.
unsafe impl Zeroed for u8 {}
// SAFETY: as many values as there are zeros for.
unsafe impl<T: Zeroed, const N: usize> Zeroed for [T; N] {}

// SAFETY: it owns its values as a box would.
unsafe impl<T: Send> Send for Undumped<T> {}

impl<T: Zeroed> Undumped<T> {
    pub fn new(count: usize) -> io::Result<Self> {
        const {
            assert!(!std::mem::needs_drop::<T>(), "values are not dropped");
            assert!(align_of::<T>() <= 4096, "a mapping begins at a page");
        }
        let map = MmapMut::map_anon((count * size_of::<T>()).max(1))?;
        map.advise(Advice::DontDump)?;
        Ok(Self {
            map,
            count,
            _values: PhantomData,
        })
    }

    /// Keeps only the first values.
    pub fn truncate(&mut self, count: usize) {
        self.count = count.min(self.count);
    }
}

impl<T> Deref for Undumped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping has room for the values, checked in `new`, begins aligned, and each is
        // zeros, a value by `Zeroed`, or what was written through `deref_mut`. It is ours alone.
        unsafe { slice::from_raw_parts(self.map.as_ptr().cast(), self.count) }
    }
}

impl<T> DerefMut for Undumped<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.map.as_mut_ptr().cast(), self.count) }
    }
}

impl<T> fmt::Debug for Undumped<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Undumped")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}
