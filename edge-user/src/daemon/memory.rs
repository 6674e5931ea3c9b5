//! Allocates memory, with or without hugepages as configured.

use std::io;

use super::cgroup::Resource;
use super::error::StartError;
use super::shortage::Shortage;
use crate::config::{Config, Hugepages};
use crate::sys::mapping::Mapping;

/// Populated memory for `what`.
pub(super) fn memory(what: &str, len_bytes: usize, config: &Config) -> Result<Mapping, StartError> {
    match config.store.hugepages {
        Hugepages::Require => {
            Mapping::anonymous(len_bytes, true).map_err(|error| StartError::Hugepages {
                what: what.to_owned(),
                shortage: Shortage::of_hugepages(len_bytes, error),
            })
        }
        Hugepages::Off => normal(what, len_bytes, Mapping::anonymous),
        Hugepages::Prefer => Mapping::anonymous(len_bytes, true).or_else(|error| {
            let shortage = Shortage::of_hugepages(len_bytes, error);
            tracing::warn!("{what} is in normal pages, not in hugepages: {shortage}");
            normal(what, len_bytes, |len_bytes, _| {
                Mapping::transparent(len_bytes)
            })
        }),
    }
}

fn normal(
    what: &str,
    len_bytes: usize,
    map: impl FnOnce(usize, bool) -> io::Result<Mapping>,
) -> Result<Mapping, StartError> {
    let missing = |shortage| StartError::Memory {
        what: what.to_owned(),
        shortage,
    };
    // Checked first: pages beyond the group's limit are not refused, but kill the process.
    if let Some(shortage) = Shortage::in_group(Resource::Memory, len_bytes) {
        return Err(missing(shortage));
    }
    map(len_bytes, false).map_err(|error| missing(Shortage::of_memory(len_bytes, error)))
}
