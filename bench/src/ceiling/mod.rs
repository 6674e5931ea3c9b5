//! Ceilings: minimal servers. An edge cannot be faster, and its share of a ceiling is part of each
//! result.

/// Whole chunks, gathered and cut by the kernel.
mod gso;
/// Prepared replies, by AF_XDP.
mod reflector;

use std::io::{Write, stderr};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use anyhow::{Context as _, Result};
use clap::{Args, Subcommand};
use edge_ebpf::wire::ChunkId;

use crate::program::{Action, Program, Rule};

#[derive(Args)]
pub struct Ceiling {
    #[command(subcommand)]
    which: Which,
}

#[derive(Subcommand)]
enum Which {
    /// Serve chunks by number: no lookup, no cookie, no XDP
    Gso(Gso),
    /// Answer each packet with a prepared frame by AF_XDP, without parsing it
    Reflector(Reflector),
    /// Return or drop each packet in the driver
    Driver(Driver),
}

#[derive(Args)]
struct Gso {
    #[arg(long, value_name = "ADDR")]
    listen: SocketAddr,
    /// Number of chunks of 128 KiB, with distinct content
    #[arg(long)]
    chunks: u32,
    #[arg(long, default_value_t = 1216)]
    segment_bytes: u16,
}

#[derive(Args)]
struct Reflector {
    #[arg(long)]
    interface: String,
    /// UDP port to answer on
    #[arg(long)]
    port: u16,
    /// UDP payload of a reply in bytes
    #[arg(long, default_value_t = 1232)]
    reply_bytes: usize,
    /// Object file with the programs, built by `cargo xtask build`
    #[arg(long, value_name = "FILE")]
    programs: PathBuf,
}

#[derive(Args)]
struct Driver {
    #[arg(long)]
    interface: String,
    /// UDP port of the packets
    #[arg(long)]
    port: u16,
    #[arg(long, value_enum)]
    action: Action,
    #[arg(long, value_name = "FILE")]
    programs: PathBuf,
}

/// A want set that means all of this chunk and of those behind it. No single chunk has it.
pub const GROUP: u128 = u128::MAX;
/// The number of these chunks.
pub const GROUP_CHUNKS: u32 = 4;

/// The id that stands for the chunk of this number.
pub fn numbered(number: u32) -> ChunkId {
    let mut id = [0; 32];
    id[..4].copy_from_slice(&number.to_be_bytes());
    ChunkId(id)
}

/// The parent process waits for this line; a broken pipe is no error.
fn say_ready(what: &str) {
    let (Ok(()) | Err(_)) = writeln!(stderr(), "ready: {what}");
}

/// Serves until a signal.
pub fn ceiling(options: &Ceiling) -> Result<()> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [signal_hook::consts::SIGTERM, signal_hook::consts::SIGINT] {
        let _id = signal_hook::flag::register(signal, Arc::clone(&stop))
            .context("cannot listen for signals")?;
    }
    match &options.which {
        Which::Gso(options) => gso::serve(options, &stop),
        Which::Reflector(options) => reflector::serve(options, &stop),
        Which::Driver(options) => {
            let rule = Rule::Port(options.port);
            let _program =
                Program::attach(&options.programs, &options.interface, options.action, rule)?;
            say_ready(&format!("{:?} on {}", options.action, options.interface));
            while !stop.load(std::sync::atomic::Ordering::Relaxed) {
                // The signal ends the wait.
                let second = rustix::time::Timespec {
                    tv_sec: 1,
                    tv_nsec: 0,
                };
                let (Ok(_) | Err(_)) = rustix::event::poll(&mut [], Some(&second));
            }
            Ok(())
        }
    }
}
