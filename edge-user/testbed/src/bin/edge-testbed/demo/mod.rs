//! Seals real files, serves them from an edge, fetches them through XDP, and tells about it.

/// What came out.
mod report;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Result;
use clap::Args;
use edge_testbed::{
    clock,
    daemon::{Counts, Daemon},
    machine::Machine,
    objects::{self, Sealed, files},
    process,
    stop::{self, Stop},
};

use self::report::{Cold, Fetched, Hot, Report};
use crate::testbed::{self, Testbed};

/// Reasons for which the XDP program leaves a good GET to the kernel.
const TO_KERNEL: &[&str] = &["miss", "no_socket", "no_metadata"];

#[derive(Args)]
pub(crate) struct Demo {
    /// What to send; three files of this machine when none is named
    files: Vec<PathBuf>,
    #[command(flatten)]
    testbed: testbed::Options,
}

pub(crate) fn demo(options: &Demo) -> Result<()> {
    testbed::perform(
        &options.testbed,
        "demo makes network namespaces, loads an XDP program and reserves hugepages; it",
        "the demo did not keep its promises",
        |machine| run(options, machine),
    )
}

fn run(options: &Demo, machine: &mut Machine) -> Result<Report> {
    let choose = |folder: &Path| files::choose(&options.files, folder);
    let testbed = Testbed::new(&options.testbed, machine, choose)?;
    let mut edged = testbed.start_edge()?;
    let report = Run { testbed: &testbed }.phases(&mut edged)?;
    edged.stop()?;
    Ok(report)
}

/// The time when the edge runs.
struct Run<'a> {
    testbed: &'a Testbed<'a>,
}

impl Run<'_> {
    fn phases(&self, edged: &mut Daemon) -> Result<Report> {
        let Testbed {
            bed,
            sealed,
            settings,
            ..
        } = self.testbed;
        let [ipv4, ipv6] = bed.services();
        let mut fetched: Vec<(&Sealed, String)> =
            sealed.iter().map(|one| (one, String::new())).collect();
        let start = Counts::read(&settings.socket)?;
        let cold_seconds = self.fetch_all(&mut fetched, ipv4, edged)?;
        let cold_end = Counts::read(&settings.socket)?;
        let hot_seconds = self.fetch_all(&mut fetched, ipv4, edged)?
            + self.fetch_all(&mut fetched, ipv6, edged)?;
        let hot_end = Counts::read(&settings.socket)?;

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
                distinct_chunks: self.testbed.distinct_chunks,
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
                    object: one.object.clone(),
                    sha256_out,
                })
                .collect(),
        })
    }

    /// Fetches every object once; returns the seconds the fetches took together. A hash that was
    /// wrong once stays in the report.
    fn fetch_all(
        &self,
        fetched: &mut [(&Sealed, String)],
        edge: SocketAddr,
        edged: &mut Daemon,
    ) -> Result<f64> {
        let mut seconds = 0.0;
        for (one, sha256_out) in fetched {
            let out = self.testbed.folder.join("out");
            let mut get = objects::get(&self.testbed.bed.reader, &one.ticket, edge, &out);
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
