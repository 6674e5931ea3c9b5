//! The facts about a host and its interface that figures depend on.

use std::collections::BTreeMap;
use std::fs;
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use edge_testbed::process;
use nix::ifaddrs::getifaddrs;
use serde_json::{Value, json};

use crate::report::model;

/// Offloads that decide who segments packets and who computes checksums.
const OFFLOADS: &[&str] = &[
    "tx-checksumming",
    "scatter-gather",
    "tcp-segmentation-offload",
    "generic-segmentation-offload",
    "generic-receive-offload",
    "tx-udp-segmentation",
];
/// Prints the facts about this host that a report contains, as a JSON object.
#[derive(Args)]
pub struct Host {
    /// Interface used for the measurement
    #[arg(long, value_parser = clap::builder::NonEmptyStringValueParser::new())]
    interface: String,
}

pub fn host(options: &Host) -> Result<Value> {
    Ok(serde_json::to_value(facts(&options.interface)?)?)
}

/// Of this host and this interface.
pub fn facts(interface: &str) -> Result<model::Host> {
    let link = Path::new("/sys/class/net").join(interface);
    if !link.exists() {
        bail!("there is no interface {interface}; `ip link` lists them");
    }
    let cpuinfo = fs::read_to_string("/proc/cpuinfo").context("cannot read /proc/cpuinfo")?;
    let meminfo = fs::read_to_string("/proc/meminfo").context("cannot read /proc/meminfo")?;
    let memory_kib = value(&meminfo, "MemTotal").and_then(|text| text.split(' ').next());
    let cpus = cpuinfo
        .lines()
        .filter(|line| line.starts_with("processor"))
        .count();
    let ethtool = process::find("ethtool");
    let mut other = BTreeMap::from([
        ("interface".to_owned(), json!(interface)),
        (
            "virtual".to_owned(),
            json!(value(&cpuinfo, "flags").is_some_and(|flags| flags.contains(" hypervisor"))),
        ),
    ]);
    if let Some(kib) = memory_kib.and_then(|text| text.parse::<u64>().ok()) {
        other.insert("memory_bytes".to_owned(), json!(kib << 10));
    }
    if let Some(speed) = speed_mbit(&link) {
        other.insert("link_mbit".to_owned(), json!(speed));
    }
    if ethtool.is_none() {
        let remark = "unknown: ethtool is not installed";
        other.insert("offloads_remark".to_owned(), json!(remark));
    }
    let asked = |option| {
        let ethtool = ethtool.as_ref()?;
        answer(Command::new(ethtool).args([option, interface]))
    };
    let driver = asked("-i").and_then(|text| value(&text, "driver").map(str::to_owned));
    Ok(model::Host {
        cpus: cpus.try_into()?,
        cpu_model: value(&cpuinfo, "model name").unwrap_or("unknown").into(),
        kernel: word(Path::new("/proc/sys/kernel/osrelease"))?,
        driver: driver
            .or_else(|| driver_of(&link))
            .unwrap_or_else(|| "unknown".into()),
        mtu_bytes: word(&link.join("mtu"))?.parse()?,
        queues: receive_queues(&link)?,
        offloads: asked("-k").map_or_else(BTreeMap::new, |text| offloads(&text)),
        other,
    })
}

/// The interface that packets to this address leave by.
pub fn interface_to(target: SocketAddr) -> Result<String> {
    let any: SocketAddr = match target {
        SocketAddr::V4(_) => ([0, 0, 0, 0], 0).into(),
        SocketAddr::V6(_) => ([0_u16; 8], 0).into(),
    };
    let socket = UdpSocket::bind(any).context("cannot open a UDP socket")?;
    socket
        .connect(target)
        .with_context(|| format!("cannot reach {target}"))?;
    let own = socket.local_addr()?.ip();
    let mut addresses = getifaddrs().context("cannot list the interfaces")?;
    let found = addresses.find(|entry| {
        let address = entry.address.as_ref();
        let ipv4 = address.and_then(|address| Some(IpAddr::V4(address.as_sockaddr_in()?.ip())));
        let ipv6 = address.and_then(|address| Some(IpAddr::V6(address.as_sockaddr_in6()?.ip())));
        ipv4.or(ipv6) == Some(own)
    });
    let found = found.with_context(|| format!("no interface has our address {own}"))?;
    Ok(found.interface_name)
}

/// The output of a program, if it succeeds.
fn answer(command: &mut Command) -> Option<String> {
    let output = command.output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then_some(text)
}

/// From the output of `ethtool -k`.
fn offloads(text: &str) -> BTreeMap<String, bool> {
    text.lines()
        .filter_map(|line| line.trim().split_once(": "))
        .filter(|(name, _)| OFFLOADS.contains(name))
        .map(|(name, state)| (name.to_owned(), state.starts_with("on")))
        .collect()
}

/// The driver; virtual interfaces have none.
fn driver_of(link: &Path) -> Option<String> {
    let driver = fs::read_link(link.join("device/driver")).ok()?;
    Some(driver.file_name()?.to_string_lossy().into_owned())
}

/// The speed of a device with a carrier: virtual interfaces report a meaningless one.
fn speed_mbit(link: &Path) -> Option<u32> {
    if !link.join("device").exists() {
        return None;
    }
    let text = fs::read_to_string(link.join("speed")).ok()?;
    text.trim().parse().ok().filter(|speed| *speed > 0)
}

fn receive_queues(link: &Path) -> Result<u32> {
    let folder = link.join("queues");
    let mut count = 0;
    for entry in
        fs::read_dir(&folder).with_context(|| format!("cannot read {}", folder.display()))?
    {
        count += u32::from(entry?.file_name().to_string_lossy().starts_with("rx-"));
    }
    Ok(count)
}

/// The first word of a file in /sys or /proc.
fn word(file: &Path) -> Result<String> {
    let text =
        fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    Ok(text.trim().to_owned())
}

/// The value behind a name and a colon.
fn value<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (found, value) = line.split_once(':')?;
        (found.trim() == name).then(|| value.trim())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_loopback_interface_has_facts() {
        assert_eq!(interface_to(([127, 0, 0, 1], 9).into()).unwrap(), "lo");
        let host = facts("lo").unwrap();
        assert!(host.cpus > 0 && host.mtu_bytes >= 1500 && host.queues > 0);
        assert!(!host.kernel.contains('\n'));
        assert_eq!(host.other.get("link_mbit"), None);
        let error = facts("no such link").unwrap_err().to_string();
        assert!(error.contains("there is no interface"), "{error}");
    }

    #[test]
    fn offloads_that_matter_are_on_or_off() {
        let text = "Features for edge0:\nrx-checksumming: on\ntx-checksumming: on\n\
                    \ttx-checksum-ipv4: off [fixed]\ngeneric-receive-offload: off [requested on]\n";
        let wanted = [
            ("generic-receive-offload", false),
            ("tx-checksumming", true),
        ];
        assert_eq!(
            offloads(text),
            wanted.map(|(name, on)| (name.to_owned(), on)).into()
        );
    }
}
