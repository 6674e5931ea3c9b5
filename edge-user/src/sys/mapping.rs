//! Anonymous memory, with or without hugepages.

use std::io;
use std::ptr::NonNull;

use memmap2::{Advice, MmapMut, MmapOptions};

/// Hugepages of 2 MiB.
const HUGEPAGE_BITS: u8 = 21;
pub const HUGEPAGE_BYTES: usize = 1 << HUGEPAGE_BITS;

/// Anonymous memory, excluded from core dumps.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len_bytes: usize,
    hugepages: bool,
    /// Unmaps when dropped. All access goes through `base`.
    map: MmapMut,
}

// SAFETY: a mapping is plain memory and not tied to a thread. Its only users, `Slab` and `xsk`,
// control access to its parts.
unsafe impl Send for Mapping {}
// SAFETY: as above; a shared mapping returns addresses and no references.
unsafe impl Sync for Mapping {}

impl Mapping {
    /// Populated memory of `len_bytes`, rounded up to whole hugepages.
    pub fn anonymous(len_bytes: usize, hugepages: bool) -> io::Result<Self> {
        let mapping = Self::map(len_bytes, hugepages)?;
        mapping.populate()?;
        Ok(mapping)
    }

    /// Populated memory with transparent hugepages, as far as the kernel provides them.
    pub fn transparent(len_bytes: usize) -> io::Result<Self> {
        let mapping = Self::map(len_bytes, false)?;
        // Fails on kernels without transparent hugepages.
        let (Ok(()) | Err(_)) = mapping.map.advise(Advice::HugePage);
        mapping.populate()?;
        Ok(mapping)
    }

    /// Memory in normal pages, populated on first access: for tests that use little of each.
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

    /// Unlike `MAP_POPULATE`, this fails if pages are missing, instead of the first access raising
    /// `SIGBUS`.
    fn populate(&self) -> io::Result<()> {
        self.map.advise(Advice::PopulateWrite)
    }

    pub(in crate::sys) const fn base(&self) -> NonNull<u8> {
        self.base
    }

    /// The base address, for the kernel.
    pub(in crate::sys) fn address(&self) -> usize {
        self.base.as_ptr().expose_provenance()
    }

    pub const fn len_bytes(&self) -> usize {
        self.len_bytes
    }

    pub const fn hugepages(&self) -> bool {
        self.hugepages
    }
}
