//! The load generator: clients that request as fast as the edge can serve, or at a given rate.

/// What can be requested.
pub mod catalogue;
/// Distribution of requests.
pub mod mix;
/// One client.
pub mod lane;
/// Whole chunks, by UDP sockets.
pub mod bulk;
/// Single segments, by AF_XDP.
pub mod frames;
/// Results.
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

/// What to request, and for how long.
#[derive(Args)]
struct Work {
    /// Distribution of requests: zipf:EXPONENT, uniform, scan or hot
    #[arg(long, default_value = "zipf:0.9")]
    mix: Mix,
    /// Duration of the measurement
    #[arg(long, default_value = "5", value_parser = time)]
    seconds: Duration,
    /// Duration of load before the measurement
    #[arg(long, default_value = "0.3", value_parser = time)]
    ramp_seconds: Duration,
    /// Seed of the random choice of requests
    #[arg(long, default_value_t = 1)]
    seed: u64,
    #[command(flatten)]
    control: Control,
}

impl Work {
    fn picker(&self, chunks: &[Chunk]) -> Result<Picker> {
        Picker::new(self.mix, chunks.len(), self.seed)
    }
}

/// Synchronises the measurement with the process that started this one.
#[derive(Clone, Copy, Args)]
struct Control {
    /// Print `ready` once prepared, wait for a line on standard input, and print `begin` and `end`
    /// around the measurement
    #[arg(long)]
    wait: bool,
}

impl Control {
    fn wait(self) -> Result<()> {
        self.print("ready")?;
        let mut line = String::new();
        if self.wait && io::stdin().lock().read_line(&mut line)? == 0 {
            bail!("standard input ended before the measurement began");
        }
        Ok(())
    }

    fn measure<'a>(self, run: impl FnOnce() -> Result<&'a Tally>) -> Result<Value> {
        self.print("begin")?;
        let meter = Meter::start()?;
        let tally = run()?;
        self.print("end")?;
        let (seconds, cpu) = meter.read()?;
        tally.to_json(seconds, cpu)
    }

    fn print(self, word: &str) -> Result<()> {
        if self.wait {
            output::print(&format!("{word}\n"))?;
        }
        Ok(())
    }
}

/// Of seconds.
fn time(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok();
    seconds
        .filter(|seconds| (0.0..=86_400.0).contains(seconds))
        .map(Duration::from_secs_f64)
        .ok_or_else(|| format!("{text} is not a time; write seconds, at most 86400"))
}

/// Of requests per second.
fn rate(text: &str) -> Result<f64, String> {
    let rate = text.parse().ok();
    rate.filter(|rate| (0.001..=1e9).contains(rate))
        .ok_or_else(|| format!("{text} is not a rate; write a number from 0.001 to 1e9"))
}

fn pace(rate: Option<f64>) -> Pace {
    rate.map_or(Pace::Closed, Pace::Open)
}

/// Wall-clock and processor time since its start.
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

    /// Seconds of wall-clock time, and of this process.
    pub(crate) fn read(&self) -> Result<(f64, CpuTime)> {
        let seconds = self.begin.elapsed().as_secs_f64();
        Ok((seconds, CpuTime::of(std::process::id())?.since(self.cpu)))
    }
}

/// Fetches whole chunks through UDP sockets, in a closed loop or at a given rate.
#[derive(Args)]
pub struct Load {
    /// Address and port of the edge
    #[arg(long, value_name = "ADDR")]
    edge: SocketAddr,
    /// Public tickets of its objects, one per line
    #[arg(long, value_name = "FILE", required_unless_present = "numbered")]
    tickets: Option<PathBuf>,
    /// Request this number of a ceiling's chunks instead; nothing is verified
    #[arg(long, value_name = "COUNT", conflicts_with = "tickets", value_parser = clap::value_parser!(u32).range(1..))]
    numbered: Option<u32>,
    #[command(flatten)]
    work: Work,
    /// Number of sockets
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    clients: u16,
    /// Maximum number of chunks in flight per socket
    #[arg(long, default_value_t = 8, value_parser = clap::value_parser!(u16).range(1..=1024))]
    chunks_per_client: u16,
    /// Open loop at this number of chunks per second; latency counts from the intended time
    #[arg(long, value_parser = rate, conflicts_with_all = ["numbered", "warm"])]
    rate: Option<f64>,
    /// Fetch and verify each chunk once; measure nothing
    #[arg(long)]
    warm: bool,
    /// Request one segment of each chunk, so that the edge fetches it; measure nothing
    #[arg(long, conflicts_with_all = ["warm", "numbered"])]
    touch: bool,
    /// Write the list of chunks to this file, for `singles` and `draw`
    #[arg(long, value_name = "FILE")]
    write_chunks: Option<PathBuf>,
}

