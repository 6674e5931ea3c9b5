//! The testbed of a benchmark: the link, the content, and the CPUs.

use std::cell::{OnceCell, RefCell};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::rc::Rc;

use anyhow::{Context as _, Result, bail};
use edge_testbed::{
    bed::{self, Bed, PORT, Side},
    daemon::{self, Daemon, Settings},
    host_guard::HostGuard,
    objects, paths, process,
};
use serde_json::Value;

use super::Plan;
use super::cpu::Distance;
use super::rows::latency::AtHalf;
use super::rows::memory::Memory;

/// Sources of generated requests; the edge routes to them by the reader's end.
pub(super) const NET: &str = "10.72";
/// Content is sealed in objects of this size.
const OBJECT_BYTES: u64 = 256 << 20;
const CHUNK_BYTES: u64 = 128 << 10;
/// The arena of P8.
const LARGE_ARENA_BYTES: u64 = 4 << 30;
/// Bytes of a datagram with a full segment.
const REPLY_BYTES: &str = "1232";
/// Port of a ceiling.
pub(super) const CEILING_PORT: u16 = 7400;

pub(super) struct Testbed<'a> {
    pub(super) bed: &'a Bed,
    pub(super) folder: PathBuf,
    pub(super) plan: Plan,
    pub(super) started: String,
    pub(super) tickets: PathBuf,
    /// The list of all chunks, once an edge was warmed.
    pub(super) chunks: PathBuf,
    settings: Settings,
    /// The programs of the build to compare with, if any.
    pub(super) baseline: Option<PathBuf>,
    /// Requests per second for P4, once determined; and its results by pair.
    pub(super) half_rate: OnceCell<String>,
    pub(super) at_half: RefCell<BTreeMap<u32, Rc<AtHalf>>>,
    /// Memory of the large edge, by pair.
    pub(super) memory: RefCell<BTreeMap<u32, Memory>>,
    /// The CPUs of server and generator; the same one on a machine with a single CPU.
    pub(super) cpus: [usize; 2],
    pub(super) distance: RefCell<Distance>,
}

impl<'a> Testbed<'a> {
    /// With room for the large edge if it is measured.
    pub(super) fn new(
        machine: &'a mut HostGuard,
        plan: Plan,
        large: bool,
        baseline: Option<PathBuf>,
    ) -> Result<Self> {
        let folder = machine.folder()?;
        let origin = folder.join("origin");
        fs::create_dir(&origin)?;
        let tickets = folder.join("tickets");
        let mut seed = Command::new(paths::release("edge-bench"));
        seed.arg("seed").arg("--origin").arg(&origin);
        seed.args(["--bytes", &plan.content_bytes.to_string()]);
        seed.args(["--object-bytes", &OBJECT_BYTES.to_string()]);
        process::run(seed.arg("--tickets").arg(&tickets))?;

        let arena_bytes = objects::arena_bytes(plan.content_bytes / CHUNK_BYTES);
        // A ceiling has as much memory as the edge; they run one after the other.
        let largest = if large {
            LARGE_ARENA_BYTES
        } else {
            arena_bytes
        };
        machine.hugepages(daemon::hugepage_bytes(largest, 1))?;
        let bed = machine.bed()?;
        let settings = Settings {
            arena_bytes,
            ..Settings::on(bed, &folder)
        };
        let testbed = Self {
            bed,
            chunks: folder.join("chunks"),
            folder,
            plan,
            started: started()?,
            tickets,
            settings,
            baseline,
            half_rate: OnceCell::new(),
            at_half: RefCell::default(),
            memory: RefCell::default(),
            cpus: cpus()?,
            distance: RefCell::default(),
        };
        testbed.prepare()?;
        Ok(testbed)
    }

    /// Sets routes to the generated sources, and RPS, so that each side's CPU also does the
    /// kernel's part of receiving.
    fn prepare(&self) -> Result<()> {
        let Bed { edge, reader, .. } = self.bed;
        let known = |side: &Side, other: &Side| {
            let (ipv4, station) = (other.ipv4, bed::station(other.mac));
            format!("neigh replace {ipv4} lladdr {station} dev {}", side.link)
        };
        let net = format!("route add {NET}.0.0/16 via {}", reader.ipv4);
        edge.ip_batch([net, known(edge, reader)])?;
        reader.ip_batch([known(reader, edge)])?;
        for (side, cpu) in [(edge, self.cpus[0]), (reader, self.cpus[1])] {
            let file = format!("/sys/class/net/{}/queues/rx-0/rps_cpus", side.link);
            let mask = format!("{:x}", 1_u64 << cpu);
            let mut write = side.inside("/bin/sh");
            process::run(write.args(["-c", &format!("echo {mask} > {file}")]))?;
        }
        Ok(())
    }

    /// Attaches the PASS program to the reader's end. With it the edge's replies from the driver
    /// arrive; without it the kernel passes large sends on in one piece, as hardware would segment
    /// them. So it is attached during handshakes, and not during measurements.
    pub(super) fn pass(&self, on: bool) -> Result<()> {
        let reader = &self.bed.reader;
        // Removes what a generator left there.
        reader.detach()?;
        if on { reader.attach_pass() } else { Ok(()) }
    }

    /// A command on a side's CPU.
    pub(super) fn command(&self, side: &Side, program: &Path) -> Command {
        let cpu = if side.link == self.bed.edge.link {
            self.cpus[0]
        } else {
            self.cpus[1]
        };
        let mut command = side.inside(taskset());
        command.args(["-c", &cpu.to_string()]).arg(program);
        command
    }

