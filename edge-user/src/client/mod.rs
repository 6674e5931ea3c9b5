//! The reader's half of the protocol, in the order a transfer needs it. `docs/WIRE.md` says what
//! a client owes an edge. What decides stands in pure modules: time and datagrams come in as
//! values. What acts (`socket`, `drive`) has no opinions.

/// The exchange that proves the path and gives the cookie.
pub mod greeting;
/// How long to wait, and how much to ask for at once.
pub mod pace;
/// Which chunk comes next: from the root down, left to right.
pub mod walk;
/// A GET, and when to give it up.
mod request;
/// One chunk, put together from its segments.
pub mod assembly;
/// One object from one edge: what to send, and what an answer means.
pub mod transfer;
/// Why a transfer ended without its object.
pub mod failure;
/// A UDP socket that only hears its edge, and a bell to wake who waits on it.
pub mod socket;
/// The way to an edge: one socket at a time, and what the network says against it.
mod line;
/// Whether a silent edge's answers come from elsewhere.
mod stray;
/// Greets the addresses of an edge in turn, for the first that answers.
pub mod reach;
/// Socket, clock and threads around a transfer.
pub mod drive;
/// The end of a transfer, from another thread.
pub mod stop;
/// Round trips, measured by greeting.
pub mod ping;
/// Asks a running `edged` what it has counted.
pub mod stat;
