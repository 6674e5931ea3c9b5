//! Errors of fetches and reads.

/// Why a fetch failed.
#[derive(Debug)]
pub enum FetchError {
    /// No origin has the chunk.
    Absent,
    /// An origin could not be read, for this reason.
    Transient(String),
    /// An origin's file is not the chunk, for this reason.
    Corrupt(String),
}

/// Why one read of an origin failed.
#[derive(Debug)]
pub enum ReadError {
    /// The origin has the chunk, but no slot was free. The read has to be repeated.
    NoSlot,
    Failed(FetchError),
}

impl From<FetchError> for ReadError {
    fn from(error: FetchError) -> Self {
        Self::Failed(error)
    }
}
