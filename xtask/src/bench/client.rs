//! Runs a generator and returns its result, with the processor time of both sides.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use edge_testbed::{
    clock, paths, process,
    stop::{self, Stop},
};
use serde_json::{Value, json};

use super::cpu::Used;
use super::testbed::Testbed;

/// From this share on, a CPU counts as saturated.
const FULL_LOAD: f64 = 0.93;

/// For CPUs to be where they usually are.
const PATIENCE: Duration = Duration::from_secs(10);
/// At an undisturbed run.
const ATTEMPTS: u32 = 4;

/// The result of a run.
pub(super) struct Ran {
    /// As the generator printed it.
    pub(super) result: Value,
    pub(super) cpu: Value,
    /// If the hypervisor moved the CPUs: from where to where.
    pub(super) moved: Option<String>,
    server_load: f64,
    client_load: f64,
}

impl Ran {
    pub(super) fn new(result: Value, before: [Used; 2], after: [Used; 2]) -> Self {
        let [server, client] = [0, 1].map(|side| after[side].since(&before[side]));
        let [server_load, mut client_load] =
            [0, 1].map(|side| after[side].load_since(&before[side]));
        // A busy-polling generator uses all of its CPU, even without replies.
        if let (Some(idle), Some(all)) =
            (result["idle_seconds"].as_f64(), result["seconds"].as_f64())
        {
            client_load -= idle / all;
        }
        Self {
            cpu: json!({"server": server, "client": client}),
            moved: None,
            server_load,
            client_load,
            result,
        }
    }

    /// Which side was saturated.
    pub(super) fn saturated(&self) -> &'static str {
        if self.server_load >= FULL_LOAD {
            "server"
        } else if self.client_load >= FULL_LOAD {
            "generator"
        } else {
            "neither"
        }
    }

    fn number(&self, name: &str) -> Result<f64> {
        self.result[name]
            .as_f64()
            .with_context(|| format!("the generator's result has no {name}: {}", self.result))
    }

    /// The count of this name per second.
    pub(super) fn rate(&self, name: &str) -> Result<f64> {
        Ok(self.number(name)? / self.number("seconds")?)
    }

    /// In the format of `edge-bench assemble`.
    pub(super) fn run(&self, side: &str, pair: u32, value: f64, unit: &str) -> Value {
        let mut run = json!({
            "side": side,
            "pair": pair,
            "value": value,
            "unit": unit,
            "cpu": self.cpu,
        });
        for name in [
            "seconds", "bytes", "offered", "loss", "latency", "verified", "wrong",
        ] {
            if !self.result[name].is_null() {
                run[name] = self.result[name].clone();
            }
        }
        run
    }
}

impl Testbed<'_> {
    /// Runs a generator with `--wait` against the server with this process id. `between` is called
    /// when the generator is ready.
    pub(super) fn ready_go(
        &self,
        command: &mut Command,
        server: u32,
        between: impl FnOnce() -> Result<()>,
    ) -> Result<Ran> {
        eprintln!("+ {}", process::line(command));
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start: {}", process::line(command)))?;
        let mut output = BufReader::new(child.stdout.take().context("a pipe of ours")?);
        let mut input = child.stdin.take().context("a pipe of ours")?;
        let mut between = Some(between);
        let mut used = Vec::new();
        for word in ["ready", "begin", "end"] {
            let mut line = String::new();
            output.read_line(&mut line)?;
            if line.trim() != word {
                let status = child.wait()?;
                if stop::came() {
                    return Err(Stop::interrupted());
                }
                bail!("no {word} ({status}): {}", process::line(command));
            }
            if let Some(between) = between.take() {
                between()?;
                input.write_all(b"go\n")?;
            } else {
                used.push(self.used(server, child.id())?);
            }
        }
        let mut text = String::new();
        output.read_to_string(&mut text)?;
        let status = child.wait()?;
        if stop::came() {
            return Err(Stop::interrupted());
        }
        if !status.success() {
            bail!("failed ({status}): {}", process::line(command));
        }
        let result: Value = serde_json::from_str(&text)
            .with_context(|| format!("no JSON from: {}", process::line(command)))?;
        let [before, after] = used[..] else {
            bail!("the generator printed no begin or end");
        };
        Ok(Ran::new(result, before, after))
    }

    /// A run during which the hypervisor left the CPUs where they usually are, or else the last of
    /// a few.
    pub(super) fn undisturbed(&self, mut run: impl FnMut() -> Result<Ran>) -> Result<Ran> {
        if self.cpus[0] == self.cpus[1] {
            return run();
        }
        if self.distance.borrow().is_unknown() {
            self.locate_cpus()?;
        }
        let mut attempt = 1;
        loop {
            // They are mostly moved back within seconds.
            clock::poll(PATIENCE, || match self.round_trip() {
                Ok(nanos) if !stop::came() && !self.distance.borrow().is_usual(nanos) => None,
                other => Some(other),
            })
            .transpose()?;
            let ran = run()?;
            let nanos = self.round_trip()?;
            self.distance.borrow_mut().record(nanos);
            match self.distance.borrow().moved(nanos) {
                Some(moved) if attempt < ATTEMPTS => eprintln!("   measured again: {moved}"),
                moved => return Ok(Ran { moved, ..ran }),
            }
            attempt += 1;
        }
    }

    /// Learns where the hypervisor usually has the CPUs.
    fn locate_cpus(&self) -> Result<()> {
        for _ in 0..20 {
            self.distance.borrow_mut().record(self.round_trip()?);
            clock::poll(Duration::from_millis(500), || stop::came().then_some(()));
        }
        Ok(())
    }

    /// Nanoseconds of a cache line's round trip between the CPUs of server and generator.
    fn round_trip(&self) -> Result<f64> {
        let mut measure = Command::new(paths::release("edge-bench"));
        let cpus = self.cpus.map(|cpu| cpu.to_string()).join(",");
        measure.args(["core-to-core", "--cpus", &cpus]);
        let result: Value = serde_json::from_str(&process::output(&mut measure)?)?;
        let nanos = result["round_trip_nanos"].as_f64();
        nanos.context("no round trip")
    }

    /// Processor time so far of server and client, and of their CPUs.
    pub(super) fn used(&self, server: u32, client: u32) -> Result<[Used; 2]> {
        Ok([
            Used::by(server, self.cpus[0])?,
            Used::by(client, self.cpus[1])?,
        ])
    }
}
