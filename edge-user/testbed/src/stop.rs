//! Why a command ends early, and the signals that end it.

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit code of a command that was interrupted, as shells have it.
pub const INTERRUPTED: u8 = 130;
/// Exit code of a command that lacks the rights it needs.
pub const NO_RIGHTS: u8 = 77;

/// An end with an exit code of its own.
#[derive(Debug)]
pub struct Stop {
    pub code: u8,
    message: String,
}

impl Stop {
    pub fn interrupted() -> anyhow::Error {
        let message = String::from("interrupted; everything this run changed was put back");
        Self {
            code: INTERRUPTED,
            message,
        }
        .into()
    }

    pub fn no_rights(what: &str, line: &str) -> anyhow::Error {
        let message = format!("{what} needs root. Type:\n  {line}");
        Self {
            code: NO_RIGHTS,
            message,
        }
        .into()
    }
}

impl fmt::Display for Stop {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.message)
    }
}

impl std::error::Error for Stop {}

static CAME: OnceLock<Arc<AtomicBool>> = OnceLock::new();

/// From here on SIGINT, SIGTERM and SIGHUP only raise a flag: whoever waits looks at it, and the
/// guards on the way up put everything back.
pub fn listen() -> Result<()> {
    let came = CAME.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let _id = flag::register(signal, Arc::clone(came)).context("cannot listen for signals")?;
    }
    Ok(())
}

/// How a program ends: an error is shown, and a `Stop` has an exit code of its own.
pub fn exit_code(result: Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error:#}");
    ExitCode::from(error.downcast_ref::<Stop>().map_or(1, |stop| stop.code))
}

/// Whether somebody asked for an end.
pub fn came() -> bool {
    CAME.get().is_some_and(|came| came.load(Ordering::Relaxed))
}
