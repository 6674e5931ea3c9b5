//! Chunks in hugepages, stored as ready-made datagrams: one writer, many readers.
//!
//! A slot's life is `free → written → verified → resident → withdrawn → free`. Each state is a
//! type, so no step can be skipped. Readers hold leases (`lease::CacheView`).

/// The layout of a slot.
pub mod layout;
/// The readers' view of the cache.
pub mod lease;
/// Writes chunks into slots: packetise, then verify.
pub mod fill;
/// Updates the program's RESIDENT map.
pub mod publish;
/// The writer.
pub mod store;
/// Hash table from chunk id to slot.
mod index;
/// Each slot's generation, chunk id and length.
mod slot_table;
