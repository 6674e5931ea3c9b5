//! Answers what the program did not, and fills the store on the way. One thread: the only writer
//! of the store (I7).
//!
//! Nothing that arrives by socket is trusted. IP options, extension headers and fragments bring
//! unchecked datagrams here, and so does `xdp = "off"`: the same code as in XDP judges them.

/// Keys of the cookie epochs.
pub mod cookies;
/// At most one fetch for each chunk, and who waits for it.
pub mod flight;
/// Whose request it is.
pub mod source;
/// Which origin is asked for which chunk, and for how long.
pub mod fetch;
/// Who is next, when a thread is free.
mod turns;
/// The threads that read origins.
pub mod origin;
/// An origin that is a local directory.
pub mod directory;
/// What becomes of one datagram, one bounced request, one fetched chunk.
pub mod desk;
/// The loop.
pub mod path;
