//! Exhaustion of rings, memory and the admin socket.

use std::fs;
use std::iter::repeat_n;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};
use edge_ebpf::wire::ChunkId;
use edge_testbed::client::{Client, chunk_id};
use edge_testbed::clock;
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use rustix::net::{SendFlags, connect, send, socket_with};
use rustix::process::Signal;

use super::session::{Session, WITHIN};
use super::{Fault, NOTHING, UNREACHABLE};

#[rustfmt::skip] // three lines a fault, as far as it goes
pub(super) const FAULTS: &[Fault] = &[
    Fault { name: "rx-ring-starved", excuses: UNREACHABLE, run: rx_ring_starved,
        done: "edged stopped while 4000 GETs for a resident chunk arrive",
        expected: "the frames run out: the socket counts drops (rx_dropped) and an empty fill \
                   ring; then it serves, and no frame is missing" },
    Fault { name: "umem-exhausted", excuses: UNREACHABLE, run: umem_exhausted,
        done: "edged stopped while 2000 GETs for whole chunks arrive, to be answered at once",
        expected: "xsk waits for frames to send from, and counts what is lost (would_block with \
                   send_queue_full or served_partly); gso has none, and the kernel sends what it \
                   can; then it serves, and no frame is missing" },
    Fault { name: "admin-flood", excuses: NOTHING, run: admin_flood,
        done: "connections to the admin socket until the kernel accepts no more, half of them \
               idle, half with random bytes",
        expected: "at most 64 at a time, the oldest is closed: `edge stat` succeeds or reports \
                   why not; readers are not affected; afterwards it succeeds" },
    Fault { name: "hugepages-withheld", excuses: UNREACHABLE, run: hugepages_withheld,
        done: "edged started in a control group limited to 32 MiB of hugepages, less than its \
               arena",
        expected: "it fails with exit code 78 and names the limit, instead of dying when it \
                   touches the memory; outside the group it serves" },
];

/// Frames per queue (docs/ARCHITECTURE.md, "Memory").
pub(super) const RX_FRAMES: u64 = 2048;
const STARVING: usize = 4000;
const EXHAUSTING: usize = 2000;
const CONNECTIONS: usize = 5000;
const CONTROLLER: &str = "hugetlb";
const FEW_HUGEPAGES_BYTES: u64 = 32 << 20;

fn rx_ring_starved(session: &mut Session<'_>) -> Result<String> {
    let means = prepare(session)?;
    let before = Rings::read(session)?;
    stalled(session, &means, 1, STARVING)?;
    session.good_again()?;
    let after = Rings::read(session)?;
    let dropped = after.dropped - before.dropped;
    let empty = after.fill_empty - before.fill_empty;
    if dropped == 0 || empty == 0 {
        bail!("rx_dropped rose by {dropped}, rx_fill_ring_empty by {empty}");
    }
    Ok(format!(
        "rx_dropped +{dropped}, rx_fill_ring_empty +{empty}"
    ))
}

fn umem_exhausted(session: &mut Session<'_>) -> Result<String> {
    let means = prepare(session)?;
    let before = Rings::read(session)?;
    stalled(session, &means, u128::MAX, EXHAUSTING)?;
    session.good_again()?;
    let after = Rings::read(session)?;
    let blocked = after.would_block - before.would_block;
    let full = after.queue_full - before.queue_full;
    let sent = after.datagrams - before.datagrams;
    let by_frames = session.testbed.settings.sender == "xsk";
    if by_frames && (blocked == 0) != (full == 0) {
        bail!("would_block rose by {blocked}, requests that found no frame by {full}");
    }
    Ok(format!(
        "{sent} datagrams sent, would_block +{blocked}, requests that found no frame +{full}"
    ))
}

/// A socket with a cookie, and a whole resident chunk.
fn prepare(session: &mut Session<'_>) -> Result<(Client, ChunkId)> {
    let resident = session.fresh()?;
    session.reads_whole(&resident)?;
    Ok((session.greet()?, chunk_id(resident.data_chunk()?)?))
}

/// Stops the edge while this many GETs for these segments of a chunk arrive, and resumes it.
fn stalled(
    session: &mut Session<'_>,
    (client, id): &(Client, ChunkId),
    want: u128,
    gets: usize,
) -> Result<()> {
    session.stop()?;
    let asked = client.ask(want, repeat_n(*id, gets));
    let asked = asked.and_then(|()| session.link_rests());
    session.signal(Signal::CONT)?;
    asked
}

/// Datagrams that the kernel gave a worker after more arrived than there are frames: either every
/// frame was used, or some were lost before (I2).
pub(super) fn frames_left(session: &mut Session<'_>) -> Result<u64> {
    let means = prepare(session)?;
    session.audit()?;
    let before = Rings::read(session)?;
    stalled(session, &means, 1, STARVING)?;
    session.audit()?;
    let after = Rings::read(session)?;
    if after.dropped == before.dropped {
        bail!("the frames were not exhausted");
    }
    Ok(after.received - before.received)
}

