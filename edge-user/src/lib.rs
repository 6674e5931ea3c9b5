//! A request's way through Sealedge, top to bottom; then the reader's side; machinery last.

/// Puts the daemon together, and takes it apart.
#[cfg(feature = "server")]
pub mod edge;
/// Puts the program on the interface, and hands out its maps.
#[cfg(feature = "server")]
pub mod attach;
/// Answers what the program steered here.
#[cfg(feature = "server")]
pub mod hit;
/// What a steered request falls into when its chunk was withdrawn meanwhile.
#[cfg(feature = "server")]
pub mod inbox;
/// Answers the rest, and fills the store on the way.
#[cfg(feature = "server")]
pub mod miss;
/// Turns a want set into sends of bytes that lie ready.
#[cfg(feature = "server")]
pub mod reply;
/// Chunks in hugepages: one writer, many readers.
#[cfg(feature = "server")]
pub mod store;
/// What an operator can set, with its defaults.
#[cfg(feature = "server")]
pub mod config;
/// What keeps a running edge from serving as it should.
#[cfg(feature = "server")]
pub mod health;
/// The operator's door: admin socket, metrics, health.
#[cfg(feature = "server")]
pub mod front;
/// Fetches, repairs, verifies: the reader's half of the protocol.
#[cfg(feature = "reader")]
pub mod client;
/// Encrypts, names, lists, opens: the only place that knows a key. The server is built without
/// it (I11).
#[cfg(feature = "reader")]
pub mod seal;
/// Where a chunk lies at an origin.
pub mod layout;
/// Threads, where a limit may forbid them.
pub mod spawn;
/// Foreign text, as it may stand on a terminal.
pub mod terminal;
/// What happened so far, as the operator sees it.
pub mod counters;
/// Every bound, related to the others by assertions.
#[cfg(feature = "server")]
pub mod limits;
/// The atomics that order what threads share.
#[cfg(feature = "server")]
mod sync;
/// A log that neither ends the daemon nor holds it up.
#[cfg(feature = "server")]
pub mod log;
/// The two clocks.
pub mod clock;
/// Interfaces and addresses of the host.
#[cfg(feature = "server")]
pub mod network;
/// The kernel's interfaces: the only place `unsafe` is written.
#[cfg(feature = "server")]
pub mod sys;

/// Version and commit this was built from.
pub const VERSION: &str = concat!(
    env!("CARGO_PKG_VERSION"),
    " (",
    env!("SEALEDGE_COMMIT"),
    ")"
);
