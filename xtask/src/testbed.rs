//! Builds and starts the demo and the scenarios.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Args;
use edge_testbed::{paths, process};

use crate::build;

#[derive(Args)]
#[command(disable_help_flag = true)]
pub(crate) struct Words {
    /// Arguments of the command; `--help` lists them
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS"
    )]
    words: Vec<OsString>,
}

/// Replaces this process, so that the program gets Ctrl-C and cleans up.
pub(crate) fn start(name: &str, words: &Words) -> Result<()> {
    build::build()?;
    build::release("edge-testbed")?;
    let mut command = Command::new(paths::release("edge-testbed"));
    command.arg(name).args(&words.words);
    eprintln!("+ {}", process::line(&command));
    Err(command.exec()).with_context(|| format!("cannot start: {}", process::line(&command)))
}
