//! What happens to the origin.

use std::fs::{self, Permissions};
use std::io::Read as _;
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use edge_testbed::{
    client::{Client, absent},
    clock,
    daemon::Counts,
    paths::PYTHON,
    process,
};
use rustix::fs::{CWD, Mode, mkfifoat};

use super::report::in_seconds;
use super::session::{Session, WITHIN, wait};
use super::{Fault, NOTHING};
use crate::reader::{End, fetch};

#[rustfmt::skip] // three lines a fault, as far as it goes
pub(super) const FAULTS: &[Fault] = &[
    Fault { name: "origin-slow", excuses: NOTHING, run: origin_slow,
        done: "an object's chunks cannot be opened at the origin for three seconds (file leases)",
        expected: "PENDING meanwhile; the reader waits and finishes; others are served" },
    Fault { name: "origin-hangs", excuses: NOTHING, run: origin_hangs,
        done: "the same for twelve seconds",
        expected: "the edge gives up a fetch after ten (failed_total) and reports it to the reader \
                   and in the log; the reader retries, and finishes when the origin is back" },
    Fault { name: "chunk-hangs", excuses: NOTHING, run: chunk_hangs,
        done: "one chunk cannot be opened at the origin for fourteen seconds",
        expected: "it is read once, however often it is requested (origin_hung_reads 1); other \
                   objects are fetched; its reader finishes when the chunk can be read" },
    Fault { name: "source-greedy", excuses: NOTHING, run: source_greedy,
        done: "one address requests 20,000 nonexistent chunks, as fast as it can",
        expected: "BUSY to it beyond its share (source_limited_total); readers of another address \
                   can fetch cold objects" },
    Fault { name: "origin-gone", excuses: NOTHING, run: origin_gone,
        done: "the origin's directory moved away, and back",
        expected: "resident chunks are served; for others ORIGIN (failed_total, never \
                   absent_total) with a line in the log; afterwards they are fetched" },
    Fault { name: "origin-removed", excuses: NOTHING, run: origin_removed,
        done: "the origin's chunks moved away, and back",
        expected: "resident chunks are served; for others \"no origin has chunk\" (absent_total); \
                   afterwards they are fetched" },
    Fault { name: "chunk-altered", excuses: NOTHING, run: |session| damaged(session, |chunk| rewrite(chunk, |bytes| bytes[7] ^= 1), "corrupt_total", "altered or truncated"),
        done: "one byte of a chunk changed",
        expected: CORRUPT },
    Fault { name: "chunk-cut", excuses: NOTHING, run: |session| damaged(session, |chunk| rewrite(chunk, |bytes| bytes.truncate(bytes.len() / 2)), "corrupt_total", "altered or truncated"),
        done: "a chunk cut to half its size",
        expected: CORRUPT },
    Fault { name: "chunk-grown", excuses: NOTHING, run: |session| damaged(session, |chunk| rewrite(chunk, |bytes| bytes.resize(3 << 20, 0)), "corrupt_total", "which no chunk has"),
        done: "a chunk of 3 MB",
        expected: CORRUPT },
    Fault { name: "chunk-directory", excuses: NOTHING, run: |session| damaged(session, become_directory, "failed_total", "is not a file"),
        done: "a directory in place of a chunk",
        expected: FAILED },
    Fault { name: "chunk-pipe", excuses: NOTHING, run: |session| damaged(session, become_pipe, "failed_total", "is not a file"),
        done: "a pipe without a writer in place of a chunk",
        expected: FAILED },
    Fault { name: "chunk-unreadable", excuses: NOTHING, run: |session| damaged(session, forbid, "failed_total", "ermission denied"),
        done: "a chunk that edged may not read (mode 000, edged without CAP_DAC_OVERRIDE)",
        expected: FAILED },
];

const CORRUPT: &str = "ORIGIN to the reader, which gives up with exit code 75 and names the chunk; \
                       so does a line in the log (corrupt_total); repaired, it is served";
const FAILED: &str = "ORIGIN to the reader, which gives up with exit code 75 and names the chunk; a \
                      line in the log has the reason (failed_total); repaired, it is served";

const SLOW_FOR: Duration = Duration::from_secs(3);
/// Longer than the edge waits for an origin.
const HANGS_FOR: Duration = Duration::from_secs(12);

