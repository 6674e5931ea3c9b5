//! Answers what the program steered here: one pinned thread for each RX queue.
#![deny(clippy::indexing_slicing, clippy::arithmetic_side_effects)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

/// What a steered packet is answered with.
pub mod answer;
/// How answers leave: one small trait.
pub mod out;
/// By frames of the umem.
pub mod frames;
/// The loop.
pub mod worker;
