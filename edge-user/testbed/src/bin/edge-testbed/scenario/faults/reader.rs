//! Faults of the reader.

use std::path::Path;
use std::process::{Child, Command};

use anyhow::{Context as _, Result, bail, ensure};
use edge_testbed::{
    clock, objects,
    process::{self, Ended},
};
use rustix::process::Signal;

use super::session::{Fresh, Session, WITHIN, half_files, run_within};
use super::{Fault, NOTHING};

#[rustfmt::skip] // three lines a fault, as far as it goes
pub(super) const FAULTS: &[Fault] = &[
    Fault { name: "disk-full", excuses: NOTHING, run: disk_full,
        done: "the output on a tmpfs of 128 KiB, which is then enlarged",
        expected: "the reader fails with exit code 1 and leaves nothing; with space it finishes" },
    Fault { name: "output-unwritable", excuses: NOTHING, run: output_unwritable,
        done: "the output on a read-only file system, which is then made writable",
        expected: "the reader fails with exit code 1 and leaves nothing; then it finishes" },
    Fault { name: "reader-killed", excuses: NOTHING, run: reader_killed,
        done: "SIGKILL to a reader in the middle of an object, and the same command again",
        expected: "no file with the object's name, at most one hidden .part file; the second \
                   reader finishes" },
];

const LARGE_BYTES: usize = 64 << 20;

/// A process on the reader's side with its own mount namespace: mounts there are invisible
/// elsewhere and end with it.
struct Mounts(Child);

impl Mounts {
    fn new(session: &Session<'_>) -> Result<Self> {
        let mut sleeper = session.testbed.bed.reader.inside("sleep");
        let mounts = Self(process::spawn(sleeper.arg("600"))?);
        // `ip netns exec` unshares the mounts before it executes the sleeper.
        let comm = format!("/proc/{}/comm", mounts.0.id());
        let sleeps = || std::fs::read_to_string(&comm).is_ok_and(|name| name.trim() == "sleep");
        clock::poll(WITHIN, || sleeps().then_some(())).context("the sleeper does not come")?;
        Ok(mounts)
    }

    fn inside(&self, program: &str) -> Command {
        let mut command = Command::new("nsenter");
        command.args(["--mount", "--net", "--target", &self.0.id().to_string()]);
        command.arg(program);
        command
    }

    fn mount(&self, options: &str, folder: &Path) -> Result<()> {
        let mut mount = self.inside("mount");
        mount
            .args(["-t", "tmpfs", "-o", options, "tmpfs"])
            .arg(folder);
        process::run(&mut mount)
    }

    /// The reader's command, with these mounts.
    fn get(&self, session: &Session<'_>, fresh: &Fresh, out: &Path) -> Result<Ended> {
        let reader = &session.testbed.bed.reader;
        let get = objects::get(reader, &fresh.sealed.ticket, session.address(), out);
        // Program and arguments follow `ip netns exec NAMESPACE`.
        let mut inside = self.inside("env");
        inside.args(get.get_args().skip(3));
        run_within(&mut inside, WITHIN)
    }

    fn lists(&self, folder: &Path) -> Result<String> {
        process::output(self.inside("ls").arg("-A").arg(folder))
    }
}

impl Drop for Mounts {
    fn drop(&mut self) {
        process::end(&mut self.0);
    }
}

fn disk_full(session: &mut Session<'_>) -> Result<String> {
    refused_output(session, "size=128k", "remount,size=64m", "no space for")
}

fn output_unwritable(session: &mut Session<'_>) -> Result<String> {
    refused_output(session, "ro", "remount,rw", "Read-only file system")
}

fn refused_output(session: &mut Session<'_>, bad: &str, good: &str, words: &str) -> Result<String> {
    let fresh = session.fresh()?;
    let mounts = Mounts::new(session)?;
    let folder = session.testbed.folder.join("small");
    std::fs::create_dir_all(&folder)?;
    let out = folder.join("out");
    mounts.mount(bad, &folder)?;
    let failed = mounts.get(session, &fresh, &out)?;
    let left = mounts.lists(&folder)?;
    let Ended { code, stderr } = failed;
    let refused = code == Some(1) && stderr.contains(words) && left.is_empty();
    ensure!(
        refused,
        "the reader ended with {code:?}, left {left:?}: {stderr}"
    );
    session.good_after(|session| {
        mounts.mount(good, &folder)?;
        let Ended { code, stderr } = mounts.get(session, &fresh, &out)?;
        let sum = process::output(mounts.inside("sha256sum").arg(&out))?;
        let whole = code == Some(0) && sum.starts_with(&fresh.sealed.object.sha256);
        ensure!(whole, "the reader ended with {code:?}: {stderr}");
        Ok(())
    })?;
    Ok(format!("exit code 1: {stderr}"))
}

fn reader_killed(session: &mut Session<'_>) -> Result<String> {
    let large = session.publish(LARGE_BYTES)?;
    let mut child = session.reader_in_the_middle(&large)?;
    let over = clock::now();
    process::signal(&child, Signal::KILL)?;
    child.wait()?;
    let folder = large.sealed.object.path.parent();
    let folder = folder.context("a folder of ours")?;
    let left = half_files(folder)?;
    if left.len() > 1 || large.out().exists() {
        bail!("the killed reader left {left:?}");
    }
    for half in &left {
        std::fs::remove_file(half)?;
    }
    session.comes(&large, over)?;
    Ok(format!(
        "no file with the object's name, {} .part file left; the second reader finished",
        left.len()
    ))
}
