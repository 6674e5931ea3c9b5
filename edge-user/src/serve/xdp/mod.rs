//! Answers what the program steered here: one pinned thread for each RX queue.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// The loop.
pub mod worker;
/// What a steered packet is answered with.
pub mod classify;
/// By frames of the umem.
pub mod transmit;
