//! What happens to the origin.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_testbed::{clock, daemon::Counts, place::PYTHON, process};
use rustix::fs::{CWD, Mode, mkfifoat};

use super::flood::Flood;
use super::play::{Play, WITHIN, wait};
use super::report::in_seconds;
use super::{Fault, NOTHING};
use crate::scenario::load::{End, fetch};

pub(super) const FAULTS: &[Fault] = &[
    Fault {
        name: "origin-slow",
        done: "the origin lets nobody open an object's chunks for three seconds (file leases)",
        expected: "PENDING meanwhile; the reader waits and finishes; others are served",
        excuses: NOTHING,
        play: origin_slow,
    },
    Fault {
        name: "origin-hangs",
        done: "the same for twelve seconds",
        expected: "the edge gives a fetch up after ten (failed_total) and says so to the reader \
                   and in the log; the reader asks again, and finishes when the origin is back",
        excuses: NOTHING,
        play: origin_hangs,
    },
    Fault {
        name: "chunk-hangs",
        done: "the origin lets nobody open one chunk for fourteen seconds",
        expected: "it is read once, however often it is asked for (origin_hung_reads 1); other \
                   objects are fetched; its reader finishes when the chunk can be read",
        excuses: NOTHING,
        play: chunk_hangs,
    },
    Fault {
        name: "source-greedy",
        done: "one address asks for 20,000 chunks that nobody has, as fast as it can",
        expected: "BUSY to it for what is beyond its share (source_limited_total); the readers of \
                   another address fetch what is cold",
        excuses: NOTHING,
        play: source_greedy,
    },
    Fault {
        name: "origin-gone",
        done: "the origin's directory moved away, and back",
        expected: "what is resident is served on; else ORIGIN (failed_total, never absent_total) \
                   with a line in the log; back, it is fetched",
        excuses: NOTHING,
        play: origin_gone,
    },
    Fault {
        name: "origin-removed",
        done: "the origin's chunks moved away, and back",
        expected: "what is resident is served on; else \"no origin has chunk\" (absent_total); \
                   refilled, it is fetched",
        excuses: NOTHING,
        play: origin_removed,
    },
    Fault {
        name: "chunk-altered",
        done: "one byte of a chunk changed",
        expected: CORRUPT,
        excuses: NOTHING,
        play: |play| damaged(play, alter, "corrupt_total", "altered or cut"),
    },
    Fault {
        name: "chunk-cut",
        done: "a chunk cut to its half",
        expected: CORRUPT,
        excuses: NOTHING,
        play: |play| damaged(play, cut, "corrupt_total", "altered or cut"),
    },
    Fault {
        name: "chunk-grown",
        done: "a chunk of 3 MB",
        expected: CORRUPT,
        excuses: NOTHING,
        play: |play| damaged(play, grow, "corrupt_total", "which no chunk has"),
    },
    Fault {
        name: "chunk-directory",
        done: "a directory in the place of a chunk",
        expected: FAILED,
        excuses: NOTHING,
        play: |play| damaged(play, become_directory, "failed_total", "is not a file"),
    },
    Fault {
        name: "chunk-pipe",
        done: "a pipe nobody writes into in the place of a chunk",
        expected: FAILED,
        excuses: NOTHING,
        play: |play| damaged(play, become_pipe, "failed_total", "is not a file"),
    },
    Fault {
        name: "chunk-unreadable",
        done: "a chunk that edged may not read (mode 000, edged without CAP_DAC_OVERRIDE)",
        expected: FAILED,
        excuses: NOTHING,
        play: |play| damaged(play, forbid, "failed_total", "ermission denied"),
    },
];

const CORRUPT: &str = "ORIGIN to the reader, who gives up with exit code 75 and names the chunk; a \
                       line in the log names it too (corrupt_total); put right, it is served";
const FAILED: &str = "ORIGIN to the reader, who gives up with exit code 75 and names the chunk; a \
                      line in the log says why (failed_total); put right, it is served";

const SLOW_FOR: Duration = Duration::from_secs(3);
/// Longer than the edge waits for an origin.
const HANGS_FOR: Duration = Duration::from_secs(12);

/// Longer than that, and than it takes its reader to ask again.
const CHUNK_HANGS_FOR: Duration = Duration::from_secs(14);
const GREEDY_GETS: u64 = 20_000;
/// An address of the greedy one's own, beside the reader's.
const GREEDY: Ipv4Addr = Ipv4Addr::new(10, 71, 0, 9);

/// Takes a lease on each file named: the kernel lets nobody else open them until it ends.
const LEASES: &str = "\
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
held = [open(path, 'r+b') for path in sys.argv[1:]]
for file in held:
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
signal.pause()
";