/// Runs the load and returns the results.
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
        (None, None) => bail!("no chunks to request: give --tickets"),
    };
    if let Some(file) = &options.write_chunks {
        catalogue::write(&chunks, file)?;
    }
    let mut picker = work.picker(&chunks)?;
    work.control.wait()?;
    let measures = !options.warm && !options.touch;
    if measures {
        bulk.run(&chunks, &mut picker, pace(options.rate), work.ramp_seconds)?;
    }
    bulk.tally = Tally::default();
    work.control.measure(|| {
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

/// Of the first two bytes of an IPv4 network.
fn net(text: &str) -> Result<[u8; 2], String> {
    let bytes = text.split_once('.');
    let bytes = bytes.and_then(|(high, low)| Some([high.parse().ok()?, low.parse().ok()?]));
    bytes.ok_or_else(|| format!("{text} is not a network; write 10.72"))
}

/// Of a MAC address.
fn station(text: &str) -> Result<[u8; 6], String> {
    let bytes = text
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16).ok());
    let bytes: Option<Vec<u8>> = bytes.collect();
    let station = bytes.and_then(|bytes| bytes.try_into().ok());
    station.ok_or_else(|| format!("{text} is not a MAC address; write 02:00:00:00:00:01"))
}

/// A link of its own, and the sources behind it.
#[derive(Args)]
struct Link {
    /// Address and port of the edge
    #[arg(long, value_name = "ADDR")]
    edge: std::net::SocketAddrV4,
    /// MAC address of the edge
    #[arg(long, value_name = "MAC", value_parser = station)]
    edge_mac: [u8; 6],
    /// Interface to send from; requires native XDP, and no program attached
    #[arg(long)]
    interface: String,
    /// MAC address of that interface
    #[arg(long, value_name = "MAC", value_parser = station)]
    own_mac: [u8; 6],
    /// Network of the source addresses, such as 10.72; the edge needs a route to it through this
    /// host
    #[arg(long, value_parser = net)]
    net: [u8; 2],
    /// Number of sources
    #[arg(long, default_value_t = 65_536, value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    sources: u32,
    /// Object file with the programs, built by `cargo xtask build`
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

/// Fetches single segments from many sources by AF_XDP, over a link of its own.
#[derive(Args)]
pub struct Singles {
    #[command(flatten)]
    link: Link,
    /// List of chunks, written by `load --write-chunks`
    #[arg(long, value_name = "FILE")]
    chunks: PathBuf,
    #[command(flatten)]
    work: Work,
    /// Number of requests in flight
    #[arg(long, default_value_t = 512, conflicts_with = "rate", value_parser = clap::value_parser!(u32).range(1..=1 << 20))]
    window: u32,
    /// Open loop at this number of requests per second
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    /// Send no HELLO and accept every reply: for ceilings
    #[arg(long)]
    any: bool,
}

/// Runs the load and returns the results.
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
        frames.handshake()?;
    }
    let mut picker = work.picker(&chunks)?;
    frames.window = options.window as usize;
    let pace = pace(options.rate);
    work.control.wait()?;
    frames.run(&chunks, &mut picker, pace, work.ramp_seconds)?;
    frames.tally = Tally::default();
    let mut result = work.control.measure(|| {
        frames.run(&chunks, &mut picker, pace, work.seconds)?;
        Ok(&frames.tally)
    })?;
    result["offered"] = options.rate.into();
    frames.verify(&chunks)?;
    result["verified"] = frames.tally.verified.into();
    result["wrong"] = frames.tally.wrong.into();
    Ok(result)
}

/// Sends a flood by AF_XDP, over a link of its own.
#[derive(Args)]
pub struct Flood {
    #[command(flatten)]
    link: Link,
    /// Kinds of datagrams, in equal shares
    #[arg(long, value_enum, value_delimiter = ',', required = true)]
    of: Vec<Nuisance>,
    /// Datagrams per second; unlimited by default
    #[arg(long, value_parser = rate)]
    rate: Option<f64>,
    #[arg(long, value_parser = time)]
    seconds: Duration,
    #[command(flatten)]
    control: Control,
}

/// Runs the flood and returns the results.
pub fn flood(options: &Flood) -> Result<Value> {
    let mut frames = Frames::open(options.link.way(), Answers::Any)?;
    options.control.wait()?;
    options.control.measure(|| {
        frames.flood(&options.of, options.rate, options.seconds)?;
        Ok(&frames.tally)
    })
}

/// Writes a sequence of requests as paths at an origin, for other generators.
#[derive(Args)]
pub struct Draw {
    /// List of chunks, written by `load --write-chunks`
    #[arg(long, value_name = "FILE")]
    chunks: PathBuf,
    #[arg(long, default_value = "zipf:0.9")]
    mix: Mix,
    #[arg(long)]
    count: u32,
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Output file, one path per line
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
            // Relative to the folder of chunks.
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
