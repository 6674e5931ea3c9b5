//! Where Sealedge is tried: two namespaces and a link, hugepages, a daemon, and what they change
//! on the machine, put back whatever happens. `cargo xtask`, the scenarios and the tests use it.
#![expect(
    clippy::print_stderr,
    reason = "shows people what it does to the machine"
)]

/// Files, sealed and fetched.
pub mod objects;
/// One running `edged`.
pub mod daemon;
/// What a run borrows from the machine and gives back.
pub mod host_guard;
/// Two namespaces and the link between them.
pub mod bed;
/// A client that asks for what it likes.
#[cfg(feature = "packets")]
pub mod client;
/// A server that is no edge.
#[cfg(feature = "packets")]
pub mod fake_edge;
/// Frames, made and read.
#[cfg(feature = "packets")]
pub mod packet;
/// Whole frames, in and out.
pub mod raw_socket;
/// Memory in large pages.
pub mod hugepages;
/// What was changed, on disk, in case this process is killed.
pub mod undo_log;
/// Puts back what killed runs left.
pub mod cleanup;

/// Child processes.
pub mod process;
/// The user's privileges.
pub mod privileges;
/// Why and how a command ends early.
pub mod stop;
/// Waiting.
pub mod clock;
/// How requests are spread over time.
pub mod pace;
/// Processor time.
pub mod cpu;
/// Where things are.
pub mod paths;
