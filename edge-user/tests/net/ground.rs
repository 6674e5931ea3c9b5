//! Two network namespaces and the link between them, as in `cargo xtask demo`.
//!
//! Names hold the process id, as xtask's do: what a killed test run leaves behind is removed by
//! the next `cargo xtask test`.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use edge_ebpf::golden::build::{self, Build};
use edge_ebpf::wire::SERVICE_PORT;
use rustix::process::{Pid, Signal, kill_process};
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};
use tempfile::TempDir;

use crate::wait;

/// The first `ip netns add` of a machine mounts something, and two at once get in each other's way.
static MAKING: Mutex<()> = Mutex::new(());
static NEXT: AtomicU32 = AtomicU32::new(0);

/// One end of the link.
pub(crate) struct Side {
    pub(crate) namespace: String,
    pub(crate) link: &'static str,
    pub(crate) mac: [u8; 6],
    pub(crate) ipv4: Ipv4Addr,
    pub(crate) ipv6: Ipv6Addr,
    /// Whether the addresses are set; without them the kernel on this side never says a word.
    speaks: bool,
}

pub(crate) struct Ground {
    pub(crate) edge: Side,
    pub(crate) reader: Side,
    folder: TempDir,
}

/// Another link of the edge's host; dropped before its ground.
pub(crate) struct SecondLink {
    pub(crate) edge: Side,
    pub(crate) reader: Side,
}

/// Carries the longest HELLO there is over IPv6, and two short ones in one frame.
pub(crate) const FULL_MTU_BYTES: u32 = 2500;

/// How a ground is to be, where it matters.
pub(crate) struct Plan {
    pub(crate) queues: u32,
    pub(crate) mtu_bytes: u32,
    /// Addresses and stations of the golden packets, and a reader's side that is silent.
    pub(crate) golden: bool,
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

impl Ground {
    /// A ground, or nothing on a machine where there can be none; the skip is then told.
    pub(crate) fn new() -> Option<Self> {
        Self::with(&Plan::default())
    }

    pub(crate) fn with(plan: &Plan) -> Option<Self> {
        if let Some(reason) = unfit() {
            tell_skip(&reason);
            return None;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let side = |name: &str, link, last: u8| {
            let (ipv4, ipv6) = if plan.golden {
                (
                    [192, 0, 2, last],
                    [0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(last)],
                )
            } else {
                (
                    [10, 71, 0, last],
                    [0xfd71, 0, 0, 0, 0, 0, 0, u16::from(last)],
                )
            };
            Side {
                namespace: format!("sealedge-{}-{number}-{name}", std::process::id()),
                link,
                mac: [2, 0, 0, 0, 0, last],
                ipv4: ipv4.into(),
                ipv6: ipv6.into(),
                speaks: !plan.golden || name == "edge",
            }
        };
        // The golden edge is 192.0.2.10, 2001:db8::10 and station …:10, so ten and sixteen.
        let mut edge = side("edge", "edge0", if plan.golden { 10 } else { 1 });
        if plan.golden {
            edge.mac = [2, 0, 0, 0, 0, 0x10];
            edge.ipv6 = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x10);
        }
        let reader = side("reader", "reader0", if plan.golden { 7 } else { 2 });
        let folder = tempfile::Builder::new()
            .prefix("sealedge-net-")
            .tempdir()
            .unwrap();
        // A test without root's rights looks in here too.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let ground = Self {
            edge,
            reader,
            folder,
        };
        add_namespace(&ground.edge.namespace);
        connect(&ground.edge, &ground.reader, plan);
        if plan.golden {
            // The golden edge's host has two more addresses, elsewhere.
            let on_lo = ["-n", &ground.edge.namespace, "address", "add", "dev", "lo"];
            for address in ["192.0.2.12/32", "2001:db8::12/128"] {
                ip(&[&on_lo[..], &[address]].concat());
            }
        }
        Some(ground)
    }

    /// A second interface of the edge, with a reader of its own behind it.
    pub(crate) fn add_link(&self) -> SecondLink {
        let side = |namespace: &str, link, last: u8| Side {
            namespace: namespace.to_owned(),
            link,
            mac: [2, 0, 0, 0, 1, last],
            ipv4: [10, 72, 0, last].into(),
            ipv6: [0xfd72, 0, 0, 0, 0, 0, 0, u16::from(last)].into(),
            speaks: true,
        };
        let second = SecondLink {
            edge: side(&self.edge.namespace, "edge1", 1),
            reader: side(&format!("{}-1", self.reader.namespace), "reader1", 2),
        };
        connect(&second.edge, &second.reader, &Plan::default());
        second
    }

