//! Content to measure with: objects of random bytes, sealed like any other.

use std::fs::File;
use std::io::{Read, Write as _};
use std::path::PathBuf;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use clap::Args;
use edge_user::seal::publish::{make_durable, open_origin, publish};
use indicatif::{ProgressBar, ProgressStyle};
use rand::rngs::SmallRng;
use rand::{RngExt as _, SeedableRng as _};

/// The content is random and the same for each run with the same seed. The keys are new each time
/// and discarded: no reader needs them.
#[derive(Args)]
pub struct Seed {
    /// Origin: an existing directory
    #[arg(long, value_name = "DIR")]
    origin: PathBuf,
    /// Total size in bytes
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    bytes: u64,
    /// Size of each object in bytes; the last one gets the remainder
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    object_bytes: u64,
    /// Output file for the public tickets, one per line
    #[arg(long, value_name = "FILE")]
    tickets: PathBuf,
}

/// An endless stream of random bytes.
struct Noise(SmallRng);

impl Read for Noise {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        self.0.fill(buffer);
        Ok(buffer.len())
    }
}

/// Progress on a terminal.
pub(crate) fn bar(bytes: u64) -> Result<ProgressBar> {
    let style =
        ProgressStyle::with_template("{bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}")
            .context("a template of ours")?;
    Ok(ProgressBar::new(bytes).with_style(style))
}

pub fn seed(options: &Seed) -> Result<()> {
    let origin = options.origin.display().to_string();
    let store = open_origin(&origin)?;
    let stop = AtomicBool::new(false);
    let bar = bar(options.bytes)?;
    // An object without its ticket is useless: each ticket is written as soon as its object is
    // complete.
    let unwritten = || format!("cannot write {}", options.tickets.display());
    let mut tickets = File::create(&options.tickets).with_context(unwritten)?;
    let mut rest = options.bytes;
    for number in 0.. {
        if rest == 0 {
            break;
        }
        let size_bytes = rest.min(options.object_bytes);
        rest -= size_bytes;
        let content = Noise(SmallRng::seed_from_u64(number)).take(size_bytes);
        let mut progress = |bytes| bar.inc(bytes);
        let ticket = publish(content, size_bytes, store.as_ref(), &stop, &mut progress)?;
        writeln!(tickets, "{}", ticket.public().encode()).with_context(unwritten)?;
    }
    bar.finish_and_clear();
    make_durable(&origin).with_context(|| format!("cannot sync {origin} to disk"))
}
