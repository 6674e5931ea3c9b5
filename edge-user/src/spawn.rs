//! Threads, where a limit may forbid them.

use std::io;

/// The refusal to start a thread, with the limits that are its usual cause.
pub fn refused(error: io::Error) -> io::Error {
    let message = format!(
        "cannot start a thread: {error}: raise the limit of processes (`ulimit -u`, or pids.max \
         of the cgroup)"
    );
    io::Error::new(error.kind(), message)
}
