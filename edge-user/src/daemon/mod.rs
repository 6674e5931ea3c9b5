//! Puts the daemon together, and takes it apart.
//!
//! The order matters in both directions. Up: memory, sockets, the program on the interface (the
//! number of queues may change with it), a worker for each queue, the miss path, and last the
//! settings, from which on the program steers. Down: the settings first, so that what comes from
//! then on goes to the kernel; then the threads; then the program.

/// One interface: its program, queues and sockets.
pub mod nic;
/// Why it does not start.
mod error;
/// What error numbers mean, and what to do about them.
mod remedy;
/// What the program is told about the host.
mod facts;
/// Whether the serving threads go on.
mod heartbeat;
/// What the host gives.
mod host;
/// Memory, and why there is none.
mod memory;
/// Limits set to this process.
mod cgroup;
/// Looks after the interface.
mod link;
/// What is made from it.
mod components;
/// Reads all counters.
mod observe;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

pub use self::cgroup::Limit;
pub use self::error::{Broken, StartError};
pub use self::memory::Shortage;
pub use self::remedy::{Operation, Refused};

use self::components::Components;
use self::error::refused;
use self::heartbeat::Heartbeats;
use self::link::{Look, Wanted, Watch, changes};
use self::observe::{FILLER, Observer, worker_name};
use crate::admin::health::Health;
use crate::clock;
use crate::config::Config;
use crate::counters::{Cause, Fault, Snapshot};
use crate::daemon::nic::program::Program;
use crate::sys::receive::Wake;

/// A daemon that serves.
pub struct Edge {
    program: Option<Program>,
    workers: Vec<JoinHandle<()>>,
    miss_path: JoinHandle<io::Result<()>>,
    stop: Arc<AtomicBool>,
    wakes: Vec<Wake>,
    observer: Arc<Observer>,
    heartbeats: Heartbeats,
    watch: Watch,
    /// What the program was told, and the interface's name then.
    told: Wanted,
    name: String,
}

impl Edge {
    pub fn start(config: &Config) -> Result<Self, StartError> {
        // Every part is made before the first thread starts: an error leaves nothing behind.
        let Components {
            program,
            wanted,
            watch,
            workers,
            miss_path,
            stop,
            wakes,
            observer,
        } = Components::make(config)?;
        let spawn = |name: String| thread::Builder::new().name(name);
        let filler = spawn(FILLER.to_owned()).spawn(move || miss_path.run());
        let mut edge = Self {
            program,
            workers: Vec::new(),
            miss_path: refused(Operation::Thread, "the miss path", filler)?,
            stop,
            wakes,
            heartbeats: Heartbeats::default(),
            watch,
            told: wanted,
            name: observer.interface.clone(),
            observer: Arc::new(observer),
        };
        for (worker, queue) in workers.into_iter().zip(0..) {
            let spawned = spawn(worker_name(queue)).spawn(move || worker.run());
            match refused(Operation::Thread, "a worker", spawned) {
                Ok(handle) => edge.workers.push(handle),
                Err(error) => {
                    edge.stop();
                    return Err(error);
                }
            }
        }
        if let Some(left_out) = &edge.told.left_out {
            tracing::warn!("{left_out}");
        }
        if let Some(program) = &mut edge.program
            && let Err(error) = program.serve(&[edge.told.settings], &edge.told.locals)
        {
            edge.stop();
            return Err(error.into());
        }
        Ok(edge)
    }

    /// Reads all counters, from any thread.
    pub fn snapshot_source(&self) -> Arc<dyn Fn() -> Snapshot + Send + Sync> {
        let observer = Arc::clone(&self.observer);
        Arc::new(move || observer.snapshot())
    }

    /// The faults that [`Self::check_health`] finds.
    pub fn health(&self) -> Health {
        self.observer.health.clone()
    }

    /// Finds faults, which go to the log and to [`Self::health`], and changes of the host, which the
    /// program is told. An error is what there is no going on with: a thread that ended, or a program whose interface
    /// is gone.
    pub fn check_health(&mut self) -> Result<(), Broken> {
        if self.miss_path.is_finished() || self.workers.iter().any(JoinHandle::is_finished) {
            return Err(Broken::Thread);
        }
        let mut faults = (self.heartbeats).stalled(self.observer.turns(), clock::now());
        match self.watch.look() {
            Ok(Some(look)) => {
                faults.extend(self.watch.faults(&look));
                faults.extend(self.follow(&look));
            }
            // Without a program the sockets go on by whatever interface has their addresses.
            Ok(None) if self.program.is_none() => {}
            Ok(None) => {
                let interface = self.observer.interface.clone();
                return Err(Broken::InterfaceGone { interface });
            }
            Err(error) => {
                tracing::warn!(%error, "the kernel does not answer questions about the interface");
            }
        }
        self.observer.health.judge(faults);
        Ok(())
    }

    /// Tells log and program what changed; a fault if the program cannot be told.
    fn follow(&mut self, look: &Look) -> Option<Fault> {
        let now = &look.interface.name;
        if *now != self.name {
            tracing::warn!(
                "the interface {} is now called {now}; it is served on, but the next start will \
                 look for {}",
                self.name,
                self.observer.interface
            );
            self.name.clone_from(now);
        }
        let program = self.program.as_mut()?;
        let wanted = self.watch.wanted(&look.interface);
        if wanted == self.told {
            return None;
        }
        if let Err(error) = program.serve(&[wanted.settings], &wanted.locals) {
            return Some(Fault {
                cause: Cause::ProgramNotTold,
                subject: String::new(),
                text: format!(
                    "the XDP program cannot be told what changed on this host: {error}; trying \
                     again, else restart edged"
                ),
            });
        }
        for line in changes(now, &self.told, &wanted) {
            tracing::warn!("{line}");
        }
        self.observer.host_changes.add(1);
        self.told = wanted;
        None
    }

    /// Stops serving, and leaves nothing on the interface.
    pub fn stop(mut self) {
        if let Some(program) = &mut self.program
            && let Err(error) = program.withdraw()
        {
            tracing::warn!(%error, "the program goes on steering until it is taken off");
        }
        self.stop.store(true, Ordering::Release);
        for wake in &self.wakes {
            wake.wake();
        }
        for worker in self.workers {
            if worker.join().is_err() {
                tracing::error!("a worker had failed");
            }
        }
        match self.miss_path.join() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::error!(%error, "the miss path had failed"),
            Err(_) => tracing::error!("the miss path had failed"),
        }
    }
}
