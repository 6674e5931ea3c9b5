//! The generators, and their arguments.

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};
use edge_testbed::{
    bed::station,
    daemon::Daemon,
    process,
    stop::{self, Stop},
};
use serde_json::Value;

use super::client::Ran;
use super::testbed::{NET, Testbed, programs};

/// Time for the start on both ends.
const FLOOD_LONGER: f64 = 1.5;
/// Paths for nginx's generator: more than it requests before the files are cached.
const DRAWN: &str = "200000";

impl Testbed<'_> {
    /// Whole chunks, by UDP sockets: the median of three runs.
    pub(super) fn load(&self, to: &str, what: &[PathBuf; 2], server: &Daemon) -> Result<Ran> {
        let mut runs = Vec::new();
        for _ in 0..3 {
            let ran = self.undisturbed(|| {
                let mut load = self.edge_bench(&self.bed.reader);
                load.args(["load", "--wait", "--edge", to]).args(what);
                load.args(["--seconds", &self.plan.seconds.to_string()]);
                let ran = self.ready_go(&mut load, server.id(), || self.pass(false));
                self.pass(true)?;
                ran
            })?;
            runs.push((ran.rate("bytes")?, ran));
        }
        runs.sort_by(|one, other| one.0.total_cmp(&other.0));
        Ok(runs.swap_remove(1).1)
    }

    /// Single segments by AF_XDP; its program replaces the one that passes.
    pub(super) fn singles(&self, to: &str, how: &[&str], server: &Daemon) -> Result<Ran> {
        let mut singles = self.edge_bench(&self.bed.reader);
        self.link(singles.args(["singles", "--wait"]), to);
        singles.arg("--chunks").arg(&self.chunks).args(how);
        self.past_the_kernel(singles, server)
    }

    /// As many requests as the generator can send, in an open loop.
    pub(super) fn offered(&self, to: &str, server: &Daemon) -> Result<Ran> {
        let mut flood = self.edge_bench(&self.bed.reader);
        self.link(flood.args(["flood", "--wait", "--of", "unknown"]), to);
        self.past_the_kernel(flood, server)
    }

    fn past_the_kernel(&self, mut generator: Command, server: &Daemon) -> Result<Ran> {
        generator.args(["--seconds", &self.plan.seconds.to_string()]);
        self.undisturbed(|| {
            self.pass(false)?;
            let ran = self.ready_go(&mut generator, server.id(), || Ok(()));
            self.pass(true)?;
            ran
        })
    }

    /// Whole chunks, during a flood from other addresses; also returns the flood's datagrams per
    /// second.
    pub(super) fn load_beside_flood(&self, what: &[&str], server: &Daemon) -> Result<(Ran, f64)> {
        let mut flood = self.edge_bench(&self.bed.reader);
        self.link(flood.arg("flood"), &self.edge());
        // It starts before the load and ends after it.
        let seconds = self.plan.seconds + FLOOD_LONGER;
        flood.args(what).args(["--seconds", &seconds.to_string()]);
        let mut load = self.edge_bench(&self.bed.reader);
        load.args(["load", "--wait", "--edge", &self.edge(), "--tickets"]);
        load.arg(&self.tickets);
        load.args(["--seconds", &self.plan.seconds.to_string()]);
        let file = self.folder.join("flood.json");
        let mut flooding = None;
        let ran = self.ready_go(&mut load, server.id(), || {
            self.pass(false)?;
            let output = File::create(&file).context("cannot write the flood's result")?;
            flood.stdout(output).stderr(Stdio::piped());
            flooding = Some(process::spawn(&mut flood)?);
            Ok(())
        });
        // If the load never got ready, its own error counts, such as Ctrl-C.
        let Some(flooding) = flooding else {
            return Err(ran.err().context("the flood did not start")?);
        };
        let flooded = process::watch(flooding, stop::came);
        self.pass(true)?;
        let flooded = flooded?.ok_or_else(Stop::interrupted)?;
        if flooded.code != Some(0) {
            bail!("the flood failed ({:?}): {}", flooded.code, flooded.stderr);
        }
        let flooded: Value = serde_json::from_str(&fs::read_to_string(&file)?)?;
        let number = |name: &str| {
            flooded[name]
                .as_f64()
                .context("the flood's result is not a number")
        };
        Ok((ran?, number("requests")? / number("seconds")?))
    }

    /// Arguments that describe the link of an AF_XDP generator.
    fn link(&self, command: &mut Command, to: &str) {
        let (edge, reader) = (&self.bed.edge, &self.bed.reader);
        command.args(["--edge", to, "--net", NET, "--interface", reader.link]);
        command.args([
            "--edge-mac",
            &station(edge.mac),
            "--own-mac",
            &station(reader.mac),
        ]);
        command.arg("--programs").arg(programs());
    }

    /// Paths of chunk files, drawn like the generator's chunks.
    pub(super) fn drawn_paths(&self) -> Result<PathBuf> {
        let file = self.folder.join("paths");
        if !file.exists() {
            let mut draw = self.edge_bench(&self.bed.reader);
            draw.args(["draw", "--mix", "zipf:0.9", "--count", DRAWN, "--chunks"]);
            process::run(draw.arg(&self.chunks).arg("--out").arg(&file))?;
        }
        Ok(file)
    }
}
