//! Memory that no core dump holds: for what names clients, and for secrets.

use std::fmt;
use std::io;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::slice;

use memmap2::{Advice, MmapMut};

/// A fixed number of values, zeros at first, in memory of its own.
pub struct Undumped<T> {
    values: NonNull<T>,
    count: usize,
    /// Keeps the values mapped; nothing for none.
    _map: Option<MmapMut>,
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
        let mut map = MmapMut::map_anon((count * size_of::<T>()).max(1))?;
        map.advise(Advice::DontDump)?;
        let values = NonNull::new(map.as_mut_ptr().cast()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            values,
            count,
            _map: Some(map),
        })
    }

    /// Keeps only the first values.
    pub fn truncate(&mut self, count: usize) {
        self.count = count.min(self.count);
    }
}

/// No values.
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
        // SAFETY: the mapping of `new` has room for the values and begins aligned, and each is zeros, a
        // value by `Zeroed`, or what was written through `deref_mut`; it is ours alone. For none, any
        // aligned pointer will do.
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

    /// Whether the mapping with this address, which the kernel may have joined to another, is marked.
    fn is_left_out(address: usize) -> bool {
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
    fn what_must_not_be_dumped_is_marked_and_begins_as_zeros() {
        let mut values: Undumped<[u8; 2048]> = Undumped::new(7).unwrap();
        assert!(values.iter().all(|value| *value == [0; 2048]));
        values[6].fill(9);
        assert!(is_left_out(values.as_ptr().addr()));
        values.truncate(6);
        assert_eq!(values.len(), 6);
        assert!(Undumped::<u8>::default().is_empty());
        assert!(is_left_out(Mapping::sparse(1).unwrap().address()));
        assert!(is_left_out(Mapping::anonymous(1, false).unwrap().address()));
    }
}
