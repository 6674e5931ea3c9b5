//! What a user would run instead: nginx and Knot DNS, configured as their operators would.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_testbed::{clock, process};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};

use super::client::Ran;
use super::testbed::Testbed;
use crate::setup;

pub(super) const NGINX: &str = "nginx";
pub(super) const KNOT: &str = "Knot DNS with XDP";
const HTTP_PORT: u16 = 8080;
const DNS_PORT: u16 = 53;
/// More than the number of files.
const OPEN_FILES_ENOUGH: u64 = 100_000;
/// File descriptors that nginx needs for other purposes: connections, logs.
const OTHER_FILES: u64 = 2000;
/// Limit for the start of a peer.
const READY_WITHIN: Duration = Duration::from_secs(10);
const WRK_SCRIPT: &str = include_str!("wrk.lua");
/// wrk's connections: enough that they do not wait for each other.
const CONNECTIONS: u32 = 32;

/// A running peer, ended on drop.
pub(super) struct Peer {
    child: Child,
}

impl Peer {
    pub(super) fn id(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        process::end(&mut self.child);
    }
}

/// Raises the limit of open files for this process, and so for its peers, as far as possible
/// without privileges; returns the limit.
fn open_files_max() -> Result<u64> {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        ..limit
    };
    setrlimit(Resource::Nofile, raised).context("cannot raise the limit of open files")?;
    // nginx allocates an entry for each, so an unlimited number is capped.
    Ok(limit
        .maximum
        .unwrap_or(OPEN_FILES_ENOUGH)
        .min(OPEN_FILES_ENOUGH))
}

/// The programs, installed if missing, or why they are unavailable.
pub(super) fn installed(programs: &[(&'static str, &'static str)]) -> Result<(), String> {
    setup::programs(programs).map_err(|error| format!("{error:#}"))
}

pub(super) const NGINX_PROGRAMS: &[(&str, &str)] = &[("nginx-light", "nginx"), ("wrk", "wrk")];
pub(super) const KNOT_PROGRAMS: &[(&str, &str)] =
    &[("knot", "knotd"), ("knot-dnsutils", "kxdpgun")];

