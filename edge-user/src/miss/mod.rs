//! Answers what the program did not, and fills the store on the way. One thread: the only writer
//! of the store (I7).
//!
//! Nothing that arrives by socket is trusted. IP options, extension headers and fragments bring
//! unchecked datagrams here, and so does `xdp = "off"`: the same code as in XDP judges them.

/// Keys of the cookie epochs.
pub mod cookies;
/// At most one fetch for each chunk, and who waits for it.
pub mod flight;
/// Where chunks come from.
pub mod origin;
/// What becomes of one datagram, one bounced request, one fetched chunk.
pub mod desk;
/// The loop.
pub mod path;
