//! Sealed objects, from the publisher's file to the reader's. `docs/SEALING.md` is normative. This is
//! the only code with access to a key; the server does not use it.

/// AES-256 in counter mode, and its key.
pub mod cipher;
/// Tickets: size, root and key of an object.
pub mod ticket;
/// The file to seal.
pub mod source;
/// Encrypts a file and uploads its chunks.
pub mod publish;
/// Decrypts chunks.
pub mod open;
/// Where the output of a command goes.
pub mod destination;
/// The decrypted object: a file that appears when it is complete, or a stream.
pub mod output;
/// Files without a name until they are complete.
pub mod temp_file;

#[cfg(test)]
mod test_vector;