impl Testbed<'_> {
    /// nginx with this root folder and one worker, on the server's CPU.
    pub(super) fn nginx(&self, root: &Path) -> Result<Peer> {
        let folder = self.folder.join("nginx");
        fs::create_dir_all(&folder)?;
        let config = folder.join("nginx.conf");
        let (ip, pid) = (self.bed.edge.ipv4, folder.join("pid"));
        let cached = open_files_max()?.saturating_sub(OTHER_FILES);
        fs::write(
            &config,
            format!(
                "worker_processes 1;\nuser root;\ndaemon off;\nmaster_process off;\npid {};\n\
                 error_log stderr error;\nevents {{ worker_connections 1024; }}\nhttp {{\n\
                 access_log off; sendfile on; tcp_nopush on; keepalive_requests 1000000000;\n\
                 open_file_cache max={cached} inactive=1h; open_file_cache_valid 1h;\n\
                 server {{ listen {ip}:{HTTP_PORT}; root {}; }}\n}}\n",
                pid.display(),
                root.display(),
            ),
        )?;
        let program = process::find("nginx").context("nginx is not installed")?;
        let mut command = self.command(&self.bed.edge, &program);
        command.arg("-e").arg("stderr").arg("-p").arg(&folder);
        let child = process::spawn(command.arg("-c").arg(&config).stdout(std::io::stderr()))?;
        let peer = Peer { child };
        let address: SocketAddr = format!("{ip}:{HTTP_PORT}").parse()?;
        let connected = || TcpStream::connect(address).ok();
        let reader = &self.bed.reader;
        let answers = reader.enter(|| clock::poll(READY_WITHIN, connected).is_some())?;
        if !answers {
            bail!("nginx does not listen within {} s", READY_WITHIN.as_secs());
        }
        Ok(peer)
    }

    /// Runs wrk against it, with these paths in turn.
    pub(super) fn wrk(&self, paths: &Path, nginx: &Peer) -> Result<Ran> {
        let script = self.folder.join("wrk.lua");
        fs::write(&script, WRK_SCRIPT)?;
        let program = process::find("wrk").context("wrk is not installed")?;
        let mut command = self.command(&self.bed.reader, &program);
        command.args(["-t", "1", "-c", &CONNECTIONS.to_string(), "--latency"]);
        // It only takes whole seconds.
        command.args(["-d", &format!("{:.0}s", self.plan.seconds.max(1.0))]);
        command.arg("-s").arg(&script);
        command.arg(format!("http://{}:{HTTP_PORT}/", self.bed.edge.ipv4));
        command.arg("--").arg(paths);
        let before = self.used(nginx.id(), std::process::id())?;
        let text = process::output(&mut command)?;
        let after = self.used(nginx.id(), std::process::id())?;
        let line = text.lines().rfind(|line| line.starts_with('{'));
        let result: Value = serde_json::from_str(line.context("wrk printed no result")?)?;
        if result["errors"].as_f64() != Some(0.0) {
            bail!("wrk had errors: {result}");
        }
        Ok(Ran::new(result, before, after))
    }

    /// Knot DNS with a small zone, and its XDP on the edge's end of the link.
    pub(super) fn knot(&self) -> Result<Peer> {
        let folder = self.folder.join("knot");
        fs::create_dir_all(folder.join("db"))?;
        let (ip, link) = (self.bed.edge.ipv4, self.bed.edge.link);
        fs::write(
            folder.join("bench.zone"),
            "$ORIGIN bench.\n$TTL 3600\n@ SOA ns admin 1 900 300 4800 900\n@ NS ns\n\
             ns A 192.0.2.1\nwww A 192.0.2.2\n",
        )?;
        let config = folder.join("knot.conf");
        fs::write(
            &config,
            format!(
                "server:\n    rundir: \"{run}\"\n    listen: {ip}@{DNS_PORT}\n\
                 \x20   udp-workers: 1\n    tcp-workers: 1\n    background-workers: 1\n\
                 xdp:\n    listen: {link}@{DNS_PORT}\n\
                 log:\n  - target: stderr\n    any: warning\n\
                 database:\n    storage: \"{run}/db\"\n\
                 zone:\n  - domain: bench.\n    file: \"{run}/bench.zone\"\n    semantic-checks: off\n",
                run = folder.display(),
            ),
        )?;
        let program = process::find("knotd").context("knotd is not installed")?;
        let mut command = self.command(&self.bed.edge, &program);
        command.arg("-c").arg(&config).stdout(std::io::stderr());
        let child = process::spawn(&mut command)?;
        Ok(Peer { child })
    }

    /// Runs kxdpgun against it, at full speed.
    pub(super) fn kxdpgun(&self, knot: &Peer) -> Result<Ran> {
        let queries = self.folder.join("queries");
        fs::write(&queries, "www.bench. A\n")?;
        let program = process::find("kxdpgun").context("kxdpgun is not installed")?;
        let seconds = self.plan.seconds.ceil().max(1.0);
        let mut command = self.command(&self.bed.reader, &program);
        command.args(["-t", &format!("{seconds:.0}"), "-Q", "3000000"]);
        // It uses the CPUs from the first one on, whatever its affinity.
        command.args(["-F", &self.cpus[1].to_string()]);
        command.arg("-i").arg(&queries);
        let (port, ip) = (DNS_PORT.to_string(), self.bed.edge.ipv4.to_string());
        command.args(["-p", &port, &ip]);
        let before = self.used(knot.id(), std::process::id())?;
        let text = process::output(&mut command)?;
        let after = self.used(knot.id(), std::process::id())?;
        let replies = text
            .lines()
            .find_map(|line| line.strip_prefix("total replies:"))
            .and_then(|rest| rest.split_whitespace().next())
            .and_then(|number| number.parse::<f64>().ok())
            .with_context(|| format!("kxdpgun reported no replies:\n{text}"))?;
        let result = json!({"seconds": seconds, "answers": replies});
        Ok(Ran::new(result, before, after))
    }

    /// Writes small files for nginx, and the list of their paths.
    pub(super) fn small_files(&self, count: u32, bytes: usize) -> Result<(PathBuf, PathBuf)> {
        let root = self.folder.join("small");
        let paths = self.folder.join("small.paths");
        if !root.exists() {
            fs::create_dir(&root)?;
            let mut list = String::new();
            for number in 0..count {
                let name = format!("{number}");
                let byte = number.to_be_bytes()[3];
                fs::write(root.join(&name), vec![byte; bytes])?;
                list.extend(["/", &name, "\n"]);
            }
            fs::write(&paths, list)?;
        }
        Ok((root, paths))
    }
}
