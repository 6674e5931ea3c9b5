//! Seals real files, serves them from an edge, fetches them through XDP, and tells about it.

/// What came out.
mod report;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;

use self::report::{Cold, Fetched, Hot, Report};
use crate::build;
use crate::clock;
use crate::daemon::{self, Counts, Daemon, Settings};
use crate::ground::{self, Ground};
use crate::machine::Machine;
use crate::objects::{self, Sealed, files};
use crate::place;
use crate::process;
use crate::rights;
use crate::stop::{self, Stop};

/// Reasons for which the XDP program leaves a good GET to the kernel.
const TO_KERNEL: &[&str] = &["miss", "no_socket", "no_metadata"];

#[derive(Args)]
pub(crate) struct Demo {
    /// What to send; three files of this machine when none is named
    files: Vec<PathBuf>,
    /// Write one JSON object, and nothing else, to standard output
    #[arg(long)]
    json: bool,
    /// How the edge sends its replies
    #[arg(long, default_value = "gso")]
    sender: String,
}

pub(crate) fn demo(options: &Demo) -> Result<()> {
    rights::need_root(
        "demo makes network namespaces, loads an XDP program and reserves hugepages; it",
    )?;
    build::build()?;
    let mut machine = Machine::borrow()?;
    let report = play(options, &mut machine)?;
    machine.give_back()?;
    if options.json {
        println!("{}", report.to_json());
    } else {
        println!("{}", report.story());
    }
    if !report.ok() {
        bail!("the demo did not keep its promises, see above");
    }
    Ok(())
}

fn play(options: &Demo, machine: &mut Machine) -> Result<Report> {
    let folder = machine.folder()?;
    let objects = files::choose(&options.files, &folder)?;
    let origin = folder.join("origin");
    std::fs::create_dir(&origin)?;
    let sealed = objects::seal(objects, &folder, &origin)?;
    let distinct_chunks = files::count(&origin.join("chunks"))?;

    let ground = Ground::named_after_this_process();
    let settings = Settings {
        interface: ground.edge.link.into(),
        queues: 1,
        listen: objects::addresses(&ground)?.to_vec(),
        origin,
        socket: folder.join("admin.sock"),
        arena_bytes: objects::arena_bytes(distinct_chunks),
        sender: options.sender.clone(),
        xdp: "native".into(),
        bind: "copy".into(),
    };
    machine.hugepages(settings.hugepage_bytes())?;
    let ground = machine.ground(&place::xdp().join("edge-pass"))?;
    let config = folder.join("edged.toml");
    daemon::write_config(&settings, &config)?;
    let mut edged = Daemon::start(
        ground::inside(&ground.edge, &place::release("edged"))
            .arg("--config")
            .arg(&config),
    )?;

    let run = Run {
        ground,
        folder: &folder,
        socket: &settings.socket,
    };
    let report = run.phases(sealed, distinct_chunks, &mut edged)?;
    edged.stop()?;
    Ok(report)
}

/// The time when the edge runs.
struct Run<'a> {
    ground: &'a Ground,
    folder: &'a Path,
    socket: &'a Path,
}

impl Run<'_> {
    fn phases(
        &self,
        sealed: Vec<Sealed>,
        distinct_chunks: u64,
        edged: &mut Daemon,
    ) -> Result<Report> {
        let [ipv4, ipv6] = objects::addresses(self.ground)?;
        let mut fetched: Vec<(Sealed, String)> =
            sealed.into_iter().map(|one| (one, String::new())).collect();
        let start = Counts::read(self.socket)?;
        let cold_seconds = self.fetch_all(&mut fetched, ipv4, edged)?;
        let cold_end = Counts::read(self.socket)?;
        let hot_seconds = self.fetch_all(&mut fetched, ipv4, edged)?
            + self.fetch_all(&mut fetched, ipv6, edged)?;
        let hot_end = Counts::read(self.socket)?;

        let bytes: u64 = fetched.iter().map(|(one, _)| one.object.size).sum();
        let since = |reasons: &[&str]| {
            hot_end
                .xdp_packets(reasons)
                .saturating_sub(cold_end.xdp_packets(reasons))
        };
        Ok(Report {
            cold: Cold {
                origin_fetches: cold_end
                    .origin_fetches()
                    .saturating_sub(start.origin_fetches()),
                distinct_chunks,
                seconds: cold_seconds,
                bytes,
            },
            hot: Hot {
                gets_xdp: since(&["steered"]),
                gets_kernel: since(TO_KERNEL),
                origin_fetches: hot_end
                    .origin_fetches()
                    .saturating_sub(cold_end.origin_fetches()),
                seconds: hot_seconds,
                bytes: 2 * bytes,
            },
            mode: hot_end.mode().clone(),
            objects: fetched
                .into_iter()
                .map(|(one, sha256_out)| Fetched {
                    object: one.object,
                    sha256_out,
                })
                .collect(),
        })
    }

    /// Fetches every object once; returns the seconds the fetches took together. A hash that was
    /// wrong once stays in the report.
    fn fetch_all(
        &self,
        fetched: &mut [(Sealed, String)],
        edge: SocketAddr,
        edged: &mut Daemon,
    ) -> Result<f64> {
        let mut seconds = 0.0;
        for (one, sha256_out) in fetched {
            let out = self.folder.join("out");
            let mut get = objects::get(&self.ground.reader, &one.ticket, edge, &out);
            let begin = clock::now();
            let result = process::run(&mut get);
            seconds += begin.elapsed().as_secs_f64();
            edged.runs()?;
            result?;
            let hash = files::sha256(&out)?;
            if sha256_out.is_empty() || *sha256_out == one.object.sha256 {
                *sha256_out = hash;
            }
            std::fs::remove_file(&out)?;
            if stop::came() {
                return Err(Stop::interrupted());
            }
        }
        Ok(seconds)
    }
}
