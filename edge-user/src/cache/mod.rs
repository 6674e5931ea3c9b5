//! Chunks in hugepages, as the datagrams they are sent as: one writer, many readers.
//!
//! A chunk's way in is `free → written → verified → resident`, its way out `resident → withdrawn
//! → free`; each state is a type, and there is no other way from one to the next. Readers have
//! leases (`lease::CacheView`).

/// Where a chunk lies in its slot.
pub mod layout;
/// What readers have of the cache.
pub mod lease;
/// Into a slot: packetise, then verify.
pub mod fill;
/// Into the program's map, and out of it.
pub mod publish;
/// The one that writes.
pub mod store;
/// From chunk id to slot.
mod index;
/// What readers see of a slot: which chunk, in which generation, how long.
mod slot_table;
