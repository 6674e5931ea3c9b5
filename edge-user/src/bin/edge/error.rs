//! Why a command failed: one line that names the fix, and an exit code for scripts.

use std::fmt;
use std::io;
use std::process::ExitCode;

use edge_user::client::failure::Failure;
use edge_user::client::stat::StatError;
use edge_user::object::ticket::TicketError;
use edge_user::seal::destination::DestinationError;
use edge_user::seal::publish::{PublishError, PublishFailure};
use edge_user::seal::source::SourceError;

const FAILURE: u8 = 1;
const USAGE: u8 = 2;
const TRY_AGAIN: u8 = 75;
const PRIVILEGE: u8 = 77;
const CLOSED: u8 = 141;
/// End of an EMFILE message, from this program or a library.
const NO_DESCRIPTOR: &str = "(os error 24)";

pub(crate) struct CommandError {
    code: u8,
    message: String,
}

impl CommandError {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            code: FAILURE,
            message: message.into(),
        }
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self {
            code: USAGE,
            message: message.into(),
        }
    }

    /// A file cannot be read or written.
    pub(crate) fn file(action: &str, path: &std::path::Path, error: &io::Error) -> Self {
        Self::new(format!("cannot {action} {}: {error}", path.display()))
    }

    pub(crate) fn output(error: io::Error) -> Self {
        Self::new(format!("cannot write to standard output: {error}"))
    }

    /// Standard output was closed: no message, and the exit code of a process that SIGPIPE ended.
    pub(crate) fn closed() -> Self {
        Self {
            code: CLOSED,
            message: String::new(),
        }
    }

    /// Appends a consequence.
    pub(crate) fn and(mut self, consequence: &str) -> Self {
        self.message.push_str(consequence);
        self
    }

    pub(crate) fn with_edge(failure: &Failure, edge: &impl fmt::Display) -> Self {
        let code = if failure.is_temporary() {
            TRY_AGAIN
        } else {
            FAILURE
        };
        Self {
            code,
            message: format!("{edge}: {failure}"),
        }
    }

    pub(crate) fn is_silent(&self) -> bool {
        self.message.is_empty()
    }

    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(self.code)
    }
}

impl fmt::Display for CommandError {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.message)?;
        if self.message.contains(NO_DESCRIPTOR) {
            out.write_str(": raise the limit for open files (`ulimit -n`)")?;
        }
        Ok(())
    }
}

impl From<PublishFailure> for CommandError {
    fn from(error: PublishFailure) -> Self {
        Self::new(error.to_string())
    }
}

impl From<TicketError> for CommandError {
    fn from(error: TicketError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<PublishError> for CommandError {
    fn from(error: PublishError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<DestinationError> for CommandError {
    fn from(error: DestinationError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<SourceError> for CommandError {
    fn from(error: SourceError) -> Self {
        Self::new(error.to_string())
    }
}

impl From<StatError> for CommandError {
    fn from(error: StatError) -> Self {
        let code = match &error {
            StatError::NotAllowed { .. } => PRIVILEGE,
            StatError::Busy { .. } | StatError::Starting { .. } => TRY_AGAIN,
            StatError::Missing { .. }
            | StatError::Timeout { .. }
            | StatError::Http { .. }
            | StatError::Status { .. }
            | StatError::Content { .. } => FAILURE,
        };
        Self {
            code,
            message: error.to_string(),
        }
    }
}
