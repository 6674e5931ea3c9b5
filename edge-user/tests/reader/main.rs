//! The reader from end to end, against an edge with configurable faults: over a simulated link in
//! virtual time, and over real sockets.
#![cfg(feature = "reader")]

/// Objects to fetch.
mod object;
/// An edge with configurable faults.
mod edge;
/// A path with loss, duplication and reordering, in virtual time.
mod link;
/// Transfers over such paths, in virtual time.
mod transfer;
/// Transfers over sockets.
mod sockets;
/// Output and exit codes of `edge`.
mod program;
/// Its output files.
mod destinations;
/// The files it seals and refuses.
mod sources;
/// Keys in its memory.
mod memory;
/// `edge` with too few threads and descriptors.
mod limits;
