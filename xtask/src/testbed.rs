//! The demo and the scenarios: programs beside the code they try, built and started here.

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
    /// Passed on; `--help` lists them
    #[arg(
        trailing_var_arg = true,
        allow_hyphen_values = true,
        value_name = "OPTIONS"
    )]
    words: Vec<OsString>,
}

/// Becomes the program, so that it is the one that hears Ctrl-C and answers for what it changes.
pub(crate) fn start(name: &str, words: &Words) -> Result<()> {
    build::build()?;
    build::release("edge-testbed")?;
    let mut command = Command::new(paths::release("edge-testbed"));
    command.arg(name).args(&words.words);
    eprintln!("+ {}", process::line(&command));
    Err(command.exec()).with_context(|| format!("cannot start: {}", process::line(&command)))
}
