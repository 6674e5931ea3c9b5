//! Searches a busy edge for what it must never have: keys and plaintext.

/// The search strings, and where they were found.
mod scan;
/// The byte strings that represent content.
mod runs;
/// Keys, and where an object's ciphertext is.
mod secrets;
/// Searches for many byte strings in one pass.
mod search;
/// The memory of a process.
mod memory;
/// A file of text to publish.
mod text_corpus;
/// The result.
mod report;

use std::collections::BTreeMap;
use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow, bail};
use clap::Args;
use edge_testbed::{
    clock,
    daemon::{Counts, Daemon, METRICS},
    host_guard::HostGuard,
    objects::{Sealed, files},
    paths,
};
use serde_json::Value;

use self::memory::Layout;
use self::report::Report;
use self::scan::Scan;
use super::http;
use super::load::Load;
use crate::testbed::{self, Testbed};

/// Everything is fetched this many times before the main search of memory: once cold, then hot.
const ROUNDS: u64 = 3;
/// Limit for the edge's answer to an admin request.
const ANSWER_WITHIN: Duration = Duration::from_secs(5);

#[derive(Args)]
pub(crate) struct Blind {
    /// Files to publish; by default three files of this host and one of text
    files: Vec<PathBuf>,
    #[command(flatten)]
    testbed: testbed::Options,
    /// Seed of the random choice of search strings
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

pub(super) fn blind(options: &Blind) -> Result<()> {
    testbed::perform(
        &options.testbed,
        "the scenario creates network namespaces, loads an XDP program and reads the memory of \
         another process; it",
        "the edge is not shown to be blind",
        |machine| run(options, machine),
    )
}

fn run(options: &Blind, machine: &mut HostGuard) -> Result<Report> {
    let choose = |folder: &Path| published(&options.files, folder);
    let testbed = Testbed::new(&options.testbed, machine, choose)?;
    let edged = testbed.start_edge()?;

    let own = Layout::of(edged.id())?.files();
    if !own.iter().any(|file| *file == paths::release("edged")) {
        bail!("process {} is not edged: it maps {own:?}", edged.id());
    }
    let scan = Scan::prepare(
        &testbed.sealed,
        testbed.settings.origin(),
        &own,
        options.seed,
    )?;
    let search = Search { testbed: &testbed };
    search.run(scan, edged, options.seed)
}

/// The given files, or those of the demo and one of text.
fn published(asked: &[PathBuf], folder: &Path) -> Result<Vec<files::Object>> {
    let mut chosen = files::choose(asked, folder)?;
    if asked.is_empty() {
        let text = folder.join("text");
        text_corpus::write(&text)?;
        chosen.extend(files::choose(&[text], folder)?);
    }
    Ok(chosen)
}

/// While the edge runs.
struct Search<'a> {
    testbed: &'a Testbed<'a>,
}

/// What the edge reads and writes as text.
type Texts = BTreeMap<&'static str, Vec<u8>>;

impl Search<'_> {
    fn run(&self, mut scan: Scan, mut edged: Daemon, seed: u64) -> Result<Report> {
        let begin = clock::now();
        let load = Load::new(self.testbed);
        let mut texts = Texts::new();
        let (fetches, mode) = thread::scope(|scope| {
            let reader = scope.spawn(|| load.run());
            let stop = load.stop_guard();
            let searched = self.search_at_work(&mut scan, &mut texts, &load, &mut edged);
            drop(stop);
            let read = reader.join();
            // An edge that ended is the better explanation than a reader without replies.
            let searched = searched?;
            read.map_err(|_panic| anyhow!("the reader panicked"))??;
            Ok::<_, anyhow::Error>(searched)
        })?;
        texts.insert("log", edged.stop()?.join("\n").into_bytes());
        for (name, text) in &texts {
            scan.search(name, text.as_slice())?;
        }
        let plain: Vec<PathBuf> = self.each(|one| one.object.path.clone());
        let tickets: Vec<PathBuf> = self.each(|one| one.ticket.clone());
        Ok(Report {
            plain: scan.look_in_files("files as published", &plain)?,
            tickets: scan.look_in_files("tickets", &tickets)?,
            client_in: self.client_in(&texts),
            scan,
            seed,
            fetches,
            seconds: begin.elapsed().as_secs_f64(),
            mode,
        })
    }

    fn each<T>(&self, of: impl Fn(&Sealed) -> T) -> Vec<T> {
        self.testbed.sealed.iter().map(of).collect()
    }

    /// Searches while the reader reads. Returns how many objects it fetched meanwhile, and the mode
    /// in use.
    fn search_at_work(
        &self,
        scan: &mut Scan,
        texts: &mut Texts,
        load: &Load<'_>,
        edged: &mut Daemon,
    ) -> Result<(u64, Value)> {
        let layout = Layout::of(edged.id())?;
        let all = [layout.arena, layout.others].concat();
        scan.search_memory("memory, while it fills", edged.id(), all)?;

        load.wait_for_rounds(ROUNDS, edged)?;
        let before = load.fetches();
        // Read again: new threads and buffers have appeared.
        let layout = Layout::of(edged.id())?;
        scan.search_memory(report::ARENA, edged.id(), layout.arena)?;
        scan.search_memory("memory besides the arena", edged.id(), layout.others)?;
        scan.search_files(
            report::ORIGIN,
            &files::under(self.testbed.settings.origin())?,
        )?;
        texts.insert("configuration", fs::read(&self.testbed.config)?);
        texts.insert("admin answer", self.admin_answer()?);
        texts.insert("metrics", self.metrics()?);
        let mode = Counts::read(&self.testbed.settings.socket)?.mode().clone();
        // The reader was active throughout: the fetch that it had begun is complete.
        load.wait_for_fetches(before + 1, edged)?;
        Ok((load.fetches() - before, mode))
    }

    fn admin_answer(&self) -> Result<Vec<u8>> {
        let socket = &self.testbed.settings.socket;
        let stream = UnixStream::connect(socket)
            .with_context(|| format!("cannot reach {}", socket.display()))?;
        stream.set_read_timeout(Some(ANSWER_WITHIN))?;
        http::get(stream, "/v1/stat")
    }

    fn metrics(&self) -> Result<Vec<u8>> {
        self.testbed.bed.edge.enter(|| {
            let stream =
                TcpStream::connect(METRICS).with_context(|| format!("cannot reach {METRICS}"))?;
            stream.set_read_timeout(Some(ANSWER_WITHIN))?;
            http::get(stream, "/metrics")
        })?
    }

    /// Texts that contain the reader's address.
    fn client_in(&self, texts: &Texts) -> Vec<String> {
        let reader = &self.testbed.bed.reader;
        let client = [reader.ipv4.to_string(), reader.ipv6.to_string()];
        let names = |text: &[u8]| {
            client.iter().any(|ip| {
                let ip = ip.as_bytes();
                text.windows(ip.len()).any(|window| window == ip)
            })
        };
        let guilty = texts.iter().filter(|(_, text)| names(text));
        guilty.map(|(name, _)| (*name).to_owned()).collect()
    }
}
