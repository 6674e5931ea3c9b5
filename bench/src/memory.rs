//! Memory for generators and ceilings.

use std::io;

use edge_user::sys::mapping::Mapping;

/// Hugepages if available, as for the edge's arena; the mapping knows which.
pub(crate) fn memory(len_bytes: usize) -> io::Result<Mapping> {
    Mapping::anonymous(len_bytes, true).or_else(|_| Mapping::anonymous(len_bytes, false))
}
