//! The ground of a run: two network namespaces and a veth pair between them.
//!
//! Names hold our process id: a namespace whose process is gone is a leftover, and what runs in
//! it was started by the run that made it. The tests of `edge-user` name theirs the same way.

use std::fs;
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use crate::clock;
use crate::ledger::{self, Ledger};
use crate::process;

/// All namespaces this project makes are called `sealedge-<process id>-<side>`.
const PREFIX: &str = "sealedge-";
/// Where `ip netns` keeps names.
const NAMES: &str = "/run/netns";

/// The two ends of the link and their addresses.
pub struct Side {
    pub namespace: String,
    pub link: &'static str,
    pub ipv4: &'static str,
    pub ipv6: &'static str,
}

pub struct Ground {
    pub edge: Side,
    pub reader: Side,
}

impl Ground {
    /// Names only; `make` makes it, `remove` removes what is there of it.
    pub fn named_after_this_process() -> Self {
        let namespace = |side: &str| format!("{PREFIX}{}-{side}", std::process::id());
        Self {
            edge: Side {
                namespace: namespace("edge"),
                link: "edge0",
                ipv4: "10.71.0.1",
                ipv6: "fd71::1",
            },
            reader: Side {
                namespace: namespace("reader"),
                link: "reader0",
                ipv4: "10.71.0.2",
                ipv6: "fd71::2",
            },
        }
    }

    /// Both namespaces, the link, its addresses, and the PASS program on the reader's end:
    /// without a program there, packets the edge's program answers on the spot are lost in a
    /// veth pair.
    pub fn make(&self, ledger: &mut Ledger, pass: &Path) -> Result<()> {
        if !netns_mounted()? {
            ledger.note(|record| record.netns_mounted = true)?;
        }
        for side in [&self.edge, &self.reader] {
            process::run(ip().args(["netns", "add", &side.namespace]))?;
        }
        self.link(pass)
    }

    /// The link between the namespaces, with all that is on it.
    pub fn link(&self, pass: &Path) -> Result<()> {
        let (edge, reader) = (&self.edge, &self.reader);
        process::run(
            ip().args([
                "-n",
                &edge.namespace,
                "link",
                "add",
                edge.link,
                "type",
                "veth",
            ])
            .args(["peer", "name", reader.link, "netns", &reader.namespace]),
        )?;
        for side in [edge, reader] {
            let ip = || {
                let mut command = ip();
                command.args(["-n", &side.namespace]);
                command
            };
            let ipv4 = format!("{}/24", side.ipv4);
            let ipv6 = format!("{}/64", side.ipv6);
            process::run(ip().args(["address", "add", &ipv4, "dev", side.link]))?;
            process::run(ip().args(["address", "add", &ipv6, "dev", side.link, "nodad"]))?;
            process::run(ip().args(["link", "set", "dev", "lo", "up"]))?;
            process::run(ip().args(["link", "set", "dev", side.link, "up"]))?;
        }
        process::run(
            ip().args(["-n", &reader.namespace, "link", "set", "dev", reader.link])
                .args(["xdpdrv", "obj"])
                .arg(pass)
                .args(["sec", "xdp"]),
        )?;
        for side in [edge, reader] {
            link_is_up(side)?;
        }
        Ok(())
    }

    /// The namespaces go, and the link with them.
    pub fn remove(&self) -> Result<()> {
        for side in [&self.edge, &self.reader] {
            if Path::new(NAMES).join(&side.namespace).exists() {
                remove_namespace(&side.namespace)?;
            }
        }
        Ok(())
    }
}

/// A command that will run inside a side's namespace.
pub fn inside(side: &Side, program: &Path) -> Command {
    let mut command = ip();
    command
        .args(["netns", "exec", &side.namespace])
        .arg(program);
    command
}

/// Runs something on a thread of its own that has moved into a side's namespace.
pub fn visit<T: Send + 'static>(
    side: &Side,
    visitor: impl FnOnce() -> Result<T> + Send + 'static,
) -> Result<T> {
    let path = Path::new(NAMES).join(&side.namespace);
    let thread = thread::spawn(move || {
        let namespace =
            fs::File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
            .with_context(|| format!("cannot move into {}", path.display()))?;
        visitor()
    });
    thread
        .join()
        .map_err(|_panic| anyhow!("a thread panicked"))?
}

