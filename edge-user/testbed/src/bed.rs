//! The bed of a run: two network namespaces and a veth pair between them.
//!
//! Names contain the process id: a namespace whose process has ended is a leftover, and all
//! processes in it belong to that run.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::ifaddrs::getifaddrs;
use nix::net::if_::InterfaceFlags;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use serde_json::Value;

use crate::{clock, paths, process, undo_log};

/// Prefix of all namespaces of this project: `sealedge-<process id>-…`.
const PREFIX: &str = "sealedge-";
/// Where `ip netns` keeps the names.
const NAMES: &str = "/run/netns";
/// The service's port.
pub const PORT: u16 = 7347;
/// The first `ip netns add` on a host mounts a file system, which concurrent calls would disturb.
static MAKING: Mutex<()> = Mutex::new(());

/// One end of the link.
#[derive(Clone, Debug)]
pub struct Side {
    pub namespace: String,
    pub link: &'static str,
    pub mac: [u8; 6],
    pub ipv4: Ipv4Addr,
    pub ipv6: Ipv6Addr,
    /// Without addresses the kernel on this side sends nothing.
    has_addresses: bool,
}

#[derive(Clone, Debug)]
pub struct Bed {
    pub edge: Side,
    pub reader: Side,
    plan: Plan,
    /// Whether the edge's namespace belongs to another bed.
    second: bool,
}

/// Properties of a bed.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    pub queues: u32,
    pub mtu_bytes: u32,
    /// Addresses and MAC addresses of the golden packets, and a reader's side that sends nothing.
    pub golden: bool,
}

impl Default for Plan {
    fn default() -> Self {
        Self {
            queues: 1,
            mtu_bytes: 1500,
            golden: false,
        }
    }
}

impl Bed {
    /// Names and addresses of a bed of this process; `make` creates it, `remove` removes what
    /// exists. The number distinguishes the beds of a process.
    pub fn new(number: u32, plan: Plan) -> Self {
        let namespace = |side: &str| format!("{PREFIX}{}-{number}-{side}", std::process::id());
        let side = |name, link, mac, ipv4: [u8; 4], ipv6: Ipv6Addr| Side {
            namespace: namespace(name),
            link,
            mac: [2, 0, 0, 0, 0, mac],
            ipv4: ipv4.into(),
            ipv6,
            has_addresses: !plan.golden || name == "edge",
        };
        let (v4, v6): ([[u8; 4]; 2], [Ipv6Addr; 2]) = if plan.golden {
            let v6 = |last| Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, last);
            ([[192, 0, 2, 10], [192, 0, 2, 7]], [0x10, 7].map(v6))
        } else {
            let v6 = |last| Ipv6Addr::new(0xfd71, 0, 0, 0, 0, 0, 0, last);
            ([[10, 71, 0, 1], [10, 71, 0, 2]], [1, 2].map(v6))
        };
        let macs = if plan.golden { [0x10, 7] } else { [1, 2] };
        Self {
            edge: side("edge", "edge0", macs[0], v4[0], v6[0]),
            reader: side("reader", "reader0", macs[1], v4[1], v6[1]),
            plan,
            second: false,
        }
    }

    /// A second link of the same edge, with a reader of its own.
    #[must_use]
    pub fn second(&self) -> Self {
        let side = |namespace: String, link, last: u8| Side {
            namespace,
            link,
            mac: [2, 0, 0, 0, 1, last],
            ipv4: [10, 72, 0, last].into(),
            ipv6: [0xfd72, 0, 0, 0, 0, 0, 0, last.into()].into(),
            has_addresses: true,
        };
        Self {
            edge: side(self.edge.namespace.clone(), "edge1", 1),
            reader: side(format!("{}-1", self.reader.namespace), "reader1", 2),
            plan: Plan::default(),
            second: true,
        }
    }

    /// The sides whose namespaces belong to this bed.
    fn own(&self) -> impl Iterator<Item = &Side> {
        (!self.second)
            .then_some(&self.edge)
            .into_iter()
            .chain([&self.reader])
    }

    /// Creates both namespaces, and the link between them.
    pub fn make(&self) -> Result<()> {
        let names = self
            .own()
            .map(|side| format!("netns add {}", side.namespace));
        {
            let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
            batch(&mut ip(), names)?;
        }
        self.link()
    }

    /// Creates the link with addresses and programs. The reader's end needs the PASS program:
    /// without one, packets that the edge's program returns are lost in a veth pair.
    pub fn link(&self) -> Result<()> {
        let (edge, reader) = (&self.edge, &self.reader);
        let queues = self.plan.queues;
        let end = |side: &Side| {
            let (link, namespace, mac) = (side.link, &side.namespace, station(side.mac));
            format!(
                "{link} netns {namespace} address {mac} numrxqueues {queues} numtxqueues {queues}"
            )
        };
        let pair = format!("link add {} type veth peer name {}", end(edge), end(reader));
        batch(&mut ip(), [pair])?;
        for side in [edge, reader] {
            let mut lines = Vec::new();
            if side.has_addresses {
                lines.push(format!("address add {}/24 dev {}", side.ipv4, side.link));
                lines.push(format!(
                    "address add {}/64 dev {} nodad",
                    side.ipv6, side.link
                ));
            } else {
                side.enter(|| fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1"))??;
            }
            lines.push("link set dev lo up".into());
            lines.push(format!(
                "link set dev {} mtu {} up",
                side.link, self.plan.mtu_bytes
            ));
            if self.plan.golden && side.has_addresses {
                // The edge of the golden packets has two more addresses, elsewhere.
                let more = ["192.0.2.12/32", "2001:db8::12/128"];
                lines.extend(more.map(|address| format!("address add {address} dev lo")));
            }
            batch(&mut side.ip_command(), lines)?;
        }
        reader.attach_pass()?;
        edge.is_up()?;
        reader.is_up()
    }

    /// Removes the namespaces, and with them the link.
    pub fn remove(&self) -> Result<()> {
        for side in self.own().filter(|side| side.path().exists()) {
            remove_namespace(&side.namespace)?;
        }
        Ok(())
    }

    /// Ends the processes in it.
    pub fn end_inhabitants(&self) {
        self.own().for_each(|side| end_inhabitants(&side.namespace));
    }

    /// The service addresses, over IPv4 and IPv6.
    pub fn services(&self) -> [SocketAddr; 2] {
        [(self.edge.ipv4, PORT).into(), (self.edge.ipv6, PORT).into()]
    }
}