    /// A frame of the reader's to the service, made by hand.
    pub(crate) fn request(&self, v6: bool, payload: Vec<u8>) -> Build {
        let (build, from, to) = if v6 {
            let address = |side: &Side| side.ipv6.octets().to_vec();
            (
                build::v6(payload),
                address(&self.reader),
                address(&self.edge),
            )
        } else {
            let address = |side: &Side| side.ipv4.octets().to_vec();
            (
                build::v4(payload),
                address(&self.reader),
                address(&self.edge),
            )
        };
        build
            .source(&from, 40_000)
            .destination(&to, SERVICE_PORT)
            .macs(self.reader.mac, self.edge.mac)
    }

    /// A folder for this test's files, with room for large ones.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn service_v4(&self) -> SocketAddr {
        (self.edge.ipv4, SERVICE_PORT).into()
    }

    pub(crate) fn service_v6(&self) -> SocketAddr {
        (self.edge.ipv6, SERVICE_PORT).into()
    }

    /// Whether there is an XDP program on the edge's end.
    pub(crate) fn has_program(&self) -> bool {
        ip(&[
            "-n",
            &self.edge.namespace,
            "link",
            "show",
            "dev",
            self.edge.link,
        ])
        .contains("xdp")
    }

    /// Number of the XDP program on the edge's end.
    pub(crate) fn program_number(&self) -> u32 {
        let link = [
            "-json",
            "-details",
            "-n",
            &self.edge.namespace,
            "link",
            "show",
            "dev",
        ];
        let text = ip(&[&link[..], &[self.edge.link]].concat());
        let links: serde_json::Value = serde_json::from_str(&text).unwrap();
        let number = links[0]["xdp"]["prog"]["id"].as_u64();
        number
            .unwrap_or_else(|| panic!("no program in {text}"))
            .try_into()
            .unwrap()
    }

    /// Lets the edge reach addresses nobody has, as if the reader had them all.
    pub(crate) fn claim_for_reader(&self, addresses: impl Iterator<Item = IpAddr>) {
        let mut command = Command::new("ip");
        command
            .args(["-n", &self.edge.namespace, "-batch", "-"])
            .stdin(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut input = child.stdin.take().unwrap();
        for address in addresses {
            let (mac, link) = (station(self.reader.mac), self.edge.link);
            writeln!(
                input,
                "neigh replace {address} lladdr {mac} nud permanent dev {link}"
            )
            .unwrap();
        }
        drop(input);
        assert!(child.wait().unwrap().success());
    }
}

fn add_namespace(name: &str) {
    let _alone = MAKING.lock().unwrap_or_else(PoisonError::into_inner);
    ip(&["netns", "add", name]);
}

/// A link from the edge's namespace to a new one of the reader's.
fn connect(edge: &Side, reader: &Side, plan: &Plan) {
    add_namespace(&reader.namespace);
    let (queues, mtu) = (plan.queues.to_string(), plan.mtu_bytes.to_string());
    let (edge_mac, reader_mac) = (station(edge.mac), station(reader.mac));
    let queues = ["numrxqueues", &queues, "numtxqueues", &queues];
    let edge_end = [
        "-n",
        &edge.namespace,
        "link",
        "add",
        edge.link,
        "address",
        &edge_mac,
    ];
    let reader_end = [
        "type",
        "veth",
        "peer",
        "name",
        reader.link,
        "address",
        &reader_mac,
    ];
    let there = ["netns", &reader.namespace];
    ip(&[&edge_end[..], &queues, &reader_end, &queues, &there].concat());
    edge.set_up(&mtu);
    reader.set_up(&mtu);
    // Without a program on this end, what the edge's program answers on the spot is lost.
    let pass = bpf_object("edge-pass").display().to_string();
    let on_link = ["-n", &reader.namespace, "link", "set", "dev", reader.link];
    ip(&[&on_link[..], &["xdpdrv", "obj", &pass, "sec", "xdp"]].concat());
    for side in [edge, reader] {
        wait::until(Duration::from_secs(5), || {
            let state = ip(&["-brief", "-n", &side.namespace, "link", "show", side.link]);
            state
                .split_whitespace()
                .any(|word| word == "UP")
                .then_some(())
        })
        .unwrap_or_else(|| panic!("{} does not come up", side.link));
    }
}

impl Drop for SecondLink {
    fn drop(&mut self) {
        remove(&self.reader.namespace);
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        remove(&self.edge.namespace);
        remove(&self.reader.namespace);
    }
}

