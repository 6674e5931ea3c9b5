//! Starts the daemon from its configuration, checks its health, and stops it.
//!
//! The order matters in both directions. Startup: memory, sockets, the program on the interfaces
//! (which may change the number of queues), a worker for each queue, engine and socket front, and
//! last the settings, which make the program steer. Shutdown: the settings first, so that the
//! program passes all packets to the kernel; then the threads; then the program.

/// A served interface: its queues, sockets and workers.
pub mod nic;
/// Why the daemon does not start.
mod error;
/// Explains kernel errors and suggests remedies.
mod remedy;
/// What the program must know about the host.
mod facts;
/// Detects stalled threads.
mod heartbeat;
/// Sockets and interfaces of the host.
mod host;
/// Allocates memory, with or without hugepages.
mod memory;
/// Explains why memory is short.
mod shortage;
/// Memory limits of control groups.
mod cgroup;
/// Watches the interfaces and addresses of the host.
mod monitor;
/// Builds all parts of the daemon.
mod components;
/// Reads all counters.
mod observe;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

pub use self::cgroup::Limit;
pub use self::error::{Broken, StartError};
pub use self::remedy::{Operation, Refused};
pub use self::shortage::Shortage;

use self::components::Components;
use self::error::{refused, system};
use self::heartbeat::Heartbeats;
use self::monitor::{Link, Monitor, ProgramState, Served, changes};
use self::nic::Nic;
use self::observe::{ENGINE, Observer, SOCKET};
use crate::admin::health::Health;
use crate::clock;
use crate::config::Config;
use crate::counters::{Cause, Fault, Snapshot};
use crate::daemon::nic::program::Program;
use crate::event_fd::EventFd;
use crate::fetch::engine::Engine;
use crate::serve::socket::event_loop::EventLoop;

/// A running daemon.
pub struct Edge {
    program: Option<Program>,
    nics: Vec<Nic>,
    /// Engine and socket front.
    threads: Vec<JoinHandle<io::Result<()>>>,
    stop: Arc<AtomicBool>,
    wakes: [EventFd; 2],
    observer: Arc<Observer>,
    heartbeats: Heartbeats,
    monitor: Monitor,
    /// The last update of the program.
    program_state: ProgramState,
}

impl Edge {
    pub fn start(config: &Config) -> Result<Self, StartError> {
        // Build all parts before starting a thread, so that an error leaves nothing behind.
        let Components {
            program,
            monitor,
            nics,
            engine,
            socket,
            stop,
            wakes,
            observer,
        } = Components::make(config)?;
        let mut edge = Self {
            program,
            program_state: monitor.program_state(&[]),
            nics,
            threads: Vec::new(),
            stop: Arc::clone(&stop),
            wakes,
            heartbeats: Heartbeats::default(),
            monitor,
            observer: Arc::new(observer),
        };
        if let Err(error) = edge.begin(engine, socket, stop) {
            edge.stop();
            return Err(error);
        }
        Ok(edge)
    }

    /// Starts the threads, and then makes the program steer to the workers.
    fn begin(
        &mut self,
        engine: Engine,
        socket: EventLoop,
        stop: Arc<AtomicBool>,
    ) -> Result<(), StartError> {
        let engine = start_thread(ENGINE, move || engine.run(&stop));
        self.threads.push(engine?);
        self.threads
            .push(start_thread(SOCKET, move || socket.run())?);
        for nic in &mut self.nics {
            nic.start_workers()?;
        }
        let links = system("interface information", self.links())?;
        let state = self.wanted_state(links);
        for line in &state.warnings {
            tracing::warn!("{line}");
        }
        if let Some(program) = &mut self.program {
            program.serve(&state.settings, &state.locals)?;
        }
        self.program_state = state;
        Ok(())
    }

    /// A function that reads all counters, for any thread.
    pub fn snapshot_source(&self) -> Arc<dyn Fn() -> Snapshot + Send + Sync> {
        let observer = Arc::clone(&self.observer);
        Arc::new(move || observer.snapshot())
    }

    /// The faults that [`Self::check_health`] finds.
    pub fn health(&self) -> Health {
        self.observer.health.clone()
    }

