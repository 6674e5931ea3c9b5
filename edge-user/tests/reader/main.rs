//! The reader from end to end, against an edge that can be told to misbehave: once over a link in
//! virtual time, once over real sockets.
#![cfg(feature = "reader")]

/// Objects to fetch.
mod object;
/// An edge that can be told to misbehave.
mod edge;
/// A path that loses, repeats and reorders, in virtual time.
mod link;
/// What a transfer makes of paths and answers, in virtual time.
mod transfer;
/// What a reader makes of edges, over sockets.
mod sockets;
/// What the program `edge` says and returns.
mod program;
/// Where it writes to.
mod destinations;
/// What it seals, and what it refuses to.
mod sources;
/// What is left of a key in its memory.
mod memory;
/// What it does with fewer threads and descriptors than it needs.
mod limits;
