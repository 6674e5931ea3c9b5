//! Modules in the order a request meets them, then the client side, then the machinery. A module
//! uses only modules below it; `cargo xtask check` enforces this.

/// Starts and stops the daemon.
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
/// A log that never blocks or ends the daemon.
#[cfg(feature = "server")]
pub mod log;
/// The configuration and its defaults.
#[cfg(feature = "server")]
pub mod config;
/// Interfaces and addresses of the host.
#[cfg(feature = "server")]
pub mod network;
/// Counters and their snapshot for the operator.
pub mod counters;
/// Every bound, related to the others by assertions.
#[cfg(feature = "server")]
pub mod limits;
/// Errors of starting threads.
pub mod spawn;
/// Escapes untrusted text for terminals and logs.
pub mod terminal;
/// Kernel interfaces: the only module with `unsafe`.
#[cfg(feature = "server")]
pub mod sys;
/// Wakes a sleeping thread.
pub mod event_fd;
/// The monotonic clock and the wall clock.
pub mod clock;
/// The atomics that order shared data.
#[cfg(feature = "server")]
mod sync;

/// Version and commit this was built from.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("SEALEDGE_COMMIT"),
    ")"
);
