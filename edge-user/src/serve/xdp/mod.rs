//! Answers steered requests, with one pinned thread for each RX queue.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// The worker's loop.
pub mod worker;
/// Parses a steered packet and decides on the answer.
pub mod classify;
/// The `xsk` transmitter.
pub mod transmit;
