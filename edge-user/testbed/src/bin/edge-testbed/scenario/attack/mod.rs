//! Attacks an edge and its readers, and looks at what became of the promises.

/// The attacks on an edge.
mod flood;
/// The attacks of somebody beside the link on a reader.
mod side;
/// One attack beside an honest edge, from start to audit.
mod run;
/// The legitimate reader beside it.
mod life;
/// Edges that mean harm.
mod hostile;
/// What an attacker knows and can do.
mod scene;
/// Frames as he makes them.
mod frames;
/// His end of the link.
mod line;
/// Who sent and who got how much.
mod tally;
/// The reader that has to live with it.
mod reader;
/// What came out.
mod report;

use std::collections::HashMap;
use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use clap::builder::PossibleValuesParser;
use edge_ebpf::wire::ChunkId;
use edge_testbed::{
    clock,
    daemon::{Counts, Daemon},
    machine::Machine,
    objects::{self, Sealed, files},
    stop::Stop,
};

use self::line::{Line, Mac};
use self::reader::End;
use self::report::{Report, Row};
use crate::scenario::dice::Dice;
use crate::stage::{self, Stage};

/// What the legitimate reader fetches again and again.
const HOT_BYTES: usize = 8_000_000;
/// The same where its goodput is measured: long against the start of a program.
const LARGE_BYTES: usize = 48_000_000;
/// What it fetches once.
const COLD_BYTES: usize = 1_000_000;
/// Of few segments.
const SMALL_BYTES: usize = 6000;
const ARENA_BYTES: u64 = 128 << 20;

#[derive(Args)]
pub(crate) struct Attack {
    #[command(flatten)]
    stage: stage::Options,
    /// Only these attacks
    #[arg(
        long,
        value_name = "NAME,…",
        value_delimiter = ',',
        value_parser = names(),
        hide_possible_values = true
    )]
    only: Vec<String>,
    /// How long each attack goes on, at least
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..=600))]
    seconds: u32,
    /// Tell what attacks there are, and do nothing
    #[arg(long)]
    list: bool,
}

pub(super) fn attack(options: &Attack) -> Result<()> {
    if options.list {
        for (name, does) in all() {
            println!("{name:16} {does}");
        }
        return Ok(());
    }
    stage::perform(
        &options.stage,
        "the scenario makes network namespaces, loads an XDP program and sends raw frames; it",
        "an attack broke a promise",
        |machine| play(options, machine),
    )
}

/// Name of each attack, and what it does.
fn all() -> Vec<(&'static str, &'static str)> {
    let floods = flood::ATTACKS
        .iter()
        .map(|attack| (attack.name, attack.does));
    let forgeries = side::ATTACKS
        .iter()
        .map(|attack| (attack.name, attack.does));
    let edges = hostile::ATTACKS
        .iter()
        .map(|attack| (attack.name, attack.does));
    floods.chain(forgeries).chain(edges).collect()
}

fn names() -> PossibleValuesParser {
    all().into_iter().map(|(name, _)| name).into()
}

/// What all attacks have in common.
struct Play<'a> {
    stage: &'a Stage<'a>,
    edges: [SocketAddr; 2],
    edge_mac: Mac,
    hot_object: &'a Sealed,
    cold_objects: Vec<Sealed>,
    large_object: Sealed,
    /// A chunk of the hot object.
    hot: ChunkId,
    /// One of few segments, for edges that mean harm.
    small_object: Sealed,
    /// Every chunk at the origin.
    chunks: HashMap<ChunkId, Vec<u8>>,
    secret: [u8; 32],
    /// How long an attack goes on at a time.
    slice: Duration,
}

