//! A test's own bed, and a folder.

use std::fs::{self, File, Permissions};
use std::io::Write;
use std::net::{IpAddr, SocketAddr};
use std::ops::Deref;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread;

use edge_ebpf::golden::build::Build;
use edge_testbed::bed::{self, Bed};
use edge_testbed::{packet, paths, process};
use tempfile::TempDir;

pub(crate) use edge_testbed::bed::{Plan, Side};

static NEXT: AtomicU32 = AtomicU32::new(0);

pub(crate) struct Testbed {
    bed: Bed,
    folder: TempDir,
}

/// Another link of the edge's host; dropped before its testbed.
pub(crate) struct SecondLink(Bed);

/// Carries the longest HELLO there is over IPv6, and two short ones in one frame.
pub(crate) const FULL_MTU_BYTES: u32 = 2500;

impl Testbed {
    /// A testbed, or nothing on a machine where there can be none; the skip is then reported.
    pub(crate) fn new() -> Option<Self> {
        Self::with(Plan::default())
    }

    pub(crate) fn with(plan: Plan) -> Option<Self> {
        if let Some(reason) = unfit() {
            tell_skip(&reason);
            return None;
        }
        let folder = tempfile::Builder::new()
            .prefix("sealedge-net-")
            .tempdir()
            .unwrap();
        // A test without root's rights looks in here too.
        fs::set_permissions(folder.path(), Permissions::from_mode(0o777)).unwrap();
        let testbed = Self {
            bed: Bed::new(NEXT.fetch_add(1, Ordering::Relaxed), plan),
            folder,
        };
        testbed.bed.make().unwrap();
        Some(testbed)
    }

    /// A second interface of the edge, with a reader of its own behind it.
    pub(crate) fn add_link(&self) -> SecondLink {
        let second = SecondLink(self.bed.second());
        second.make().unwrap();
        second
    }

    /// A frame of the reader's to the service, made by hand.
    pub(crate) fn request(&self, v6: bool, payload: Vec<u8>) -> Build {
        let from: IpAddr = if v6 {
            self.reader.ipv6.into()
        } else {
            self.reader.ipv4.into()
        };
        self.request_from(from, payload)
    }

    /// The same, from a forged address.
    pub(crate) fn request_from(&self, from: IpAddr, payload: Vec<u8>) -> Build {
        let service = self.services()[usize::from(from.is_ipv6())];
        packet::datagram((from, 40_000).into(), service, payload)
            .macs(self.reader.mac, self.edge.mac)
    }

    /// A folder for this test's files, with room for large ones.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn service_v4(&self) -> SocketAddr {
        self.services()[0]
    }

    pub(crate) fn service_v6(&self) -> SocketAddr {
        self.services()[1]
    }

    /// Whether there is an XDP program on the edge's end.
    pub(crate) fn has_program(&self) -> bool {
        self.edge.program().unwrap().is_some()
    }

    /// Lets the edge reach addresses nobody has, as if the reader had them all.
    pub(crate) fn claim_for_reader(&self, addresses: impl Iterator<Item = IpAddr>) {
        let (mac, link) = (bed::station(self.reader.mac), self.edge.link);
        let claim =
            |address| format!("neigh replace {address} lladdr {mac} nud permanent dev {link}");
        self.edge.ip_batch(addresses.map(claim)).unwrap();
    }
}

impl Deref for Testbed {
    type Target = Bed;

    fn deref(&self) -> &Bed {
        &self.bed
    }
}

impl Drop for Testbed {
    fn drop(&mut self) {
        remove(&self.bed);
    }
}

impl Deref for SecondLink {
    type Target = Bed;

    fn deref(&self) -> &Bed {
        &self.0
    }
}

impl Drop for SecondLink {
    fn drop(&mut self) {
        remove(&self.0);
    }
}

/// Removes a bed, which must be without inhabitants unless a test failed.
fn remove(bed: &Bed) {
    if thread::panicking() {
        // What a failed test left running; nobody else has a way in here.
        bed.end_inhabitants();
        drop(bed.remove());
    } else {
        bed.remove().unwrap();
    }
}

/// Turns the checksum offload of a side's sends on or off.
pub(crate) fn offload(side: &Side, state: &str) {
    let mut command = side.inside("ethtool");
    process::run(command.args(["-K", side.link, "tx", state])).unwrap();
}

/// A program people run, as `cargo xtask build` made it.
pub(crate) fn program(name: &str) -> PathBuf {
    paths::release(name)
}

/// An XDP program, as `cargo xtask build` left it.
pub(crate) fn bpf_object(name: &str) -> PathBuf {
    paths::xdp().join(name)
}

/// Runs `ip`, which must succeed.
pub(crate) fn ip(words: &[&str]) -> String {
    process::output(Command::new("ip").args(words)).unwrap()
}

/// Runs `tc`, which must succeed.
pub(crate) fn tc(words: &[&str]) {
    process::run(Command::new("tc").args(words)).unwrap();
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
