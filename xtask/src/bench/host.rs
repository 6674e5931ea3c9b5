//! What the machine is, as far as figures depend on it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::field::Field;
use crate::ground;
use crate::process;

/// Those that decide who cuts and who sums.
const OFFLOADS: &[&str] = &[
    "tx-checksumming",
    "scatter-gather",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "tx-udp-segmentation",
];

pub(super) fn facts(field: &Field<'_>) -> Result<Value> {
    let edge = &field.ground.edge;
    let ethtool = process::find("ethtool").context("ethtool is not installed")?;
    field.pass(false)?;
    let mut features = ground::inside(edge, &ethtool);
    let features = process::output(features.args(["-k", edge.link]));
    field.pass(true)?;
    let features = features?;
    let offloads: BTreeMap<&str, bool> = features
        .lines()
        .filter_map(|line| line.trim().split_once(": "))
        .filter(|(name, _)| OFFLOADS.contains(name))
        .map(|(name, state)| (name, state.starts_with("on")))
        .collect();
    let mut driver = ground::inside(edge, &ethtool);
    let driver = process::output(driver.args(["-i", edge.link]))?;
    let mut mtu = ground::inside(edge, Path::new("/bin/cat"));
    let mtu = process::output(mtu.arg(format!("/sys/class/net/{}/mtu", edge.link)))?;
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let memory_kib: u64 = value(&meminfo, "MemTotal")
        .and_then(|text| text.split(' ').next()?.parse().ok())
        .unwrap_or(0);
    let release = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(json!({
        "cpus": cpuinfo.lines().filter(|line| line.starts_with("processor")).count(),
        "cpu_model": value(&cpuinfo, "model name").unwrap_or("unknown"),
        "memory_bytes": memory_kib << 10,
        "kernel": release.trim(),
        "driver": value(&driver, "driver").unwrap_or("unknown"),
        "mtu_bytes": mtu.trim().parse::<u32>().unwrap_or(0),
        "queues": 1,
        "offloads": offloads,
        "rps": format!("server's end to CPU {}, generator's to CPU {}", field.cpus[0], field.cpus[1]),
        "virtual": value(&cpuinfo, "flags").is_some_and(|flags| flags.contains(" hypervisor")),
    }))
}

/// What stands behind a name and a colon.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim())
    })
}
