//! Generators, told where to go and for how long.

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

/// What starting takes, on both ends.
const FLOOD_LONGER: f64 = 1.5;
/// Paths for nginx's generator: more than it asks for before they are warm.
const DRAWN: &str = "200000";

impl Testbed<'_> {
    /// Whole chunks by sockets.
    pub(super) fn load(&self, to: &str, what: &[PathBuf; 2], server: &Daemon) -> Result<Ran> {
        let mut load = self.edge_bench(&self.bed.reader);
        load.args(["load", "--wait", "--edge", to]).args(what);
        load.args(["--seconds", &self.plan.seconds.to_string()]);
        let ran = self.ready_go(&mut load, server.id(), || self.pass(false));
        self.pass(true)?;
        ran
    }

    /// Single segments by AF_XDP, whose program takes the place of the one that passes.
    pub(super) fn singles(&self, to: &str, how: &[&str], server: &Daemon) -> Result<Ran> {
        let mut singles = self.edge_bench(&self.bed.reader);
        self.link(singles.args(["singles", "--wait"]), to);
        singles.arg("--chunks").arg(&self.chunks).args(how);
        self.past_the_kernel(singles, server)
    }

    /// As many requests as the generator can make, whatever comes back.
    pub(super) fn offered(&self, to: &str, server: &Daemon) -> Result<Ran> {
        let mut flood = self.edge_bench(&self.bed.reader);
        self.link(flood.args(["flood", "--wait", "--of", "unknown"]), to);
        self.past_the_kernel(flood, server)
    }

    fn past_the_kernel(&self, mut generator: Command, server: &Daemon) -> Result<Ran> {
        generator.args(["--seconds", &self.plan.seconds.to_string()]);
        self.pass(false)?;
        let ran = self.ready_go(&mut generator, server.id(), || Ok(()));
        self.pass(true)?;
        ran
    }

    /// Whole chunks, while a flood goes on from other addresses; with its datagrams a second.
    pub(super) fn load_beside_flood(&self, what: &[&str], server: &Daemon) -> Result<(Ran, f64)> {
        let mut flood = self.edge_bench(&self.bed.reader);
        self.link(flood.arg("flood"), &self.edge());
        // Begun before the load, and over after it.
        let seconds = self.plan.seconds + FLOOD_LONGER;
        flood.args(what).args(["--seconds", &seconds.to_string()]);
        let mut load = self.edge_bench(&self.bed.reader);
        load.args(["load", "--wait", "--edge", &self.edge(), "--tickets"]);
        load.arg(&self.tickets);
        load.args(["--seconds", &self.plan.seconds.to_string()]);
        let told = self.folder.join("flood.json");
        let mut flooding = None;
        let ran = self.ready_go(&mut load, server.id(), || {
            self.pass(false)?;
            let told = File::create(&told).context("cannot write the flood's result")?;
            flood.stdout(told).stderr(Stdio::piped());
            flooding = Some(process::spawn(&mut flood)?);
            Ok(())
        });
        // A load that never got ready has its own reason, Ctrl-C for one.
        let Some(flooding) = flooding else {
            return Err(ran.err().context("the flood did not begin")?);
        };
        let flooded = process::watch(flooding, stop::came);
        self.pass(true)?;
        let flooded = flooded?.ok_or_else(Stop::interrupted)?;
        if flooded.code != Some(0) {
            bail!("the flood failed ({:?}): {}", flooded.code, flooded.said);
        }
        let flooded: Value = serde_json::from_str(&fs::read_to_string(&told)?)?;
        let number = |name: &str| flooded[name].as_f64().context("the flood told no number");
        Ok((ran?, number("requests")? / number("seconds")?))
    }

    /// How AF_XDP generators are told their link.
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

    /// Paths of chunk files, drawn like the chunks that the generator asks for.
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