/// Longer than that, and than a reader's next request takes.
const CHUNK_HANGS_FOR: Duration = Duration::from_secs(14);
const GREEDY_GETS: u64 = 20_000;
/// An address of the greedy client, next to the reader's.
const GREEDY: Ipv4Addr = Ipv4Addr::new(10, 71, 0, 9);

/// Takes a lease on each named file: the kernel blocks other opens until it ends.
const LEASES: &str = "\
import fcntl, signal, sys
signal.signal(signal.SIGIO, signal.SIG_IGN)
held = [open(path, 'r+b') for path in sys.argv[1:]]
for file in held:
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print('held', flush=True)
signal.pause()
";

fn origin_slow(session: &mut Session<'_>) -> Result<String> {
    let started = "/socket/reasons/fetch_started/packets";
    let before = session.count(started)?;
    let took = read_while_leased(session, SLOW_FOR)?;
    let fetches = session.count(started)? - before;
    Ok(format!(
        "the reader finished after {}, fetch_started +{fetches}",
        in_seconds(took)
    ))
}

fn origin_hangs(session: &mut Session<'_>) -> Result<String> {
    let from = session.lines()?;
    let before = session.count("/origin/failed_total")?;
    let took = read_while_leased(session, HANGS_FOR)?;
    let failed = session.count("/origin/failed_total")? - before;
    let line = session.logged(from, "no answer within 10 s")?;
    if failed == 0 {
        bail!("failed_total does not rise");
    }
    Ok(format!(
        "the reader finished after {}, failed_total +{failed}; log: {line}",
        in_seconds(took)
    ))
}

/// Reads an object whose chunks cannot be opened for this time; returns the duration.
fn read_while_leased(session: &mut Session<'_>, time: Duration) -> Result<Duration> {
    let fresh = session.fresh()?;
    let mut lease = lease(&fresh.chunks)?;
    let begin = clock::now();
    let read = thread::scope(|scope| {
        scope.spawn(|| {
            wait(time);
            process::end(&mut lease);
        });
        session.reads_whole(&fresh)
    });
    let took = read?;
    if took < time {
        bail!("the origin was not slow: {took:.1?}");
    }
    session.good_since(begin + time)?;
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
    // The whole line: the process would die writing into a closed pipe.
    let mut held = [0; 5];
    let mut pipe = lease.stdout.take().context("a pipe")?;
    if pipe.read_exact(&mut held).is_err() {
        process::end(&mut lease);
        bail!("cannot take the leases");
    }
    Ok(lease)
}

fn chunk_hangs(session: &mut Session<'_>) -> Result<String> {
    let (fresh, other) = (session.fresh()?, session.fresh()?);
    let hung_at = "/origin/hung_reads/0";
    let mut lease = lease(&[fresh.data_chunk()?.to_owned()])?;
    let begin = clock::now();
    let (testbed, edge) = (session.testbed, session.address());
    let hung = || {
        let counts = Counts::read(&testbed.settings.socket).ok()?;
        counts.all().pointer(hung_at)?.as_u64()
    };
    let watch = || -> Result<_> {
        clock::poll(CHUNK_HANGS_FOR, || (hung()? == 1).then_some(()))
            .context("hung_reads does not rise")?;
        let (reader, out) = (&testbed.bed.reader, other.out());
        let fetched = fetch(reader, &other.sealed, edge, &out, WITHIN, || false)?;
        let Some((took, End::Whole)) = fetched else {
            bail!("another object is not fetched meanwhile");
        };
        wait(CHUNK_HANGS_FOR.saturating_sub(begin.elapsed()));
        Ok((took, hung()))
    };
    let (took, seen) = thread::scope(|scope| {
        let watching = scope.spawn(|| {
            let seen = watch();
            process::end(&mut lease);
            seen
        });
        let took = session.reads_whole(&fresh);
        (took, watching.join())
    });
    let seen = seen.ok().context("the watching thread failed")?;
    let (other_took, hung) = seen?;
    let took = took?;
    if hung != Some(1) {
        bail!("reads that hang at one chunk: {hung:?}");
    }
    session.good_since(begin + CHUNK_HANGS_FOR)?;
    let ended = || (session.count(hung_at).ok()? == 0).then_some(());
    clock::poll(WITHIN, ended).context("hung_reads does not fall")?;
    Ok(format!(
        "hung_reads 1 to the end; another object in {}, its reader after {}",
        in_seconds(other_took),
        in_seconds(took)
    ))
}