impl Side {
    fn path(&self) -> PathBuf {
        Path::new(NAMES).join(&self.namespace)
    }

    /// A command that will run on this side.
    pub fn inside(&self, program: impl AsRef<Path>) -> Command {
        let mut command = ip();
        command.args(["netns", "exec", &self.namespace]);
        command.arg(program.as_ref());
        command
    }

    /// Runs a function on this side; sockets created there stay there.
    pub fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> Result<T> {
        let path = self.path();
        let namespace =
            File::open(&path).with_context(|| format!("cannot open {}", path.display()))?;
        let inside = || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .with_context(|| format!("cannot move into {}", path.display()))?;
            Ok(act())
        };
        thread::scope(|scope| {
            let entered = scope.spawn(inside).join();
            entered.unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// `ip` on this side, without arguments.
    pub fn ip_command(&self) -> Command {
        let mut command = ip();
        command.args(["-n", &self.namespace]);
        command
    }

    /// Runs `ip` on this side with these arguments; returns its output.
    pub fn ip(&self, words: &str) -> Result<String> {
        process::output(self.ip_command().args(words.split_whitespace()))
    }

    /// Runs several `ip` commands on this side, in one process.
    pub fn ip_batch(&self, lines: impl IntoIterator<Item = String>) -> Result<()> {
        batch(&mut self.ip_command(), lines)
    }

    /// What `ip` reports about this end of the link.
    pub fn facts(&self) -> Result<Value> {
        let text = self.ip(&format!(
            "-json -details -stats link show dev {}",
            self.link
        ))?;
        let mut links: Value = serde_json::from_str(&text).context("`ip -json` wrote no JSON")?;
        Ok(links[0].take())
    }

    /// Attaches the PASS program to this end, where none may be yet.
    pub fn attach_pass(&self) -> Result<()> {
        let mut attach = self.ip_command();
        attach.args(["link", "set", "dev", self.link, "xdpdrv", "obj"]);
        process::run(
            attach
                .arg(paths::xdp().join("edge-pass"))
                .args(["sec", "xdp"]),
        )
    }

    /// Detaches the program of this end, unless a link holds it.
    pub fn detach(&self) -> Result<()> {
        self.ip(&format!("link set dev {} xdpdrv off", self.link))
            .map(drop)
    }

    /// Id of the XDP program on this end.
    pub fn program(&self) -> Result<Option<u32>> {
        let number = self.facts()?["xdp"]["prog"]["id"].as_u64();
        Ok(number.map(u32::try_from).transpose()?)
    }

    /// Waits until the link is up.
    pub fn is_up(&self) -> Result<()> {
        let up = self.enter(|| {
            clock::poll(Duration::from_secs(5), || {
                let mut links = getifaddrs().ok()?;
                let running = links.any(|link| {
                    link.interface_name == self.link
                        && link.flags.contains(InterfaceFlags::IFF_RUNNING)
                });
                running.then_some(())
            })
        })?;
        up.with_context(|| format!("the link {} is not up within 5 s", self.link))
    }
}

/// A MAC address as `ip` writes it.
pub fn station(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Runs `ip` with these lines as its batch.
fn batch(ip: &mut Command, lines: impl IntoIterator<Item = String>) -> Result<()> {
    let lines = Vec::from_iter(lines).join("\n");
    ip.args(["-batch", "-"])
        .stdin(Stdio::piped())
        .stdout(std::io::stderr());
    let command = process::line(ip);
    eprintln!("+ {command} <<'END'\n{lines}\nEND");
    let mut child = ip
        .spawn()
        .with_context(|| format!("cannot start: {command}"))?;
    let mut input = child.stdin.take().context("a pipe of ours")?;
    let written = input.write_all(lines.as_bytes());
    drop(input);
    let status = child.wait()?;
    if !status.success() {
        bail!("failed ({status}): {command}: {lines}");
    }
    Ok(written?)
}

/// Our namespaces whose process has ended.
pub fn leftovers() -> Vec<String> {
    names()
        .into_iter()
        .filter(|name| owner(name).is_some_and(|pid| !undo_log::alive(pid)))
        .collect()
}

/// Our namespaces of this process.
pub fn ours() -> Vec<String> {
    names()
        .into_iter()
        .filter(|name| owner(name) == Some(std::process::id()))
        .collect()
}

/// Ends the processes in a namespace of ours, and removes it.
pub fn remove_namespace(name: &str) -> Result<()> {
    let gone = clock::poll(Duration::from_secs(10), || {
        let pids = inhabitants(name);
        pids.is_empty().then_some(())
    });
    if gone.is_none() {
        bail!(
            "processes still run in the namespace {name}: {:?}",
            inhabitants(name)
        );
    }
    process::run_to_the_end(ip().args(["netns", "delete", name]))
}

/// Ends the processes in the namespace of a killed run, first by SIGTERM, later by SIGKILL.
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

/// Removes the mount of the host's first `ip netns add`, if a run of ours made it and no namespaces
/// are left.
pub fn unmount_names() -> Result<()> {
    let others = fs::read_dir(NAMES).is_ok_and(|mut entries| entries.next().is_some());
    if others || !netns_mounted()? {
        return Ok(());
    }
    process::run_to_the_end(Command::new("umount").arg(NAMES))?;
    fs::remove_dir(NAMES).with_context(|| format!("cannot remove {NAMES}"))
}

pub fn netns_mounted() -> Result<bool> {
    let mounts = procfs::mounts().context("cannot read the mounts")?;
    Ok(mounts.iter().any(|mount| mount.fs_file == NAMES))
}

/// `ip` is not in every user's PATH.
fn ip() -> Command {
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

/// Processes in a namespace, by the namespace's inode.
fn inhabitants(name: &str) -> Vec<i32> {
    let identity = |path: &Path| path.metadata().ok().map(|meta| (meta.dev(), meta.ino()));
    let Some(wanted) = identity(&Path::new(NAMES).join(name)) else {
        return Vec::new();
    };
    let is_here = |pid: &i32| identity(format!("/proc/{pid}/ns/net").as_ref()) == Some(wanted);
    let processes = procfs::process::all_processes().into_iter().flatten();
    let pids = processes.filter_map(|process| Some(process.ok()?.pid));
    pids.filter(is_here).collect()
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
        let bed = Bed::new(0, Plan::default());
        assert_eq!(owner(&bed.edge.namespace), Some(std::process::id()));
        assert_ne!(bed.edge.namespace, bed.reader.namespace);
    }
}
