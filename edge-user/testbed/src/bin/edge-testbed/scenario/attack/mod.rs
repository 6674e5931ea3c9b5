//! Attacks an edge and its readers, and checks the promises.

/// The attacks on an edge.
mod flood;
/// The attacks on a reader by an attacker on the path.
mod on_path;
/// Runs one attack against an honest edge, from start to audit.
mod run;
/// The legitimate reader meanwhile.
mod victim;
/// Malicious edges.
mod hostile;
/// What an attacker knows and can do.
mod attacker;
/// Frames that an attacker builds.
mod frames;
/// Counts sent and received bytes by address.
mod tally;
/// The results.
mod report;

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use edge_ebpf::wire::ChunkId;
use edge_testbed::{
    clock,
    daemon::{Counts, Daemon},
    fake_edge,
    host_guard::HostGuard,
    objects::{self, Sealed},
    packet::Mac,
    raw_socket::RawSocket,
    stop::Stop,
};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

use self::report::{Report, Row};
use crate::reader::{End, HANGS_AFTER, fetch};
use crate::scenario::random_files;
use crate::scenario::selection::{Selection, Table};
use crate::testbed::{self, Testbed};

/// The object that the legitimate reader fetches repeatedly.
const HOT_BYTES: usize = 8_000_000;
/// The same where its goodput is measured: large, so that program start is negligible.
const LARGE_BYTES: usize = 48_000_000;
/// The objects that it fetches once.
const COLD_BYTES: usize = 1_000_000;
/// An object of few segments.
const SMALL_BYTES: usize = 6000;
const ARENA_BYTES: u64 = 128 << 20;

#[derive(Args)]
pub(crate) struct Attack {
    #[command(flatten)]
    testbed: testbed::Options,
    #[command(flatten)]
    selection: Selection<Attacks>,
    /// Minimum duration of each attack in seconds
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
}

#[derive(Clone)]
pub(super) struct Attacks;

impl Table for Attacks {
    fn rows() -> Vec<(&'static str, &'static str)> {
        let floods = flood::ATTACKS.iter().map(|one| (one.name, one.does));
        let forgeries = on_path::ATTACKS.iter().map(|one| (one.name, one.does));
        let edges = hostile::ATTACKS.iter().map(|one| (one.name, one.does));
        floods.chain(forgeries).chain(edges).collect()
    }
}

pub(super) fn attack(options: &Attack) -> Result<()> {
    if options.selection.listed() {
        return Ok(());
    }
    testbed::perform(
        &options.testbed,
        "the scenario creates network namespaces, loads an XDP program and sends raw frames; it",
        "an attack broke a promise",
        |machine| run(options, machine),
    )
}

/// The setup of all attacks.
struct Session<'a> {
    testbed: &'a Testbed<'a>,
    edges: [SocketAddr; 2],
    edge_mac: Mac,
    hot_object: &'a Sealed,
    cold_objects: Vec<Sealed>,
    large_object: Sealed,
    /// A chunk of the hot object.
    hot: ChunkId,
    /// An object of few segments, for malicious edges.
    small_object: Sealed,
    /// Every chunk at the origin.
    chunks: HashMap<ChunkId, Vec<u8>>,
    secret: [u8; 32],
    /// Duration of an attack's periods.
    slice: Duration,
}

