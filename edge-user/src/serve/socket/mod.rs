//! Answers all other requests, in one thread, from the cache or once the engine has the chunk.
//!
//! Nothing that arrives by socket is trusted: packets with IP options or extension headers,
//! fragments, and with `xdp.mode = "off"` all packets come here unchecked. They are checked by the
//! same code as in XDP.

/// The loop.
pub mod event_loop;
/// Handles datagrams, bounced requests and completed flights.
pub mod handler;
/// The `gso` transmitter.
pub mod gso;
/// Divides a burst into sends.
pub mod gather;
/// Which clients can be reached.
pub mod reach;
