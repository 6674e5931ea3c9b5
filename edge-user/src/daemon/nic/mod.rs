//! One interface: its program, queues and sockets.

/// Puts the program on the interface, and hands out its maps.
pub mod program;