/// Our namespaces whose process is gone.
pub fn leftovers() -> Vec<String> {
    names()
        .into_iter()
        .filter(|name| owner(name).is_some_and(|pid| !ledger::alive(pid)))
        .collect()
}

/// Our namespaces that belong to this process.
pub fn ours() -> Vec<String> {
    names()
        .into_iter()
        .filter(|name| owner(name) == Some(std::process::id()))
        .collect()
}

/// Ends what still runs in a namespace that a run of ours made, and removes the namespace.
pub fn remove_namespace(name: &str) -> Result<()> {
    let gone = clock::poll(Duration::from_secs(10), || {
        let pids = inhabitants(name);
        pids.is_empty().then_some(())
    });
    if gone.is_none() {
        bail!(
            "something still runs in the namespace {name}: {:?}",
            inhabitants(name)
        );
    }
    process::run_to_the_end(ip().args(["netns", "delete", name]))
}

/// Asks what runs in the namespace of a killed run to end, and ends it after a while.
pub fn end_inhabitants(name: &str) {
    for signal in [Signal::TERM, Signal::KILL] {
        for pid in inhabitants(name) {
            eprintln!("ending process {pid} of a killed run in namespace {name}");
            if let Some(pid) = Pid::from_raw(pid)
                && let Err(error) = kill_process(pid, signal)
            {
                eprintln!("cannot end it: {error}");
            }
        }
        let all_gone = || inhabitants(name).is_empty().then_some(());
        if clock::poll(Duration::from_secs(5), all_gone).is_some() {
            return;
        }
    }
}

/// Takes away the mount that the first `ip netns add` of the machine made, when a run of ours
/// was the first and nobody else has a namespace by now.
pub fn unmount_names() -> Result<()> {
    let others = fs::read_dir(NAMES).is_ok_and(|mut entries| entries.next().is_some());
    if others || !netns_mounted()? {
        return Ok(());
    }
    process::run_to_the_end(Command::new("umount").arg(NAMES))?;
    fs::remove_dir(NAMES).with_context(|| format!("cannot remove {NAMES}"))
}

pub fn netns_mounted() -> Result<bool> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("cannot read the mounts")?;
    Ok(mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(NAMES)))
}

/// `ip` stands where not every user's PATH leads.
pub fn ip() -> Command {
    Command::new(process::find("ip").unwrap_or_else(|| "ip".into()))
}

fn names() -> Vec<String> {
    let Ok(entries) = fs::read_dir(NAMES) else {
        return Vec::new();
    };
    entries
        .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
        .collect()
}

fn owner(name: &str) -> Option<u32> {
    name.strip_prefix(PREFIX)?.split_once('-')?.0.parse().ok()
}

/// Processes in a namespace, by comparing the namespace's inode.
fn inhabitants(name: &str) -> Vec<i32> {
    let identity = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    let wanted = identity(&Path::new(NAMES).join(name));
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| {
            let entry = entry.ok()?;
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let here = identity(&entry.path().join("ns/net"));
            (here.is_some() && here == wanted).then_some(pid)
        })
        .collect()
}

/// A link is of use when the kernel says `UP` for its operational state, a moment after `set up`.
pub fn link_is_up(side: &Side) -> Result<()> {
    let up = clock::poll(Duration::from_secs(5), || {
        let mut command = ip();
        command.args([
            "-brief",
            "-n",
            &side.namespace,
            "link",
            "show",
            "dev",
            side.link,
        ]);
        match process::output(&mut command) {
            Ok(text) => text
                .split_whitespace()
                .any(|word| word == "UP")
                .then_some(Ok(())),
            Err(error) => Some(Err(error)),
        }
    });
    up.with_context(|| format!("the link {} does not come up within 5 s", side.link))?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_names_have_an_owner() {
        assert_eq!(owner("sealedge-17-edge"), Some(17));
        assert_eq!(owner("sealedge-x-edge"), None);
        assert_eq!(owner("web-17-edge"), None);
    }

    #[test]
    fn names_hold_this_process() {
        let ground = Ground::named_after_this_process();
        assert_eq!(owner(&ground.edge.namespace), Some(std::process::id()));
        assert_ne!(ground.edge.namespace, ground.reader.namespace);
    }
}
