//! The load generator: readers that want to be served as fast as the edge can.

/// What can be asked for.
pub mod catalogue;
/// Which chunk comes next.
pub mod mix;
/// One client.
pub mod lane;
/// Whole chunks, by sockets.
pub mod bulk;
/// Single segments, by AF_XDP.
pub mod frames;
/// What was counted.
pub mod tally;

use std::fs::File;
use std::io::{self, BufRead as _, BufWriter, Write as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use clap::Args;
use edge_ebpf::frame::{Address, Endpoint};
use edge_testbed::cpu::CpuTime;
use edge_testbed::pace::Pace;
use edge_user::clock;
use serde_json::Value;

use self::bulk::Bulk;
use self::catalogue::Chunk;
use self::frames::{Answers, Frames, Nuisance, Way};
use self::mix::{Mix, Picker};
use self::tally::Tally;
use crate::ceiling::GROUP_CHUNKS;
use crate::output;

/// What is asked for, and for how long.
#[derive(Args)]
struct Work {
    /// What is asked for next: zipf:EXPONENT, uniform, scan or hot
    #[arg(long, default_value = "zipf:0.9")]
    mix: Mix,
    /// How long to measure
    #[arg(long, default_value = "5", value_parser = time)]
    seconds: Duration,
    /// How long to load the edge before that
    #[arg(long, default_value = "0.3", value_parser = time)]
    ramp_seconds: Duration,
    /// Chooses what is asked for
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Say `ready` when all is prepared, go on when a line comes on standard input, and say `begin`
    /// and `end` around what is measured
    #[arg(long)]
    wait: bool,
}

impl Work {
    fn picker(&self, chunks: &[Chunk]) -> Result<Picker> {
        Picker::new(self.mix, chunks.len(), self.seed)
    }
}

/// Who started us and watches meanwhile, if somebody does.
#[derive(Clone, Copy)]
struct Watcher {
    there: bool,
}

impl Watcher {
    /// Lets them choose the moment.
    fn wait(self) -> Result<()> {
        self.say("ready")?;
        let mut line = String::new();
        if self.there && io::stdin().lock().read_line(&mut line)? == 0 {
            bail!("standard input ended before the measurement began");
        }
        Ok(())
    }

    /// What is measured.
    fn measure<'a>(self, run: impl FnOnce() -> Result<&'a Tally>) -> Result<Value> {
        self.say("begin")?;
        let meter = Meter::start()?;
        let tally = run()?;
        self.say("end")?;
        let (seconds, cpu) = meter.read()?;
        tally.to_json(seconds, cpu)
    }

    fn say(self, word: &str) -> Result<()> {
        if self.there {
            output::print(&format!("{word}\n"))?;
        }
        Ok(())
    }
}

