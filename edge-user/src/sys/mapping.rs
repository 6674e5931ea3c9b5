//! Memory from the kernel, hugepages or not.

use std::io;
use std::ptr::NonNull;

use memmap2::{MmapMut, MmapOptions};

/// Size of the hugepages we ask for: 2 MiB, as a power of two.
const HUGEPAGE_BITS: u8 = 21;
/// Size of the hugepages we ask for.
pub const HUGEPAGE_BYTES: usize = 1 << HUGEPAGE_BITS;

/// Anonymous memory, all of it present from the start.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len_bytes: usize,
    hugepages: bool,
    /// Unmaps when dropped; never touched otherwise, all access goes through `base`.
    _map: MmapMut,
}

// SAFETY: a mapping is plain memory with no tie to a thread; who may touch which part of it is
// settled by its only users, `Slab` and `xsk`.
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared mapping gives out addresses, and no reference.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// At least `len_bytes`, rounded up to whole hugepages.
    pub fn anonymous(len_bytes: usize, hugepages: bool) -> io::Result<Self> {
        let len_bytes = len_bytes.next_multiple_of(HUGEPAGE_BYTES);
        let mut options = MmapOptions::new();
        options.len(len_bytes).populate();
        if hugepages {
            options.huge(Some(HUGEPAGE_BITS));
        }
        Self::map(&options, len_bytes, hugepages)
    }

    /// The same in small pages, present only where it is touched: for who makes many of these and
    /// uses little of each.
    pub fn sparse(len_bytes: usize) -> io::Result<Self> {
        let len_bytes = len_bytes.next_multiple_of(HUGEPAGE_BYTES);
        Self::map(MmapOptions::new().len(len_bytes), len_bytes, false)
    }

    fn map(options: &MmapOptions, len_bytes: usize, hugepages: bool) -> io::Result<Self> {
        let mut map = options.map_anon()?;
        let base = NonNull::new(map.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            base,
            len_bytes,
            hugepages,
            _map: map,
        })
    }

    pub(in crate::sys) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// As a number, for the kernel.
    pub(in crate::sys) fn address(&self) -> usize {
        self.base.as_ptr().expose_provenance()
    }

    pub const fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    /// Whether it lies in hugepages.
    pub const fn hugepages(&self) -> bool {
        self.hugepages
    }
}
