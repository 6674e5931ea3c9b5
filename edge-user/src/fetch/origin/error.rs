//! Why an origin did not give a chunk.

/// Why an origin did not give a chunk.
#[derive(Debug)]
pub enum FetchError {
    /// It does not have it.
    Absent,
    /// It could not be asked, or not be read from; says why.
    Transient(String),
    /// What it has is not the chunk; says how.
    Corrupt(String),
    /// It has the chunk, and no slot was free to read it into.
    NoSlot,
}
