//! More than rings, memory and the operator's door hold.

use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::process::Signal;

use super::flood::Flood;
use super::play::Play;
use super::{Fault, NOTHING, UNREACHABLE};
use crate::clock;

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "rx-ring-starved",
        done: "edged stopped while 6000 GETs for a resident chunk come in",
        expected: "the frames run out: the socket counts what it lost (rx_dropped) and an empty \
                   fill ring; then it serves, and no frame is missing",
        excuses: UNREACHABLE,
        play: rx_ring_starved,
    },
    Fault {
        name: "umem-exhausted",
        done: "edged stopped while 2000 GETs for whole chunks come in, then all to be answered at \
               once",
        expected: "by xsk the frames to send from run out (would_block, send_queue_full); by gso \
                   there are none, and the kernel takes what it can; then it serves, and no frame \
                   is missing",
        excuses: UNREACHABLE,
        play: umem_exhausted,
    },
    Fault {
        name: "admin-flood",
        done: "400 connections to the admin socket at once, half of them silent, half with noise",
        expected: "16 at a time, 5 s each: `edge stat` may have to wait or says so; nobody's \
                   reader notices; then it answers",
        excuses: NOTHING,
        play: admin_flood,
    },
];

/// What a queue has (docs/ARCHITECTURE.md, "Memory").
const RX_FRAMES: u64 = 2048;
const STARVING: u64 = 6000;
const EXHAUSTING: u64 = 2000;
const CONNECTIONS: usize = 400;

fn rx_ring_starved(play: &mut Play<'_>) -> Result<String> {
    let before = Rings::read(play)?;
    stalled(play, 1, STARVING)?;
    let after = Rings::read(play)?;
    let dropped = after.dropped - before.dropped;
    let empty = after.fill_empty - before.fill_empty;
    if dropped < STARVING - RX_FRAMES || empty == 0 {
        bail!("rx_dropped rose by {dropped}, rx_fill_ring_empty by {empty}");
    }
    Ok(format!(
        "of {STARVING} GETs the ring held {}: rx_dropped +{dropped}, rx_fill_ring_empty +{empty}",
        STARVING.saturating_sub(dropped)
    ))
}

fn umem_exhausted(play: &mut Play<'_>) -> Result<String> {
    let before = Rings::read(play)?;
    stalled(play, u128::MAX, EXHAUSTING)?;
    let after = Rings::read(play)?;
    let blocked = after.would_block - before.would_block;
    let full = after.queue_full - before.queue_full;
    let sent = after.datagrams - before.datagrams;
    let by_frames = play.stage.settings.sender == "xsk";
    if by_frames && (blocked == 0 || full == 0) {
        bail!("would_block rose by {blocked}, send_queue_full by {full}");
    }
    Ok(format!(
        "{sent} datagrams sent, would_block +{blocked}, send_queue_full +{full}"
    ))
}

/// The edge stands still while these GETs for a resident chunk come in, and goes on.
fn stalled(play: &mut Play<'_>, want: u128, gets: u64) -> Result<()> {
    let resident = play.fresh()?;
    play.reads_whole(&resident)?;
    let chunk = resident.chunks.iter().max_by_key(|chunk| {
        // A whole data chunk, not the short last one.
        chunk.metadata().map_or(0, |meta| meta.len())
    });
    let chunk = chunk.context("an object has chunks")?;
    let flood = Flood::greet(&play.stage.ground.reader, play.address()?)?;
    play.signal(Signal::STOP)?;
    let poured = flood.pour(chunk, want, gets);
    let over = clock::now();
    play.signal(Signal::CONT)?;
    poured?;
    play.good_again(over)
}

/// What the first queue counted.
struct Rings {
    dropped: u64,
    fill_empty: u64,
    would_block: u64,
    queue_full: u64,
    datagrams: u64,
}

impl Rings {
    fn read(play: &Play<'_>) -> Result<Self> {
        let counts = play.counts()?;
        let worker = &counts.all()["workers"][0];
        let number = |pointer: &str| {
            let value = worker.pointer(pointer);
            value.and_then(serde_json::Value::as_u64).unwrap_or(0)
        };
        Ok(Self {
            dropped: number("/xsk/rx_dropped"),
            fill_empty: number("/xsk/rx_fill_ring_empty"),
            would_block: number("/sends/would_block"),
            queue_full: number("/reasons/send_queue_full/packets"),
            datagrams: number("/sends/datagrams"),
        })
    }
}

fn admin_flood(play: &mut Play<'_>) -> Result<String> {
    let socket = &play.stage.settings.socket;
    let begin = clock::now();
    let mut held = Vec::new();
    for number in 0..CONNECTIONS {
        let mut stream = UnixStream::connect(socket).context("the door is shut")?;
        if number % 2 == 1 {
            stream.write_all(&[0xff; 512])?;
        }
        held.push(stream);
    }
    let during = match play.counts() {
        Ok(_) => "`edge stat` got its answer".to_owned(),
        Err(error) => format!("{error:#}"),
    };
    let during = during.lines().last().unwrap_or_default().to_owned();
    let over = clock::now();
    drop(held);
    let answers = clock::poll(Duration::from_secs(10), || play.counts().ok());
    answers.context("`edge stat` gets no answer 10 s after the flood")?;
    play.seconds = Some(over.elapsed().as_secs_f64());
    play.good_again(clock::now())?;
    Ok(format!(
        "during the {:.1} s of it: {during}; afterwards `edge stat` answers",
        (over - begin).as_secs_f64()
    ))
}
