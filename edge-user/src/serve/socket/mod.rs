//! Answers what the program did not, and fills the cache on the way. One thread: the only writer
//! of the cache (I7).
//!
//! Nothing that arrives by socket is trusted. IP options, extension headers and fragments bring
//! unchecked datagrams here, and so does `xdp = "off"`: the same code as in XDP judges them.

/// The loop.
pub mod event_loop;
/// What becomes of one datagram, one bounced request, one fetched chunk.
pub mod handler;
/// One gathered send, cut into datagrams by the kernel.
pub mod gso;
/// Of which parts of a slot the sends of a burst are made.
pub mod gather;
/// Which clients can be reached.
pub mod reach;