/// In seconds.
fn time(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok();
    seconds
        .filter(|seconds| (0.0..=86_400.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{text} is no time; write seconds, a day of them at most"))
}

/// So many requests a second.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok();
    rate.filter(|rate| (0.001..=1e9).contains(rate))
        .ok_or_else(|| format!("{text} is no rate; write a number from 0.001 to 1e9"))
}

fn pace(rate: Option<f64>) -> Pace {
    rate.map_or(Pace::Closed, Pace::Open)
}

/// What is used of time while something runs.
pub(crate) struct Meter {
    begin: Instant,
    cpu: CpuTime,
}

impl Meter {
    pub(crate) fn start() -> Result<Self> {
        Ok(Self {
            cpu: CpuTime::of(std::process::id())?,
            begin: clock::now(),
        })
    }

    /// Seconds of the clock and of this process.
    pub(crate) fn read(&self) -> Result<(f64, CpuTime)> {
        let seconds = self.begin.elapsed().as_secs_f64();
        Ok((seconds, CpuTime::of(std::process::id())?.since(self.cpu)))
    }
}

/// Fetches whole chunks through sockets, as fast as they come or at a given rate.
#[derive(Args)]
pub struct Load {
    /// The edge's address and port
    #[arg(long, value_name = "ADDR")]
    edge: SocketAddr,
    /// Public tickets to what is there, one a line
    #[arg(long, value_name = "FILE", required_unless_present = "numbered")]
    tickets: Option<PathBuf>,
    /// So many chunks by number, of a ceiling; nothing is compared then
    #[arg(long, value_name = "COUNT", conflicts_with = "tickets", value_parser = clap::value_parser!(u32).range(1..))]
    numbered: Option<u32>,
    #[command(flatten)]
    work: Work,
    /// Sockets to ask from
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// Most chunks each of them has under way
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    chunks_per_client: u16,
    /// So many chunks a second, whatever comes back; latency counts from when each was due
    #[arg(long, value_parser = rate, conflicts_with_all = ["numbered", "warm"])]
    rate: Option<f64>,
    /// Fetch everything once, compare it, and measure nothing
    #[arg(long)]
    warm: bool,
    /// Ask for one segment of each chunk, so that the edge has it, and measure nothing
    #[arg(long, conflicts_with_all = ["warm", "numbered"])]
    touch: bool,
    /// Write the chunks' names to this file, for `singles`
    #[arg(long, value_name = "FILE")]
    write_chunks: Option<PathBuf>,
}

/// Asks, and gives what came of it.
pub fn load(options: &Load) -> Result<Value> {
    let work = &options.work;
    if options.numbered.is_some() && u32::from(options.chunks_per_client) < GROUP_CHUNKS {
        bail!("--numbered asks for {GROUP_CHUNKS} chunks at once: raise --chunks-per-client");
    }
    let tickets = options.tickets.as_deref();
    if let (Some(tickets), Some(chunks)) = (tickets, &options.write_chunks) {
        output::apart(tickets, chunks)?;
    }
    let tickets = tickets.map(catalogue::tickets).transpose()?;
    let mut bulk = Bulk::open(
        options.edge,
        options.clients.into(),
        options.chunks_per_client.into(),
    )?;
    bulk.numbered = options.numbered.is_some();
    let chunks = match (&tickets, options.numbered) {
        (Some(tickets), _) => catalogue::chunks(tickets, |chunk| bulk.fetch(chunk))?,
        (None, Some(count)) => catalogue::numbered(count),
        (None, None) => bail!("there is nothing to ask for: name --tickets"),
    };
    if let Some(file) = &options.write_chunks {
        catalogue::write(&chunks, file)?;
    }
    let mut picker = work.picker(&chunks)?;
    let watcher = Watcher { there: work.wait };
    watcher.wait()?;
    let measures = !options.warm && !options.touch;
    if measures {
        bulk.run(&chunks, &mut picker, pace(options.rate), work.ramp_seconds)?;
    }
    bulk.tally = Tally::default();
    watcher.measure(|| {
        if options.warm {
            bulk.fetch_all(&chunks, |_| ())?;
        } else if options.touch {
            bulk.touch_all(&chunks)?;
        } else {
            bulk.run(&chunks, &mut picker, pace(options.rate), work.seconds)?;
        }
        Ok(&bulk.tally)
    })
}

/// The first two bytes of an IPv4 network.
fn net(text: &str) -> Result<[u8; 2], String> {
    let bytes = text.split_once('.');
    let bytes = bytes.and_then(|(high, low)| Some([high.parse().ok()?, low.parse().ok()?]));
    bytes.ok_or_else(|| format!("{text} is no network; write 10.72"))
}

/// The address of a network card.
fn station(text: &str) -> Result<[u8; 6], String> {
    let bytes = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok());
    let bytes: Option<Vec<u8>> = bytes.collect();
    let station = bytes.and_then(|bytes| bytes.try_into().ok());
    station.ok_or_else(|| format!("{text} is no station address"))
}

/// A link of one's own, and the sources beyond it.
#[derive(Args)]
struct Link {
    /// The edge's address and port
    #[arg(long, value_name = "ADDR")]
    edge: std::net::SocketAddrV4,
    /// Its station address
    #[arg(long, value_name = "MAC", value_parser = station)]
    edge_mac: [u8; 6],
    /// Interface to send from; it needs a driver with XDP and no program
    #[arg(long)]
    interface: String,
    /// Its station address
    #[arg(long, value_name = "MAC", value_parser = station)]
    own_mac: [u8; 6],
    /// Network whose addresses are the sources, as 10.72; the edge must have its way there
    #[arg(long, value_parser = net)]
    net: [u8; 2],
    /// How many sources
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    sources: u32,
    /// The object file with the programs, as `cargo xtask build` makes it
    #[arg(long, value_name = "FILE")]
    programs: PathBuf,
}

