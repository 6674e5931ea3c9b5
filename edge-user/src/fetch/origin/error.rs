//! Why an origin did not give a chunk.

/// Why a fetch ended without its chunk.
#[derive(Debug)]
pub enum FetchError {
    /// It does not have it.
    Absent,
    /// It could not be asked, or not be read from; says why.
    Transient(String),
    /// What it has is not the chunk; says how.
    Corrupt(String),
}

/// Why one read of an origin ended without the chunk.
#[derive(Debug)]
pub enum ReadError {
    /// The origin has the chunk, and no slot was free to read it into: to be read again.
    NoSlot,
    Failed(FetchError),
}

impl From<FetchError> for ReadError {
    fn from(error: FetchError) -> Self {
        Self::Failed(error)
    }
}