fn play(options: &Attack, machine: &mut Machine) -> Result<Report> {
    let begin = clock::now();
    let mut dice = Dice::new(2);
    let choose = |folder: &Path| noise(folder, "hot", HOT_BYTES, 1, &mut dice);
    let mut stage = Stage::set(&options.stage, machine, choose)?;
    stage.settings.arena_bytes = ARENA_BYTES;
    let [hot_object] = stage.sealed.as_slice() else {
        bail!("one object was sealed");
    };
    let chunks = read_chunks(stage.settings.origin())?;
    let full = chunks.iter().max_by_key(|(_, bytes)| bytes.len());
    let hot = *full.context("no chunk was sealed")?.0;
    let mut seal = |name, bytes, count| {
        let folder = stage.folder.join(name);
        fs::create_dir(&folder)?;
        let files = noise(&folder, name, bytes, count, &mut dice)?;
        objects::seal(files, &folder, stage.settings.origin())
    };
    let cold_objects = seal("cold", COLD_BYTES, 2 * life::ROUNDS)?;
    let large_object = seal("large", LARGE_BYTES, 1)?.remove(0);
    let small_object = seal("small", SMALL_BYTES, 1)?.remove(0);
    let mut secret = [0; 32];
    dice.fill(&mut secret);
    flood::prepare(stage.bed)?;
    let play = Play {
        stage: &stage,
        edges: stage.bed.services(),
        edge_mac: Line::on(&stage.bed.edge)?.mac,
        hot_object,
        cold_objects,
        large_object,
        hot,
        small_object,
        chunks: read_chunks(stage.settings.origin())?,
        secret,
        slice: Duration::from_secs(options.seconds.into()) / 2,
    };
    // One that nobody attacks: what must be there is there.
    let edged = play.start_edge()?;
    let mode = Counts::read(&stage.settings.socket)?.mode().clone();
    edged.stop()?;
    let wanted = |name: &str| options.only.is_empty() || options.only.iter().any(|one| one == name);
    let mut rows = Vec::new();
    for attack in flood::ATTACKS.iter().filter(|attack| wanted(attack.name)) {
        begins(attack.name, attack.does);
        rows.push(row(attack.name, attack.does, run::run(&play, attack))?);
    }
    for attack in side::ATTACKS.iter().filter(|attack| wanted(attack.name)) {
        begins(attack.name, attack.does);
        rows.push(row(attack.name, attack.does, side::run(&play, attack))?);
    }
    let malice = hostile::ATTACKS.iter().filter(|one| wanted(one.name));
    let malice: Vec<&hostile::Malice> = malice.collect();
    for one in &malice {
        begins(one.name, one.does);
    }
    rows.extend(hostile::run(&play, &malice)?);
    Ok(Report {
        rows,
        mode,
        seconds: begin.elapsed().as_secs_f64(),
    })
}

impl Play<'_> {
    /// An edge with nothing in its store, whose cookie secret we know.
    fn start_edge(&self) -> Result<Daemon> {
        let Stage {
            bed,
            settings,
            config,
            folder,
            ..
        } = self.stage;
        let secret = folder.join("secret");
        fs::write(&secret, self.secret)?;
        fs::set_permissions(&secret, fs::Permissions::from_mode(0o600))?;
        let mut command = settings.command(bed, config)?;
        Daemon::start(command.env("SEALEDGE_COOKIE__SECRET_FILE", secret))
    }

    /// Has the edge fetch what attackers ask for.
    fn warm(&self) -> Result<()> {
        match self.fetch(self.hot_object, 0, &mut || {})? {
            (_, End::Whole) => Ok(()),
            (_, end) => bail!("before any attack the reader's file {}", end.told()),
        }
    }

    /// Fetches an object over IPv4 (0) or IPv6 (1).
    fn fetch(
        &self,
        object: &Sealed,
        family: usize,
        meanwhile: &mut dyn FnMut(),
    ) -> Result<(f64, End)> {
        let out = self.stage.folder.join("out");
        let reader = &self.stage.bed.reader;
        reader::fetch(reader, object, self.edges[family], &out, meanwhile)
    }
}

/// What came of an attack. That it could not be carried through is a result too.
fn row(name: &'static str, does: &'static str, run: Result<Row>) -> Result<Row> {
    match run {
        Err(error) if !error.is::<Stop>() => Ok(Row::broken(name, does, &error)),
        run => run,
    }
}

fn begins(name: &str, does: &str) {
    eprintln!("--- {name}: {does}");
}

/// Every chunk that was sealed to an origin.
fn read_chunks(origin: &Path) -> Result<HashMap<ChunkId, Vec<u8>>> {
    let files = files::under(&origin.join("chunks"))?;
    let read = |file: &PathBuf| Ok((scene::chunk_id(file)?, fs::read(file)?));
    files.iter().map(read).collect()
}

/// Files of nothing in particular.
fn noise(
    folder: &Path,
    name: &str,
    bytes: usize,
    count: usize,
    dice: &mut Dice,
) -> Result<Vec<files::Object>> {
    let mut content = vec![0; bytes];
    let write = |number| {
        dice.fill(&mut content);
        let file = folder.join(format!("{name}{number}"));
        fs::write(&file, &content)?;
        Ok(file)
    };
    let written = (0..count).map(write).collect::<Result<Vec<PathBuf>>>()?;
    files::choose(&written, folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_attack_has_a_name_of_its_own() {
        let names: Vec<_> = all().into_iter().map(|(name, _)| name).collect();
        let mut once = names.clone();
        once.sort_unstable();
        once.dedup();
        assert_eq!(once.len(), names.len(), "{names:?}");
    }
}
