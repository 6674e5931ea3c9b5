//! Gets chunks from origins, and writes them into the cache.

/// The only writer of the cache: commands in, completions out. Knows no front.
pub mod engine;
/// A front's end of the engine.
pub mod front;
/// At most one fetch for each chunk of a front, and who waits for it.
pub mod flights;
/// Whose request it is.
pub mod source;
/// Which origin is asked for which chunk, and for how long.
pub mod schedule;
/// Who is next, when a thread is free.
mod fair_queue;
/// Where chunks come from.
pub mod origin;
