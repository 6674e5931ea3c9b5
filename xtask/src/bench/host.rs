//! What the machine is, as far as figures depend on it.

use anyhow::{Context as _, Result};
use edge_testbed::{paths, process};
use serde_json::{Value, json};

use super::testbed::Testbed;

pub(super) fn facts(testbed: &Testbed<'_>) -> Result<Value> {
    let edge = &testbed.bed.edge;
    // Offloads are those that the measured packets meet: without a program on the reader's end.
    testbed.pass(false)?;
    let mut host = edge.inside(paths::release("edge-bench"));
    let told = process::output(host.args(["host", "--interface", edge.link]));
    testbed.pass(true)?;
    let mut facts: Value =
        serde_json::from_str(&told?).context("`edge-bench host` gave no JSON")?;
    facts["rps"] = json!(format!(
        "server's end to CPU {}, generator's to CPU {}",
        testbed.cpus[0], testbed.cpus[1]
    ));
    Ok(facts)
}