/// Counters of the first queue.
struct Rings {
    received: u64,
    dropped: u64,
    fill_empty: u64,
    would_block: u64,
    queue_full: u64,
    datagrams: u64,
}

impl Rings {
    fn read(session: &Session<'_>) -> Result<Self> {
        let counts = session.counts()?;
        let worker = &counts.all()["interfaces"][0]["workers"][0];
        let number = |pointer: &str| {
            let value = worker.pointer(pointer);
            value.and_then(serde_json::Value::as_u64).unwrap_or(0)
        };
        Ok(Self {
            received: number("/received"),
            dropped: number("/xsk/rx_dropped"),
            fill_empty: number("/xsk/rx_fill_ring_empty"),
            would_block: number("/sends/would_block"),
            queue_full: number("/reasons/send_queue_full/packets")
                + number("/reasons/served_partly/packets"),
            datagrams: number("/sends/datagrams"),
        })
    }
}

fn admin_flood(session: &mut Session<'_>) -> Result<String> {
    let mut held = Vec::new();
    while held.len() < CONNECTIONS
        && let Some(socket) = connected(&session.testbed.settings.socket)?
    {
        if held.len() % 2 == 1 {
            send(&socket, &[0xff; 512], SendFlags::NOSIGNAL)?;
        }
        held.push(socket);
    }
    let stat = session.stat()?;
    let answers = match stat.code {
        Some(0) => true,
        Some(1) => stat.stderr.contains("no answer in 5 seconds"),
        Some(75) => stat.stderr.contains("too many connections"),
        Some(_) | None => false,
    };
    if !answers {
        bail!("`edge stat` ended with {:?}: {}", stat.code, stat.stderr);
    }
    let count = held.len();
    session.good_after(|session| {
        drop(held);
        let answers = clock::poll(WITHIN, || session.counts().ok().map(drop));
        answers.context("`edge stat` fails even 10 s after the flood")
    })?;
    let said = if stat.stderr.is_empty() {
        "succeeded"
    } else {
        &stat.stderr
    };
    Ok(format!(
        "{count} connections; during them `edge stat`: {said}"
    ))
}

/// A connection, unless the queue is full at the moment.
fn connected(path: &Path) -> Result<Option<OwnedFd>> {
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let socket = socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?;
    match connect(&socket, &SocketAddrUnix::new(path)?) {
        Ok(()) => Ok(Some(socket)),
        Err(Errno::AGAIN) => Ok(None),
        Err(error) => Err(error).context("the admin socket cannot be reached"),
    }
}

/// A control group with this limit of hugepages in bytes.
struct Group {
    folder: PathBuf,
    /// The file and the word that undo what was enabled for it.
    enabled: Option<(PathBuf, &'static str)>,
}

impl Group {
    /// None if the kernel has no such groups.
    fn new(bytes: u64) -> Result<Option<Self>> {
        let found = procfs::mounts()?.into_iter().find_map(|mount| {
            let folder = PathBuf::from(mount.fs_file);
            let unified = mount.fs_vfstype == "cgroup2";
            let ours = match mount.fs_vfstype.as_str() {
                "cgroup2" => listed(&folder.join("cgroup.controllers")),
                "cgroup" => mount.fs_mntops.contains_key(CONTROLLER),
                _ => false,
            };
            ours.then_some((folder, unified))
        });
        let Some((parent, unified)) = found else {
            return Ok(None);
        };
        let control = parent.join("cgroup.subtree_control");
        let enabled = (unified && !listed(&control)).then_some((control, "-hugetlb"));
        if let Some((control, _)) = &enabled {
            fs::write(control, "+hugetlb").context("cannot limit hugepages")?;
        }
        let group = Self {
            folder: parent.join(format!("sealedge-{}", std::process::id())),
            enabled,
        };
        fs::create_dir(&group.folder).context("cannot make a control group")?;
        let limit = if unified {
            "hugetlb.2MB.max"
        } else {
            "hugetlb.2MB.limit_in_bytes"
        };
        fs::write(group.folder.join(limit), bytes.to_string())?;
        Ok(Some(group))
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // The process may take a moment to leave it.
        let gone = clock::poll(WITHIN, || fs::remove_dir(&self.folder).ok());
        if gone.is_none() {
            eprintln!("the control group {} stays", self.folder.display());
        }
        if let Some((control, word)) = &self.enabled
            && let Err(error) = fs::write(control, word)
        {
            eprintln!("{}: cannot write {word}: {error}", control.display());
        }
    }
}

/// Whether a file of a version 2 group lists the hugepage controller.
fn listed(file: &Path) -> bool {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.split_whitespace().any(|word| word == CONTROLLER)
}

fn hugepages_withheld(session: &mut Session<'_>) -> Result<String> {
    let Some(group) = Group::new(FEW_HUGEPAGES_BYTES)? else {
        session.good_again()?;
        return Ok("skipped: this kernel has no control groups for hugepages".into());
    };
    session.take_edged()?.stop()?;
    let words = ["the arena", "hugetlb limit", "/sealedge-"];
    let refused = session.refused_in(&group.folder, &words, 78);
    drop(group);
    session.good_after(|session| session.start(&[]))?;
    refused
}