fn origin_slow(play: &mut Play<'_>) -> Result<String> {
    let started = "/socket/reasons/fetch_started/packets";
    let before = play.count(started)?;
    let took = read_while_leased(play, SLOW_FOR)?;
    let fetches = play.count(started)? - before;
    Ok(format!(
        "the reader finished after {}, fetch_started +{fetches}",
        in_seconds(took.as_secs_f64())
    ))
}

fn origin_hangs(play: &mut Play<'_>) -> Result<String> {
    let from = play.lines()?;
    let before = play.count("/origin/failed_total")?;
    let took = read_while_leased(play, HANGS_FOR)?;
    let failed = play.count("/origin/failed_total")? - before;
    let heard = play.hear(from, "no answer within 10 s")?;
    if failed == 0 {
        bail!("failed_total does not rise");
    }
    Ok(format!(
        "the reader finished after {}, failed_total +{failed}; log: {heard}",
        in_seconds(took.as_secs_f64())
    ))
}

/// Reads an object whose chunks nobody may open for so long, and says how long that took.
fn read_while_leased(play: &mut Play<'_>, time: Duration) -> Result<Duration> {
    let fresh = play.fresh()?;
    let mut lease = lease(&fresh.chunks)?;
    let begin = clock::now();
    let read = thread::scope(|scope| {
        scope.spawn(|| {
            wait(time);
            process::end(&mut lease);
        });
        play.reads_whole(&fresh)
    });
    let took = read?;
    if took < time {
        bail!("the origin was not slow: {took:.1?}");
    }
    play.good_since(begin + time)?;
    Ok(took)
}

/// A process that holds a lease on each of these files.
fn lease(files: &[PathBuf]) -> Result<Child> {
    let mut lease = Command::new(PYTHON);
    lease
        .args(["-c", LEASES])
        .args(files)
        .stdout(Stdio::piped());
    let mut lease = process::spawn(&mut lease)?;
    // The whole line: it is ended when it writes into a pipe that nobody reads any more.
    let mut held = [0; 5];
    let mut pipe = lease.stdout.take().context("a pipe")?;
    if pipe.read_exact(&mut held).is_err() {
        process::end(&mut lease);
        bail!("the leases cannot be had");
    }
    Ok(lease)
}

fn chunk_hangs(play: &mut Play<'_>) -> Result<String> {
    let (fresh, other) = (play.fresh()?, play.fresh()?);
    let hung_at = "/origin/hung_reads/0";
    let mut lease = lease(&[fresh.data_chunk()?.to_owned()])?;
    let begin = clock::now();
    let (stage, edge) = (play.stage, play.address());
    let hung = || {
        let counts = Counts::read(&stage.settings.socket).ok()?;
        counts.all().pointer(hung_at)?.as_u64()
    };
    let watch = || -> Result<_> {
        clock::poll(CHUNK_HANGS_FOR, || (hung()? == 1).then_some(()))
            .context("hung_reads does not rise")?;
        let asked = clock::now();
        let hangs = || asked.elapsed() > WITHIN;
        let Some(End::Whole) = fetch(stage, &other.sealed, edge, &other.out(), hangs)? else {
            bail!("another object is not fetched meanwhile");
        };
        let took = asked.elapsed();
        wait(CHUNK_HANGS_FOR.saturating_sub(begin.elapsed()));
        Ok((took, hung()))
    };
    let (took, seen) = thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let seen = watch();
            process::end(&mut lease);
            seen
        });
        let took = play.reads_whole(&fresh);
        (took, watching.join())
    });
    let seen = seen.ok().context("the watching thread failed")?;
    let (other_took, hung) = seen?;
    let took = took?;
    if hung != Some(1) {
        bail!("reads that hang at one chunk: {hung:?}");
    }
    play.good_since(begin + CHUNK_HANGS_FOR)?;
    let ended = || (play.count(hung_at).ok()? == 0).then_some(());
    clock::poll(WITHIN, ended).context("hung_reads does not fall")?;
    Ok(format!(
        "hung_reads 1 to the end; another object in {}, its reader after {}",
        in_seconds(other_took.as_secs_f64()),
        in_seconds(took.as_secs_f64())
    ))
}

fn source_greedy(play: &mut Play<'_>) -> Result<String> {
    let limited_at = "/origin/source_limited_total";
    let (limited, fetches) = (
        play.count(limited_at)?,
        play.count("/origin/fetches_total")?,
    );
    let cold = [play.fresh()?, play.fresh()?, play.fresh()?];
    let reader = &play.stage.bed.reader;
    let ip_address = |what| reader.ip(&format!("address {what} {GREEDY}/24 dev {}", reader.link));
    ip_address("add")?;
    let greedy = Flood::greet_from(reader, GREEDY, play.address())?;
    let begin = clock::now();
    let poured = thread::scope(|scope| {
        let pouring = scope.spawn(|| greedy.pour_absent(0..GREEDY_GETS));
        let read = cold.iter().map(|fresh| play.reads_whole(fresh));
        let read = read.collect::<Result<Vec<_>>>();
        let poured = pouring
            .join()
            .ok()
            .context("the thread of the flood failed");
        poured?.and(read)
    });
    let poured_for = begin.elapsed();
    ip_address("delete")?;
    let slowest = poured?.into_iter().max().unwrap_or_default();
    play.good_again(begin)?;
    let limited = play.count(limited_at)? - limited;
    let fetches = play.count("/origin/fetches_total")? - fetches;
    if limited == 0 {
        bail!("source_limited_total does not rise");
    }
    Ok(format!(
        "within {}: fetches +{fetches}, source_limited_total +{limited}; the slowest of three cold \
         objects took {}",
        in_seconds(poured_for.as_secs_f64()),
        in_seconds(slowest.as_secs_f64())
    ))
}

