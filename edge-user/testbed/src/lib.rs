//! The test environment of Sealedge: two namespaces and a link, hugepages, a daemon, and the
//! undoing of all changes to the host. `cargo xtask`, the scenarios and the tests use it.
#![expect(clippy::print_stderr, reason = "reports its changes to the host")]

/// Files, sealed and fetched.
pub mod objects;
/// A running `edged`.
pub mod daemon;
/// What a run borrows from the host and returns.
pub mod host_guard;
/// Two namespaces and the link between them.
pub mod bed;
/// A client that sends arbitrary requests.
#[cfg(feature = "packets")]
pub mod client;
/// A simulated edge.
#[cfg(feature = "packets")]
pub mod fake_edge;
/// Frames, built and parsed.
#[cfg(feature = "packets")]
pub mod packet;
/// Sends and receives whole frames.
pub mod raw_socket;
/// Reserves hugepages.
pub mod hugepages;
/// Records changes on disk, in case this process is killed.
pub mod undo_log;
/// Undoes what killed runs left.
pub mod cleanup;

/// Child processes.
pub mod process;
/// The user's privileges.
pub mod privileges;
/// Early ends of a command.
pub mod stop;
/// Waiting, and the time.
pub mod clock;
/// Open and closed loops of requests.
pub mod pace;
/// Processor time.
pub mod cpu;
/// Paths.
pub mod paths;
