//! What the machine is, as far as figures depend on it.

use anyhow::{Context as _, Result};
use edge_testbed::{place, process};
use serde_json::{Value, json};

use super::field::Field;

pub(super) fn facts(field: &Field<'_>) -> Result<Value> {
    let edge = &field.bed.edge;
    // Offloads are those that the measured packets meet: without a program on the reader's end.
    field.pass(false)?;
    let mut host = edge.inside(place::release("edge-bench"));
    let told = process::output(host.args(["host", "--interface", edge.link]));
    field.pass(true)?;
    let mut facts: Value =
        serde_json::from_str(&told?).context("`edge-bench host` gave no JSON")?;
    facts["rps"] = json!(format!(
        "server's end to CPU {}, generator's to CPU {}",
        field.cpus[0], field.cpus[1]
    ));
    Ok(facts)
}