fn origin_gone(play: &mut Play<'_>) -> Result<String> {
    let fresh = play.fresh()?;
    let origin = play.stage.settings.origin().to_owned();
    let elsewhere = origin.with_extension("elsewhere");
    let absent = play.count("/origin/absent_total")?;
    let from = play.lines()?;
    fs::rename(&origin, &elsewhere)?;
    let gave_up = play.reads_not(&fresh, 75, "cannot get chunk");
    let over = clock::now();
    fs::rename(&elsewhere, &origin)?;
    let gave_up = gave_up?;
    let heard = play.hear(from, "the directory itself")?;
    if play.count("/origin/absent_total")? != absent {
        bail!("absent_total rises");
    }
    play.comes(&fresh, over)?;
    Ok(format!("{gave_up}; log: {heard}"))
}

fn origin_removed(play: &mut Play<'_>) -> Result<String> {
    let fresh = play.fresh()?;
    let chunks = play.stage.settings.origin().join("chunks");
    let elsewhere = play.stage.settings.origin().join("elsewhere");
    let before = play.count("/origin/absent_total")?;
    fs::rename(&chunks, &elsewhere)?;
    let gave_up = play.reads_not(&fresh, 1, "no origin of the edge has chunk");
    let over = clock::now();
    fs::rename(&elsewhere, &chunks)?;
    let gave_up = gave_up?;
    let absent = play.count("/origin/absent_total")? - before;
    if absent == 0 {
        bail!("absent_total does not rise");
    }
    play.comes(&fresh, over)?;
    Ok(format!("{gave_up}; absent_total +{absent}"))
}

/// A reader of an object with one damaged chunk, and another when it was put right.
fn damaged(
    play: &mut Play<'_>,
    damage: fn(&Path) -> Result<()>,
    counter: &str,
    complaint: &str,
) -> Result<String> {
    let fresh = play.fresh()?;
    let chunk = fresh.data_chunk()?;
    let good = fs::read(chunk)?;
    let counter_at = format!("/origin/{counter}");
    let before = play.count(&counter_at)?;
    let from = play.lines()?;
    damage(chunk)?;
    let gave_up = play.reads_not(&fresh, 75, "cannot get chunk");
    let over = clock::now();
    remove(chunk)?;
    fs::write(chunk, good)?;
    let gave_up = gave_up?;
    let heard = play.hear(from, complaint)?;
    let name = chunk.file_name().and_then(|name| name.to_str());
    if !heard.contains(name.context("a chunk has a name")?) {
        bail!("the log does not name the chunk: {heard}");
    }
    let rose = play.count(&counter_at)? - before;
    if rose == 0 {
        bail!("{counter} does not rise");
    }
    play.comes(&fresh, over)?;
    Ok(format!("{gave_up}; {counter} +{rose}; log: {heard}"))
}

fn alter(chunk: &Path) -> Result<()> {
    let mut bytes = fs::read(chunk)?;
    bytes[7] ^= 1;
    Ok(fs::write(chunk, bytes)?)
}

fn cut(chunk: &Path) -> Result<()> {
    let bytes = fs::read(chunk)?;
    Ok(fs::write(chunk, &bytes[..bytes.len() / 2])?)
}

fn grow(chunk: &Path) -> Result<()> {
    let mut bytes = fs::read(chunk)?;
    bytes.resize(3 << 20, 0);
    Ok(fs::write(chunk, bytes)?)
}

fn become_directory(chunk: &Path) -> Result<()> {
    fs::remove_file(chunk)?;
    Ok(fs::create_dir(chunk)?)
}

fn become_pipe(chunk: &Path) -> Result<()> {
    fs::remove_file(chunk)?;
    Ok(mkfifoat(CWD, chunk, Mode::RUSR | Mode::WUSR)?)
}

fn forbid(chunk: &Path) -> Result<()> {
    Ok(fs::set_permissions(chunk, Permissions::from_mode(0o000))?)
}

fn remove(chunk: &Path) -> Result<()> {
    if chunk.is_dir() {
        Ok(fs::remove_dir(chunk)?)
    } else {
        Ok(fs::remove_file(chunk)?)
    }
}
