//! Memory from the kernel, hugepages or not.

use std::io;
use std::ptr::NonNull;

use memmap2::{Advice, MmapMut, MmapOptions};

/// Size of the hugepages we ask for: 2 MiB, as a power of two.
const HUGEPAGE_BITS: u8 = 21;
/// Size of the hugepages we ask for.
pub const HUGEPAGE_BYTES: usize = 1 << HUGEPAGE_BITS;

/// Anonymous memory, all of it present from the start, and left out of core dumps.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len_bytes: usize,
    hugepages: bool,
    /// Unmaps when dropped; its bytes are never touched, all access goes through `base`.
    map: MmapMut,
}

// SAFETY: a mapping is plain memory with no tie to a thread; who may touch which part of it is
// settled by its only users, `Slab` and `xsk`.
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared mapping gives out addresses, and no reference.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// At least `len_bytes`, rounded up to whole hugepages.
    pub fn anonymous(len_bytes: usize, hugepages: bool) -> io::Result<Self> {
        let mapping = Self::map(len_bytes, hugepages)?;
        mapping.populate()?;
        Ok(mapping)
    }

    /// The same in normal pages, which the kernel is asked to join to hugepages as far as it can.
    pub fn transparent(len_bytes: usize) -> io::Result<Self> {
        let mapping = Self::map(len_bytes, false)?;
        // Refused by kernels that have none, and then the pages stay small.
        let (Ok(()) | Err(_)) = mapping.map.advise(Advice::HugePage);
        mapping.populate()?;
        Ok(mapping)
    }

    /// The same in small pages, present only where it is touched: for who makes many of these and
    /// uses little of each.
    pub fn sparse(len_bytes: usize) -> io::Result<Self> {
        Self::map(len_bytes, false)
    }

    fn map(len_bytes: usize, hugepages: bool) -> io::Result<Self> {
        let len_bytes = len_bytes.next_multiple_of(HUGEPAGE_BYTES);
        let mut options = MmapOptions::new();
        options.len(len_bytes);
        if hugepages {
            options.huge(Some(HUGEPAGE_BITS));
        }
        let mut map = options.map_anon()?;
        map.advise(Advice::DontDump)?;
        let base = NonNull::new(map.as_mut_ptr()).ok_or(io::ErrorKind::OutOfMemory)?;
        Ok(Self {
            base,
            len_bytes,
            hugepages,
            map,
        })
    }

    /// Has every page there. Unlike `MAP_POPULATE` this fails where there is none, and does not leave
    /// it to the first access to end the process.
    fn populate(&self) -> io::Result<()> {
        self.map.advise(Advice::PopulateWrite)
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
