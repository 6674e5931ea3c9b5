//! Seals real files, serves them from an edge, fetches them through XDP, and reports.

/// The result.
mod report;

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use clap::Args;
use edge_testbed::{
    daemon::{Counts, Daemon},
    host_guard::HostGuard,
    objects::files,
};

use self::report::{Cold, Fetched, Hot, Report};
use crate::reader::{End, fetch};
use crate::testbed::{self, Testbed};

/// Reasons for which the XDP program passes a valid GET to the kernel.
const TO_KERNEL: &[&str] = &["miss", "no_socket", "no_metadata"];

#[derive(Args)]
pub(crate) struct Demo {
    /// Files to send; by default three files of this host
    files: Vec<PathBuf>,
    #[command(flatten)]
    testbed: testbed::Options,
}

pub(crate) fn demo(options: &Demo) -> Result<()> {
    testbed::perform(
        &options.testbed,
        "demo creates network namespaces, loads an XDP program and reserves hugepages; it",
        "the demo broke a promise",
        |machine| run(options, machine),
    )
}

fn run(options: &Demo, machine: &mut HostGuard) -> Result<Report> {
    let choose = |folder: &Path| files::choose(&options.files, folder);
    let testbed = Testbed::new(&options.testbed, machine, choose)?;
    let mut edged = testbed.start_edge()?;
    let report = Run { testbed: &testbed }.phases(&mut edged)?;
    edged.stop()?;
    Ok(report)
}

/// While the edge runs.
struct Run<'a> {
    testbed: &'a Testbed<'a>,
}

impl Run<'_> {
    fn phases(&self, edged: &mut Daemon) -> Result<Report> {
        let socket = &self.testbed.settings.socket;
        let objects = self.testbed.sealed.iter().map(|one| Fetched {
            object: one.object.clone(),
            whole: true,
        });
        let mut fetched: Vec<Fetched> = objects.collect();
        let start = Counts::read(socket)?;
        let cold_seconds = self.fetch_all(&mut fetched, 0, edged)?;
        let cold_end = Counts::read(socket)?;
        let hot_seconds =
            self.fetch_all(&mut fetched, 0, edged)? + self.fetch_all(&mut fetched, 1, edged)?;
        let hot_end = Counts::read(socket)?;

        let bytes: u64 = fetched.iter().map(|one| one.object.size).sum();
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
            objects: fetched,
        })
    }

    /// Fetches every object once; returns the total seconds. A failure stays in the report.
    fn fetch_all(&self, fetched: &mut [Fetched], family: usize, edged: &mut Daemon) -> Result<f64> {
        let mut seconds = 0.0;
        let Testbed { bed, folder, .. } = self.testbed;
        for (one, fetched) in self.testbed.sealed.iter().zip(fetched) {
            let edge = bed.services()[family];
            let ended = fetch(
                &bed.reader,
                one,
                edge,
                &folder.join("out"),
                Duration::MAX,
                || false,
            )?;
            edged.runs()?;
            let (took, end) = ended.context("a reader was not waited for")?;
            seconds += took.as_secs_f64();
            match end {
                End::Whole => {}
                End::Altered => fetched.whole = false,
                End::Failed(..) | End::Hung(_) | End::Broken(_) => {
                    bail!("{}: a reader {end}", one.object.name)
                }
            }
        }
        Ok(seconds)
    }
}
