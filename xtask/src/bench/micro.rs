//! Times of the pure stages, by criterion.

use anyhow::Result;

use crate::build::workspace_cargo;
use crate::process;

pub(super) fn micro() -> Result<()> {
    process::run(workspace_cargo("bench").args(["--package", "edge-bench"]))
}