impl Link {
    fn way(&self) -> Way {
        Way {
            interface: self.interface.clone(),
            programs: self.programs.clone(),
            edge: Endpoint {
                address: Address::v4(Ipv4Addr::octets(self.edge.ip())),
                port: self.edge.port(),
            },
            edge_mac: self.edge_mac,
            own_mac: self.own_mac,
            net: self.net,
            sources: self.sources,
        }
    }
}

/// Asks for single segments from many sources, past the kernel, over a link of its own.
#[derive(Args)]
pub struct Singles {
    #[command(flatten)]
    link: Link,
    /// What `load --write-chunks` wrote
    #[arg(long, value_name = "FILE")]
    chunks: PathBuf,
    #[command(flatten)]
    work: Work,
    /// Requests under way at a time
    #[arg(long, default_value_t = 512, conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    window: u32,
    /// So many requests a second instead, whatever comes back
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Say no HELLO and take every answer: for ceilings
    #[arg(long)]
    any: bool,
}

/// Asks, and gives what came of it.
pub fn singles(options: &Singles) -> Result<Value> {
    let work = &options.work;
    let chunks = catalogue::read(&options.chunks)?;
    let answers = if options.any {
        Answers::Any
    } else {
        Answers::Data
    };
    let mut frames = Frames::open(options.link.way(), answers)?;
    if !options.any {
        frames.greet()?;
    }
    let mut picker = work.picker(&chunks)?;
    frames.window = options.window as usize;
    let pace = pace(options.rate);
    let watcher = Watcher { there: work.wait };
    watcher.wait()?;
    frames.run(&chunks, &mut picker, pace, work.ramp_seconds)?;
    frames.tally = Tally::default();
    let mut result = watcher.measure(|| {
        frames.run(&chunks, &mut picker, pace, work.seconds)?;
        Ok(&frames.tally)
    })?;
    result["offered"] = options.rate.into();
    frames.verify(&chunks)?;
    result["verified"] = frames.tally.verified.into();
    result["wrong"] = frames.tally.wrong.into();
    Ok(result)
}

/// Sends what is of no use to anybody, past the kernel, over a link of its own.
#[derive(Args)]
pub struct Flood {
    #[command(flatten)]
    link: Link,
    /// What it is made of, in equal parts
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    of: Vec<Nuisance>,
    /// So many a second; as fast as it goes if not given
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    #[arg(long, value_parser = time)]
    seconds: Duration,
    /// Say `ready` when all is prepared, go on when a line comes on standard input, and say `begin`
    /// and `end` around what is measured
    #[arg(long)]
    wait: bool,
}

/// Sends, and tells how much.
pub fn flood(options: &Flood) -> Result<Value> {
    let mut frames = Frames::open(options.link.way(), Answers::Any)?;
    let watcher = Watcher {
        there: options.wait,
    };
    watcher.wait()?;
    watcher.measure(|| {
        frames.flood(&options.of, options.rate, options.seconds)?;
        Ok(&frames.tally)
    })
}

/// Draws chunks as the generators do, for a generator of somebody else: their paths at an origin.
#[derive(Args)]
pub struct Draw {
    /// What `load --write-chunks` wrote
    #[arg(long, value_name = "FILE")]
    chunks: PathBuf,
    #[arg(long, default_value = "zipf:0.9")]
    mix: Mix,
    #[arg(long)]
    count: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where to write them, one a line
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

pub fn draw(options: &Draw) -> Result<()> {
    output::apart(&options.chunks, &options.out)?;
    let chunks = catalogue::read(&options.chunks)?;
    let mut picker = Picker::new(options.mix, chunks.len(), options.seed)?;
    let mut write = || {
        let mut out = BufWriter::new(File::create(&options.out)?);
        for _ in 0..options.count {
            let path = edge_user::object::key::chunk_path(&chunks[picker.pick()].id);
            // Seen from the folder of chunks.
            writeln!(out, "{}", path.strip_prefix("chunks").unwrap_or(&path))?;
        }
        out.flush()
    };
    write().with_context(|| format!("cannot write {}", options.out.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_and_rates_have_bounds() {
        assert_eq!(time("0.5"), Ok(Duration::from_millis(500)));
        for wrong in ["nan", "inf", "-1", "1e19", "soon"] {
            assert!(time(wrong).is_err(), "{wrong}");
        }
        assert_eq!(rate("0.5"), Ok(0.5));
        for wrong in ["nan", "inf", "0", "-1", "1e-300", "many"] {
            assert!(rate(wrong).is_err(), "{wrong}");
        }
    }
}
