//! Memory excluded from core dumps, for secrets and client addresses.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use memmap2::{Advice, MmapMut};

/// A fixed number of values, initially zero, in a mapping of their own.
pub struct Undumped<T> {
    values: NonNull<T>,
    count: usize,
    /// Keeps the values mapped; `None` if there are none.
    _map: Option<MmapMut>,
}

/// Types that can be initialised with zeros.
///
/// # Safety
///
/// All bits zero must be a valid value.
pub unsafe trait Zeroed {}

// SAFETY: every bit pattern is valid.
unsafe impl Zeroed for u8 {}
// SAFETY: each element is zero.
unsafe impl<T: Zeroed, const N: usize> Zeroed for [T; N] {}

// SAFETY: it owns its values like a box.
unsafe impl<T: Send> Send for Undumped<T> {}

impl<T: Zeroed> Undumped<T> {
    pub fn new(count: usize) -> io::Result<Self> {
        const {
            assert!(!std::mem::needs_drop::<T>(), "values are not dropped");
            assert!(align_of::<T>() <= 4096, "a mapping begins at a page");
        }
        let mut map = MmapMut::map_anon((count * size_of::<T>()).max(1))?;
        map.advise(Advice::DontDump)?;
        let values = NonNull::new(map.as_mut_ptr().cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            values,
            count,
            _map: Some(map),
        })
    }

    pub fn truncate(&mut self, count: usize) {
        self.count = count.min(self.count);
    }
}

impl<T> Default for Undumped<T> {
    fn default() -> Self {
        Self {
            values: NonNull::dangling(),
            count: 0,
            _map: None,
        }
    }
}

impl<T> Deref for Undumped<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: the mapping is exclusive, aligned and large enough for the values. Each is zeros,
        // valid by `Zeroed`, or was written through `deref_mut`. For no values, any aligned pointer
        // is valid.
        unsafe { slice::from_raw_parts(self.values.as_ptr(), self.count) }
    }
}

impl<T> DerefMut for Undumped<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as in `deref`, and borrowed mutably.
        unsafe { slice::from_raw_parts_mut(self.values.as_ptr(), self.count) }
    }
}

impl<T> fmt::Debug for Undumped<T> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Undumped")
            .field("count", &self.count)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mapping::Mapping;

    /// Whether the mapping at this address, which the kernel may have merged, has the flag `dd`.
    fn is_excluded(address: usize) -> bool {
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let parse = |text: &str| usize::from_str_radix(text, 16).ok();
        let mut within = false;
        for line in smaps.lines() {
            let range = line.split(' ').next().and_then(|word| word.split_once('-'));
            if let Some((Some(start), Some(end))) = range.map(|(a, b)| (parse(a), parse(b))) {
                within = (start..end).contains(&address);
            } else if let Some(flags) = line.strip_prefix("VmFlags:")
                && within
            {
                return flags.split(' ').any(|flag| flag == "dd");
            }
        }
        panic!("{address:x} is not mapped");
    }

    #[test]
    fn memory_is_excluded_from_core_dumps_and_initially_zero() {
        let mut values: Undumped<[u8; 2048]> = Undumped::new(7).unwrap();
        assert!(values.iter().all(|value| *value == [0; 2048]));
        values[6].fill(9);
        assert!(is_excluded(values.as_ptr().addr()));
        values.truncate(6);
        assert_eq!(values.len(), 6);
        assert!(Undumped::<u8>::default().is_empty());
        assert!(is_excluded(Mapping::sparse(1).unwrap().address()));
        assert!(is_excluded(Mapping::anonymous(1, false).unwrap().address()));
    }
}
