//! Updates the program's RESIDENT map.

use std::fmt::Debug;

use aya::maps::{HashMap, MapData, MapError};
use edge_ebpf::maps::Resident;
use edge_ebpf::wire::ChunkId;

use crate::sys::bpf::{ChunkIdKey, ResidentValue};

/// The program's RESIDENT map.
pub trait ResidentMap: Debug + Send {
    fn insert(&mut self, id: &ChunkId, resident: Resident) -> Result<(), MapError>;
    fn remove(&mut self, id: &ChunkId) -> Result<(), MapError>;
}

impl ResidentMap for HashMap<MapData, ChunkIdKey, ResidentValue> {
    fn insert(&mut self, id: &ChunkId, resident: Resident) -> Result<(), MapError> {
        Self::insert(self, ChunkIdKey(*id), ResidentValue(resident), 0)
    }

    fn remove(&mut self, id: &ChunkId) -> Result<(), MapError> {
        Self::remove(self, &ChunkIdKey(*id))
    }
}

/// Writes to the RESIDENT map; does nothing when XDP is off.
#[derive(Debug)]
pub struct Publisher {
    map: Option<Box<dyn ResidentMap>>,
    failures: u64,
}

impl Publisher {
    pub const fn none() -> Self {
        Self {
            map: None,
            failures: 0,
        }
    }

    pub fn to(map: impl ResidentMap + 'static) -> Self {
        Self {
            map: Some(Box::new(map)),
            failures: 0,
        }
    }

    /// If this fails, the socket front serves the chunk.
    pub(super) fn insert(&mut self, id: &ChunkId, resident: Resident) {
        if let Some(map) = &mut self.map
            && map.insert(id, resident).is_err()
        {
            self.failures += 1;
        }
    }

    /// If this fails, the stale entry is a hint that no slot confirms (I5).
    pub(super) fn remove(&mut self, id: &ChunkId) {
        if let Some(map) = &mut self.map
            && map.remove(id).is_err()
        {
            self.failures += 1;
        }
    }

    pub(super) const fn failures(&self) -> u64 {
        self.failures
    }
}