fn run(options: &Attack, machine: &mut HostGuard) -> Result<Report> {
    let begin = clock::now();
    let mut rng = SmallRng::seed_from_u64(2);
    let choose = |folder: &Path| random_files(folder, "hot", HOT_BYTES, 1, &mut rng);
    let mut testbed = Testbed::new(&options.testbed, machine, choose)?;
    testbed.settings.arena_bytes = ARENA_BYTES;
    let [hot_object] = testbed.sealed.as_slice() else {
        bail!("one object was sealed");
    };
    let origin = testbed.settings.origin();
    let chunks = fake_edge::chunks(origin)?;
    let full = chunks.iter().max_by_key(|(_, bytes)| bytes.len());
    let hot = *full.context("no chunk was sealed")?.0;
    let mut seal = |name, bytes, count| {
        let folder = testbed.folder.join(name);
        fs::create_dir(&folder)?;
        let files = random_files(&folder, name, bytes, count, &mut rng)?;
        objects::seal(files, &folder, origin)
    };
    let cold_objects = seal("cold", COLD_BYTES, 2 * victim::ROUNDS)?;
    let large_object = seal("large", LARGE_BYTES, 1)?.remove(0);
    let small_object = seal("small", SMALL_BYTES, 1)?.remove(0);
    flood::prepare(testbed.bed)?;
    let session = Session {
        testbed: &testbed,
        edges: testbed.bed.services(),
        edge_mac: RawSocket::on(&testbed.bed.edge)?.mac,
        hot_object,
        cold_objects,
        large_object,
        hot,
        small_object,
        chunks: fake_edge::chunks(origin)?,
        secret: rng.random(),
        slice: Duration::from_secs(options.seconds.into()) / 2,
    };
    // An object that is not attacked: it ensures that the edge serves.
    let edged = session.start_edge()?;
    let mode = Counts::read(&testbed.settings.socket)?.mode().clone();
    edged.stop()?;
    let wanted = |name: &str| options.selection.has(name);
    let mut rows = Vec::new();
    for attack in flood::ATTACKS.iter().filter(|one| wanted(one.name)) {
        rows.push(row(attack.name, attack.does, || {
            run::run(&session, attack)
        })?);
    }
    for attack in on_path::ATTACKS.iter().filter(|one| wanted(one.name)) {
        rows.push(row(attack.name, attack.does, || {
            on_path::run(&session, attack)
        })?);
    }
    let hostile = hostile::ATTACKS.iter().filter(|one| wanted(one.name));
    rows.extend(hostile::run(&session, hostile)?);
    Ok(Report {
        rows,
        mode,
        host: report::host(),
        seconds: begin.elapsed().as_secs_f64(),
    })
}

impl Session<'_> {
    /// Starts an edge with an empty store and a known cookie secret.
    fn start_edge(&self) -> Result<Daemon> {
        let Testbed {
            bed,
            settings,
            config,
            folder,
            ..
        } = self.testbed;
        let secret = folder.join("secret");
        fs::write(&secret, self.secret)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let mut command = settings.command(bed, config)?;
        Daemon::start(command.env("SEALEDGE_COOKIE__SECRET_FILE", secret))
    }

    /// Has the edge fetch what attackers request.
    fn warm(&self) -> Result<()> {
        match self.fetch(self.hot_object, 0, &mut || {})? {
            (_, End::Whole) => Ok(()),
            (_, end) => bail!("before any attack the reader {end}"),
        }
    }

    /// Fetches an object over IPv4 (0) or IPv6 (1).
    fn fetch(
        &self,
        object: &Sealed,
        family: usize,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(f64, End)> {
        let out = self.testbed.folder.join("out");
        self.fetch_to(&out, object, self.edges[family], meanwhile)
    }

    fn fetch_to(
        &self,
        out: &Path,
        object: &Sealed,
        edge: SocketAddr,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(f64, End)> {
        let never = || {
            meanwhile();
            false
        };
        let ended = fetch(
            &self.testbed.bed.reader,
            object,
            edge,
            out,
            HANGS_AFTER,
            never,
        )?;
        let (took, end) = ended.context("a reader was not waited for")?;
        Ok((took.as_secs_f64(), end))
    }
}

/// Runs an attack; a failure to carry it out is a result too.
fn row(name: &'static str, does: &'static str, run: impl FnOnce() -> Result<Row>) -> Result<Row> {
    eprintln!("--- {name}: {does}");
    match run() {
        Err(error) if !error.is::<Stop>() => Ok(Row::broken(name, does, &error)),
        run => run,
    }
}
