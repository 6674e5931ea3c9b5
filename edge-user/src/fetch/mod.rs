//! Gets chunks from origins.

/// At most one fetch for each chunk, and who waits for it.
pub mod flights;
/// Whose request it is.
pub mod source;
/// Which origin is asked for which chunk, and for how long.
pub mod schedule;
/// Who is next, when a thread is free.
mod fair_queue;
/// Where chunks come from.
pub mod origin;
