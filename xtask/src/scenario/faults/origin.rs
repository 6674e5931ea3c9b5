//! What happens to the origin.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::fs::{CWD, Mode, mkfifoat};

use super::play::{Play, wait};
use super::report::in_seconds;
use super::{Fault, NOTHING};
use crate::clock;
use crate::process;
use crate::versions::PYTHON;

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
    let mut lease = Command::new(PYTHON);
    lease
        .args(["-c", LEASES])
        .args(&fresh.chunks)
        .stdout(Stdio::piped());
    let mut lease = process::spawn(&mut lease)?;
    let mut held = [0; 4];
    // Kept open: whoever writes into a pipe that nobody reads is ended.
    let mut pipe = lease.stdout.take().context("a pipe")?;
    if pipe.read_exact(&mut held).is_err() {
        process::end(&mut lease);
        bail!("the leases cannot be had");
    }
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

fn origin_removed(play: &mut Play<'_>) -> Result<String> {
    let fresh = play.fresh()?;
    let chunks = play.stage.settings.origin.join("chunks");
    let elsewhere = play.stage.settings.origin.join("elsewhere");
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
