//! Fetches chunks from origins and writes them into the cache.

/// The only writer of the cache: commands in, completions out.
pub mod engine;
/// A front's interface to the engine.
pub mod front;
/// At most one fetch for each chunk of a front, and its waiters.
pub mod flights;
/// Request sources and their shares.
pub mod source;
/// Which origin to read which chunk from, and for how long.
pub mod schedule;
/// Chunks waiting for a thread, in a round robin over sources.
mod fair_queue;
/// Origins and the threads that read from them.
pub mod origin;
