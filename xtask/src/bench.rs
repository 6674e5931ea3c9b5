//! Micro-benchmarks.

use anyhow::Result;

use crate::build::workspace_cargo;
use crate::process;

pub(crate) fn bench() -> Result<()> {
    process::run(workspace_cargo("bench").args(["--package", "edge-bench"]))
}