/// Removes a namespace, which must be without inhabitants unless a test failed.
fn remove(name: &str) {
    let inhabitants = inhabitants(name);
    if thread::panicking() {
        // What a failed test left running; nobody else has a way in here.
        for pid in inhabitants {
            if let Err(error) = kill_process(pid, Signal::KILL) {
                eprintln!("{pid:?} in {name} cannot be ended: {error}");
            }
        }
        drop(Command::new("ip").args(["netns", "delete", name]).status());
        return;
    }
    ip(&["netns", "delete", name]);
    assert!(
        inhabitants.is_empty(),
        "{inhabitants:?} still run in {name}"
    );
    assert!(
        !Path::new("/run/netns").join(name).exists(),
        "{name} is still there"
    );
}

/// Processes in a namespace.
fn inhabitants(namespace: &str) -> Vec<Pid> {
    let output = Command::new("ip")
        .args(["netns", "pids", namespace])
        .output();
    let text = output.map(|output| output.stdout).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    text.split_whitespace()
        .filter_map(|pid| Pid::from_raw(pid.parse().ok()?))
        .collect()
}

impl Side {
    fn set_up(&self, mtu: &str) {
        let ip_here = |words: &[&str]| ip(&[&["-n", &self.namespace], words].concat());
        if self.speaks {
            let (ipv4, ipv6) = (format!("{}/24", self.ipv4), format!("{}/64", self.ipv6));
            ip_here(&["address", "add", &ipv4, "dev", self.link]);
            ip_here(&["address", "add", &ipv6, "dev", self.link, "nodad"]);
        } else {
            self.enter(|| fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").unwrap());
        }
        ip_here(&["link", "set", "dev", "lo", "up"]);
        ip_here(&["link", "set", "dev", self.link, "mtu", mtu, "up"]);
    }

    /// A program that will run on this side.
    pub(crate) fn inside(&self, program: impl AsRef<Path>) -> Command {
        let mut command = Command::new("ip");
        command
            .args(["netns", "exec", &self.namespace])
            .arg(program.as_ref());
        command
    }

    /// Does something on this side; sockets made there stay there.
    pub(crate) fn enter<T: Send>(&self, act: impl FnOnce() -> T + Send) -> T {
        let namespace = File::open(Path::new("/run/netns").join(&self.namespace)).unwrap();
        thread::scope(|scope| {
            let inside = scope.spawn(|| {
                let kind = Some(LinkNameSpaceType::Network);
                move_into_link_name_space(namespace.as_fd(), kind).unwrap();
                act()
            });
            inside
                .join()
                .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Turns the checksum offload of sends on or off.
    pub(crate) fn offload(&self, state: &str) {
        let mut command = self.inside("ethtool");
        command.args(["-K", self.link, "tx", state]);
        run(command);
    }
}

/// A program people run, as `cargo xtask build` made it.
pub(crate) fn program(name: &str) -> PathBuf {
    std::env::var_os("SEALEDGE_BIN_DIR")
        .map_or_else(|| target().join("release"), PathBuf::from)
        .join(name)
}

/// An XDP program, as `cargo xtask build` left it.
pub(crate) fn bpf_object(name: &str) -> PathBuf {
    target().join("xdp").join(name)
}

fn target() -> PathBuf {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    std::env::var_os("CARGO_TARGET_DIR")
        .map_or_else(|| workspace.join("target"), |dir| workspace.join(dir))
}

fn station(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

/// Runs `ip`, which must succeed.
pub(crate) fn ip(words: &[&str]) -> String {
    let mut command = Command::new("ip");
    command.args(words);
    run(command)
}

/// Runs `tc`, which must succeed.
pub(crate) fn tc(words: &[&str]) {
    let mut command = Command::new("tc");
    command.args(words);
    run(command);
}

fn run(mut command: Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    assert!(
        output.status.success(),
        "{command:?}: {}",
        wait::said(&output)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Why this machine cannot run these tests.
fn unfit() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("needs root to make network namespaces".to_owned());
    }
    let programs = ["edge", "edged", "edge-bench"].map(program);
    let mut needed = programs.into_iter().chain([bpf_object("edge-pass")]);
    let missing = needed.find(|path| !path.exists())?;
    let name = missing.file_name().unwrap_or_default().to_string_lossy();
    Some(format!("{name} is not built, `cargo xtask test` builds it"))
}

/// A test that cannot run says so, here and to `cargo xtask test`.
pub(crate) fn tell_skip(reason: &str) {
    let current = thread::current();
    let line = format!(
        "SKIPPED {}: {reason}",
        current.name().unwrap_or("a test of net")
    );
    eprintln!("{line}");
    if let Some(path) = std::env::var_os("SEALEDGE_SKIPS") {
        let mut file = File::options()
            .append(true)
            .create(true)
            .open(path)
            .unwrap();
        writeln!(file, "{line}").unwrap();
    }
}
