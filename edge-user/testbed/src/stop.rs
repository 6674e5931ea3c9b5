//! Early ends of a command, and the signals that cause them.

use std::fmt;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::flag;

/// Exit code of an interrupted command, as in shells.
pub const INTERRUPTED: u8 = 130;
/// Exit code of a command without the required privileges.
pub const NO_RIGHTS: u8 = 77;

/// An end with its own exit code.
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

/// From here on SIGINT, SIGTERM and SIGHUP only set a flag, which every wait checks; the guards
/// undo all changes on the way out.
pub fn listen() -> Result<()> {
    let came = CAME.get_or_init(Arc::default);
    for signal in [SIGINT, SIGTERM, SIGHUP] {
        let _id = flag::register(signal, Arc::clone(came)).context("cannot listen for signals")?;
    }
    Ok(())
}

/// The exit code of a program: prints an error, and a `Stop` has its own code.
pub fn exit_code(result: Result<()>) -> ExitCode {
    let Err(error) = result else {
        return ExitCode::SUCCESS;
    };
    eprintln!("error: {error:#}");
    ExitCode::from(error.downcast_ref::<Stop>().map_or(1, |stop| stop.code))
}

/// Whether the program was asked to end.
pub fn came() -> bool {
    CAME.get().is_some_and(|came| came.load(Ordering::Relaxed))
}
