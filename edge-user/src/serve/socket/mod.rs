//! Answers what the program did not, in one thread, from the cache or once the engine has the chunk.
//!
//! Nothing that arrives by socket is trusted. IP options, extension headers and fragments bring
//! unchecked datagrams here, and so does `xdp = "off"`: the same code as in XDP judges them.

/// The loop.
pub mod event_loop;
/// What becomes of one datagram, one bounced request, one flight that landed.
pub mod handler;
/// One gathered send, cut into datagrams by the kernel.
pub mod gso;
/// Of which parts of a slot the sends of a burst are made.
pub mod gather;
/// Which clients can be reached.
pub mod reach;
