//! The client side of the protocol, in the order a transfer needs it. `docs/WIRE.md` specifies what
//! a client must do. Pure modules decide: time and datagrams are arguments. `socket` and `drive`
//! act.

/// HELLO and WELCOME: validates the path and obtains a cookie.
pub mod handshake;
/// Round-trip estimation and retransmission timeouts.
pub mod rtt;
/// How many segments may be in flight.
pub mod congestion;
/// Which chunk to fetch next: from the root down, left to right.
pub mod fetch_order;
/// One GET and its timeout.
mod request;
/// One chunk, assembled from its segments.
pub mod assembly;
/// One object from one edge: what to send, and what a response means.
pub mod transfer;
/// Why a transfer failed.
pub mod failure;
/// A connected UDP socket, and an eventfd that wakes its thread.
pub mod socket;
/// The current socket to an edge, and the last network error.
mod channel;
/// Whether the replies of a silent edge come from another address.
mod misrouted;
/// Tries the addresses of an edge and uses the first that answers.
pub mod connect;
/// Socket, clock and threads of a transfer.
pub mod drive;
/// Stops a transfer from another thread.
pub mod stop;
/// Measures round-trip times by handshakes.
pub mod ping;
/// Reads the counters of a running `edged`.
pub mod stat;