    /// Reports faults to the log and to [`Self::health`], and updates the program after changes of
    /// the host. Fails if the edge cannot continue: a thread has ended, or all interfaces were
    /// removed.
    pub fn check_health(&mut self) -> Result<(), Broken> {
        let ended = self.threads.iter().any(JoinHandle::is_finished);
        if ended || self.nics.iter().any(Nic::has_failed) {
            return Err(Broken::Thread);
        }
        let present = self.nics.iter().filter(|nic| !nic.gone);
        let present: Vec<_> = present.map(|nic| &*nic.observer).collect();
        let heartbeats = self.observer.heartbeats(&present);
        let mut faults = self.heartbeats.stalled(heartbeats, clock::now());
        match self.monitor.refresh().and_then(|()| self.links()) {
            Ok(links) => faults.extend(self.check_links(links)),
            Err(error) => {
                tracing::warn!(%error, "cannot query the kernel about interfaces");
            }
        }
        if self.nics.iter().all(|nic| nic.gone) {
            let interfaces = self.nics.iter().map(|nic| nic.label().to_owned());
            return Err(Broken::InterfacesRemoved {
                interfaces: interfaces.collect(),
            });
        }
        self.observer.health.update(faults);
        Ok(())
    }

    /// The current state of the interfaces; `None` for removed ones.
    fn links(&self) -> io::Result<Vec<Option<Link>>> {
        let links = self.nics.iter().map(|nic| self.monitor.link(nic.index));
        links.collect()
    }

    fn wanted_state(&self, links: Vec<Option<Link>>) -> ProgramState {
        let interfaces = links
            .into_iter()
            .map(|link| link.map(|link| link.interface));
        let settings = self.nics.iter().map(|nic| &nic.settings);
        let served: Vec<_> = settings.zip(interfaces).collect();
        self.monitor.program_state(&served)
    }

    fn check_links(&mut self, links: Vec<Option<Link>>) -> Vec<Fault> {
        let mut faults = Vec::new();
        for (nic, link) in self.nics.iter_mut().zip(&links) {
            match link {
                Some(link) => {
                    nic.follow_name(&link.interface.name);
                    faults.extend(self.monitor.link_faults(&nic.served(), link));
                }
                // Without a program, the sockets work with any interface that has their addresses.
                None if self.program.is_none() => {}
                None => {
                    nic.remove();
                    faults.push(nic.served().removed());
                }
            }
        }
        let served: Vec<Served<'_>> = self.nics.iter().map(Nic::served).collect();
        faults.extend(self.monitor.address_faults(&served));
        faults.extend(self.update_program(links));
        faults
    }

    /// Updates the program if the host has changed, and logs the change.
    fn update_program(&mut self, links: Vec<Option<Link>>) -> Option<Fault> {
        let wanted = self.wanted_state(links);
        let program = self.program.as_mut()?;
        if wanted == self.program_state {
            return None;
        }
        if let Err(error) = program.serve(&wanted.settings, &wanted.locals) {
            return Some(Fault {
                cause: Cause::ProgramNotUpdated,
                interface: None,
                subject: String::new(),
                text: format!(
                    "the XDP program cannot be updated after a change of this host: {error}; \
                     retrying; if this persists, restart edged"
                ),
            });
        }
        let before = &self.program_state;
        let settings = before.settings.iter().zip(&wanted.settings);
        for (nic, (before, now)) in self.nics.iter().zip(settings) {
            for line in changes(&nic.name, before, now) {
                tracing::warn!("{line}");
            }
        }
        let is_new = |line: &&String| !before.warnings.contains(line);
        for line in wanted.warnings.iter().filter(is_new) {
            tracing::warn!("{line}");
        }
        self.observer.host_changes.add(1);
        self.program_state = wanted;
        None
    }

    /// Stops serving and detaches the program.
    pub fn stop(mut self) {
        if let Some(program) = &mut self.program
            && let Err(error) = program.withdraw()
        {
            tracing::warn!(%error, "cannot stop the program from steering before it is detached");
        }
        self.stop.store(true, Ordering::Release);
        self.wakes.iter().for_each(EventFd::wake);
        self.nics.iter().for_each(Nic::stop_workers);
        self.nics.iter_mut().for_each(Nic::join_workers);
        for thread in self.threads {
            let name = thread.thread().name().unwrap_or_default().to_owned();
            match thread.join() {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::error!(%error, "the thread {name} has failed"),
                Err(_) => tracing::error!("the thread {name} has failed"),
            }
        }
    }
}

fn start_thread(
    name: &str,
    run: impl FnOnce() -> io::Result<()> + Send + 'static,
) -> Result<JoinHandle<io::Result<()>>, StartError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
    refused(Operation::Thread, name, thread)
}
