//! Times of the pure stages, by criterion.

use anyhow::Result;
use edge_testbed::process;

use crate::build::workspace_cargo;

pub(super) fn micro() -> Result<()> {
    process::run(workspace_cargo("bench").args(["--package", "edge-bench"]))
}