    /// The programs of the build that is measured.
    pub(super) fn programs(&self) -> &Path {
        &self.settings.programs
    }

    pub(super) fn edge_bench(&self, side: &Side) -> Command {
        self.command(side, &paths::release("edge-bench"))
    }

    /// The edge's address and port.
    pub(super) fn edge(&self) -> String {
        format!("{}:{PORT}", self.bed.edge.ipv4)
    }

    /// Address and port of a ceiling.
    pub(super) fn ceiling_address(&self) -> String {
        format!("{}:{CEILING_PORT}", self.bed.edge.ipv4)
    }

    /// Starts an edge that holds all chunks, and checks its mode. All CPUs fill it; it serves on
    /// its own.
    pub(super) fn warm_edge(&self, sender: &str, xdp: &str) -> Result<(Daemon, Value)> {
        self.warm_edge_of(&self.settings.programs, sender, xdp)
    }

    /// The same, with the programs of this build.
    pub(super) fn warm_edge_of(
        &self,
        programs: &Path,
        sender: &str,
        xdp: &str,
    ) -> Result<(Daemon, Value)> {
        let settings = Settings {
            programs: programs.to_owned(),
            sender: sender.into(),
            xdp: xdp.into(),
            ..self.settings.clone()
        };
        let (edged, mode, _) = self.filled_edge(&settings)?;
        let mut pin = Command::new(taskset());
        pin.args(["--all-tasks", "--cpu-list", "--pid"]);
        pin.args([self.cpus[0].to_string(), edged.id().to_string()]);
        process::output(&mut pin)?;
        Ok((edged, mode))
    }

    /// Starts an edge with the arena of P8, and returns the state of its store.
    pub(super) fn large_edge(&self, sender: &str) -> Result<(Daemon, Value, Value)> {
        self.filled_edge(&Settings {
            sender: sender.into(),
            arena_bytes: LARGE_ARENA_BYTES,
            ..self.settings.clone()
        })
    }

    /// Fills the first edge and verifies every chunk.
    fn filled_edge(&self, settings: &Settings) -> Result<(Daemon, Value, Value)> {
        let config = self.folder.join("edged.toml");
        let edged = Daemon::start(&mut settings.command(self.bed, &config)?)?;
        let mut fill = self.edge_bench(&self.bed.reader);
        fill.args(["load", "--edge", &self.edge(), "--tickets"]);
        fill.arg(&self.tickets);
        if self.chunks.exists() {
            fill.arg("--touch");
        } else {
            fill.arg("--warm").arg("--write-chunks").arg(&self.chunks);
        }
        let filled: Value = serde_json::from_str(&process::output(&mut fill)?)?;
        if filled["wrong"] != 0 {
            bail!("the edge sent corrupt chunks: {filled}");
        }
        let counts = settings.counts()?;
        let (mode, store) = (counts.mode().clone(), counts.all()["store"].clone());
        if mode["sender"] != settings.sender || mode["xdp"] != settings.xdp {
            let Settings { sender, xdp, .. } = settings;
            bail!("the edge runs in {mode} instead of sender {sender}, xdp {xdp}");
        }
        if store["resident"].as_u64() < Some(self.chunk_count()) {
            let count = self.chunk_count();
            bail!("the edge has {store} instead of {count} chunks");
        }
        Ok((edged, mode, store))
    }

    /// A server of `edge-bench ceiling`, ready.
    pub(super) fn ceiling(&self, words: &[&str]) -> Result<Daemon> {
        let mut command = self.edge_bench(&self.bed.edge);
        Daemon::start(command.arg("ceiling").args(words))
    }

    /// Answers each packet with a prepared one, by AF_XDP.
    pub(super) fn reflector(&self) -> Result<Daemon> {
        self.by_program("reflector", ["--reply-bytes", REPLY_BYTES])
    }

    /// Returns or drops each packet in the driver.
    pub(super) fn driver(&self, action: &str) -> Result<Daemon> {
        self.by_program("driver", ["--action", action])
    }

    fn by_program(&self, which: &str, how: [&str; 2]) -> Result<Daemon> {
        let programs = programs();
        let programs = programs.to_str().context("a path that is not UTF-8")?;
        let port = CEILING_PORT.to_string();
        let link = self.bed.edge.link;
        let words = [which, "--interface", link, "--port", &port];
        self.ceiling(&[&words[..], &how, &["--programs", programs]].concat())
    }

    /// Number of chunks.
    pub(super) fn chunk_count(&self) -> u64 {
        self.plan.content_bytes / CHUNK_BYTES
    }
}

fn taskset() -> PathBuf {
    process::find("taskset").unwrap_or_else(|| "taskset".into())
}

/// Object file with the programs for measurements.
pub(super) fn programs() -> PathBuf {
    paths::xdp().join("edge-bench-xdp")
}

/// The first two CPUs of this process.
fn cpus() -> Result<[usize; 2]> {
    let set = rustix::thread::sched_getaffinity(None).context("cannot read the CPU affinity")?;
    let mut cpus = (0..rustix::thread::CpuSet::MAX_CPU).filter(|cpu| set.is_set(*cpu));
    let first = cpus.next().context("no CPU in the affinity mask")?;
    Ok([first, cpus.next().unwrap_or(first)])
}

/// The current time in RFC 3339, UTC.
fn started() -> Result<String> {
    let mut date = Command::new("date");
    let text = process::output(date.args(["-u", "+%Y-%m-%dT%H:%M:%SZ"]))?;
    Ok(text.trim().to_owned())
}
