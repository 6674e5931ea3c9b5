//! Errors of starting threads.

use std::io;

/// Adds the usual cause, a process limit, to the error.
pub fn refused(error: io::Error) -> io::Error {
    let message = format!(
        "cannot start a thread: {error}: raise the process limit (`ulimit -u`, or pids.max of the \
         control group)"
    );
    io::Error::new(error.kind(), message)
}
