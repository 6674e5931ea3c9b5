//! Sealed objects, from the publisher's file to the reader's. `docs/SEALING.md` is the normative
//! text. This is the only part of Sealedge that knows a key; the server never names it.

/// AES-256 in counter mode, and the key that goes with it.
pub mod cipher;
/// What a publisher hands to a reader: size, root, key.
pub mod ticket;
/// The file to seal.
pub mod source;
/// File to chunks at the origin.
pub mod publish;
/// Chunks back to plaintext.
pub mod open;
/// Where a command's output goes.
pub mod destination;
/// The reader's object: a file that appears when it is whole, or a stream.
pub mod output;
/// Files that were begun and may never be finished.
pub mod unfinished;

#[cfg(test)]
mod vector;
