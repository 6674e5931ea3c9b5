//! The edge on a network interface, until Ctrl-C.

use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use edge_testbed::{
    bed::PORT,
    clock,
    daemon::{self, Daemon, SENDERS, Settings},
    host_guard::HostGuard,
    paths, privileges, stop,
};

use crate::build;

#[derive(Args)]
pub(crate) struct Run {
    /// Interface to attach the XDP program to
    #[arg(long)]
    interface: String,
    /// Service address; the port defaults to 7347. Repeat for IPv6
    #[arg(long, required = true, value_name = "ADDR", value_parser = service)]
    listen: Vec<SocketAddr>,
    /// Origin folder, filled by `edge seal --origin`
    #[arg(long)]
    origin: PathBuf,
    /// XDP mode
    #[arg(long, value_parser = ["native", "generic", "off"], default_value = "native")]
    xdp: String,
    /// Mode of the AF_XDP sockets
    #[arg(long, value_parser = ["copy", "auto"], default_value = "copy")]
    bind: String,
    /// How the edge sends its replies
    #[arg(long, value_parser = SENDERS, default_value = "gso")]
    sender: String,
    /// Size of the chunk store; reserved as hugepages while this runs
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    arena_mib: u64,
}

/// `192.0.2.10`, `192.0.2.10:7347`, `2001:db8::10` or `[2001:db8::10]:7347`.
fn service(text: &str) -> Result<SocketAddr, String> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(SocketAddr::new(address, PORT));
    }
    text.parse().map_err(|_wrong| {
        format!(
            "{text} is not an address; write 192.0.2.10, 192.0.2.10:{PORT} or [2001:db8::10]:{PORT}"
        )
    })
}

pub(crate) fn run(options: &Run) -> Result<()> {
    privileges::need_root("run loads an XDP program and reserves hugepages; it")?;
    let origin = options
        .origin
        .canonicalize()
        .with_context(|| format!("cannot find the origin folder {}", options.origin.display()))?;
    let link = PathBuf::from("/sys/class/net").join(&options.interface);
    if !link.exists() {
        bail!("no interface {}; `ip link` lists them", options.interface);
    }
    build::build()?;
    let mut machine = HostGuard::borrow()?;
    let folder = machine.folder()?;
    let settings = Settings {
        interfaces: vec![options.interface.clone()],
        listen: options.listen.clone(),
        origins: vec![origin],
        arena_bytes: options.arena_mib << 20,
        sender: options.sender.clone(),
        xdp: options.xdp.clone(),
        bind: options.bind.clone(),
        ..Settings::in_folder(&folder)
    };
    machine.hugepages(daemon::hugepage_bytes(settings.arena_bytes, queues(&link)))?;
    let config = folder.join("edged.toml");
    settings.write(&config)?;
    let mut edged = Daemon::start(
        Command::new(paths::release("edged"))
            .arg("--config")
            .arg(&config),
    )?;
    eprintln!(
        "serving until Ctrl-C. For statistics: {} stat --socket {}",
        paths::release("edge").display(),
        settings.socket.display()
    );
    while !stop::came() {
        edged.runs()?;
        clock::pause();
    }
    edged.stop()?;
    machine.give_back()
}

/// Counts an interface's receive queues, from its folder in sysfs.
fn queues(link: &Path) -> u64 {
    let Ok(entries) = std::fs::read_dir(link.join("queues")) else {
        return 1;
    };
    let receive = entries
        .filter(|entry| {
            entry
                .as_ref()
                .is_ok_and(|entry| entry.file_name().to_string_lossy().starts_with("rx-"))
        })
        .count();
    receive.try_into().unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_has_port_7347_unless_it_names_one() {
        for (text, address) in [
            ("192.0.2.10", "192.0.2.10:7347"),
            ("192.0.2.10:53", "192.0.2.10:53"),
            ("2001:db8::10", "[2001:db8::10]:7347"),
            ("[2001:db8::10]:53", "[2001:db8::10]:53"),
        ] {
            assert_eq!(service(text), Ok(address.parse().unwrap()));
        }
        assert!(service("here").unwrap_err().contains("is not an address"));
    }
}
