//! Memory for generators and ceilings.

use std::io;

use edge_user::sys::mapping::Mapping;

/// In hugepages where there are some left, as the edge's is; who needs to know asks the mapping.
pub(crate) fn memory(len_bytes: usize) -> io::Result<Mapping> {
    Mapping::anonymous(len_bytes, true).or_else(|_| Mapping::anonymous(len_bytes, false))
}
