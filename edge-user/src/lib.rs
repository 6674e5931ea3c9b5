//! A request's way through Sealedge, top to bottom; then the reader's side; machinery last.
//! A module names only modules below it: `cargo xtask check` holds them to this order.

/// Puts the daemon together, and takes it apart.
#[cfg(feature = "server")]
pub mod daemon;
/// Request to answer: one policy for every front.
#[cfg(feature = "server")]
pub mod serve;
/// Gets chunks from origins, and writes them into the cache.
#[cfg(feature = "server")]
pub mod fetch;
/// Chunks in hugepages: one writer, many readers.
#[cfg(feature = "server")]
pub mod cache;
/// The admin API: socket, metrics, health.
#[cfg(feature = "server")]
pub mod admin;
/// The client side of the protocol: fetch, retransmit, verify.
#[cfg(feature = "reader")]
pub mod client;
/// Encryption, tickets, input and output files: the only code with access to a key. The server is
/// built without it (I11).
#[cfg(feature = "reader")]
pub mod seal;
/// The object format: everything that needs no key.
pub mod object;
/// A log that neither ends the daemon nor holds it up.
#[cfg(feature = "server")]
pub mod log;
/// What an operator can set, with its defaults.
#[cfg(feature = "server")]
pub mod config;
/// Interfaces and addresses of the host.
#[cfg(feature = "server")]
pub mod network;
/// What happened so far, as the operator sees it.
pub mod counters;
/// Every bound, related to the others by assertions.
#[cfg(feature = "server")]
pub mod limits;
/// Threads, where a limit may forbid them.
pub mod spawn;
/// Escapes untrusted text for terminals and logs.
pub mod terminal;
/// The kernel's interfaces: the only place `unsafe` is written.
#[cfg(feature = "server")]
pub mod sys;
/// The two clocks.
pub mod clock;
/// The atomics that order what threads share.
#[cfg(feature = "server")]
mod sync;

/// Version and commit this was built from.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("SEALEDGE_COMMIT"),
    ")"
);