fn source_greedy(session: &mut Session<'_>) -> Result<String> {
    let limited_at = "/origin/source_limited_total";
    let (limited, fetches) = (
        session.count(limited_at)?,
        session.count("/origin/fetches_total")?,
    );
    let cold = [session.fresh()?, session.fresh()?, session.fresh()?];
    let reader = &session.testbed.bed.reader;
    let ip_address = |what| reader.ip(&format!("address {what} {GREEDY}/24 dev {}", reader.link));
    ip_address("add")?;
    let greedy = Client::greet(reader, GREEDY, session.address())?;
    let begin = clock::now();
    let poured = thread::scope(|scope| {
        let pouring = scope.spawn(|| greedy.ask(1, absent(0..GREEDY_GETS)));
        let read = cold.iter().map(|fresh| session.reads_whole(fresh));
        let read = read.collect::<Result<Vec<_>>>();
        pouring.join().expect("it does not panic").and(read)
    });
    let poured_for = begin.elapsed();
    ip_address("delete")?;
    let slowest = poured?.into_iter().max().unwrap_or_default();
    session.good_again()?;
    let limited = session.count(limited_at)? - limited;
    let fetches = session.count("/origin/fetches_total")? - fetches;
    if limited == 0 {
        bail!("source_limited_total does not rise");
    }
    Ok(format!(
        "within {}: fetches +{fetches}, source_limited_total +{limited}; the slowest of three cold \
         objects took {}",
        in_seconds(poured_for),
        in_seconds(slowest)
    ))
}

fn origin_gone(session: &mut Session<'_>) -> Result<String> {
    let absent = session.count("/origin/absent_total")?;
    let from = session.lines()?;
    let origin = session.testbed.settings.origin();
    let gave_up = moved_away(session, origin, 75, "cannot get chunk")?;
    let line = session.logged(from, "the directory itself")?;
    let now_absent = session.count("/origin/absent_total")?;
    ensure!(now_absent == absent, "absent_total rises");
    Ok(format!("{gave_up}; log: {line}"))
}

fn origin_removed(session: &mut Session<'_>) -> Result<String> {
    let before = session.count("/origin/absent_total")?;
    let chunks = session.testbed.settings.origin().join("chunks");
    let gave_up = moved_away(session, &chunks, 1, "no origin of the edge has chunk")?;
    let absent = session.count("/origin/absent_total")? - before;
    ensure!(absent > 0, "absent_total does not rise");
    Ok(format!("{gave_up}; absent_total +{absent}"))
}

/// A reader that must fail while a folder of the origin is moved away, and succeed afterwards.
fn moved_away(session: &mut Session<'_>, folder: &Path, code: i32, words: &str) -> Result<String> {
    let fresh = session.fresh()?;
    let elsewhere = folder.with_extension("elsewhere");
    fs::rename(folder, &elsewhere)?;
    let gave_up = session.reads_not(&fresh, code, words);
    let over = clock::now();
    fs::rename(&elsewhere, folder)?;
    let gave_up = gave_up?;
    session.comes(&fresh, over)?;
    Ok(gave_up)
}

/// A reader of an object with one corrupt chunk, and another after it was repaired.
fn damaged(
    session: &mut Session<'_>,
    damage: fn(&Path) -> Result<()>,
    counter: &str,
    complaint: &str,
) -> Result<String> {
    let fresh = session.fresh()?;
    let chunk = fresh.data_chunk()?;
    let good = fs::read(chunk)?;
    let counter_at = format!("/origin/{counter}");
    let before = session.count(&counter_at)?;
    let from = session.lines()?;
    damage(chunk)?;
    let gave_up = session.reads_not(&fresh, 75, "cannot get chunk");
    let over = clock::now();
    remove(chunk)?;
    fs::write(chunk, good)?;
    let gave_up = gave_up?;
    let line = session.logged(from, complaint)?;
    let name = chunk.file_name().and_then(|name| name.to_str());
    if !line.contains(name.context("a chunk has a name")?) {
        bail!("the log does not name the chunk: {line}");
    }
    let rose = session.count(&counter_at)? - before;
    if rose == 0 {
        bail!("{counter} does not rise");
    }
    session.comes(&fresh, over)?;
    Ok(format!("{gave_up}; {counter} +{rose}; log: {line}"))
}

fn rewrite(chunk: &Path, change: fn(&mut Vec<u8>)) -> Result<()> {
    let mut bytes = fs::read(chunk)?;
    change(&mut bytes);
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
