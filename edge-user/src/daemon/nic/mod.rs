//! A served interface: its queues, their AF_XDP sockets and workers. All interfaces share one
//! program.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};

use edge_ebpf::maps::Settings;

use super::error::{StartError, refused};
use super::monitor::Served;
use super::observe::NicObserver;
use super::remedy::Operation;
use crate::event_fd::EventFd;
use crate::serve::xdp::worker::Worker;

/// Loads the program, attaches it, and provides its maps.
pub mod program;

pub(super) struct Nic {
    /// The interface index, which is stable while the interface exists.
    pub(super) index: u32,
    /// The current name. Counters and faults keep the name at startup.
    pub(super) name: String,
    /// The program's settings, without the facts about the host.
    pub(super) settings: Settings,
    pub(super) observer: Arc<NicObserver>,
    /// Workers before and after they are started.
    pub(super) workers: Vec<Worker>,
    pub(super) threads: Vec<JoinHandle<()>>,
    /// Stops and wakes the workers.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) stop_wake: EventFd,
    /// Whether the interface was removed.
    pub(super) gone: bool,
}

impl Nic {
    /// The name at startup.
    pub(super) fn label(&self) -> &str {
        &self.observer.name
    }

    pub(super) fn served(&self) -> Served<'_> {
        Served {
            index: self.index,
            label: self.label(),
            queues: self.observer.queues(),
        }
    }

    /// Records and logs a new name.
    pub(super) fn follow_name(&mut self, now: &str) {
        if now != self.name {
            tracing::warn!(
                "the interface {} is now called {now}; it is still served, but the next start will \
                 look for {}",
                self.name,
                self.label()
            );
            now.clone_into(&mut self.name);
        }
    }

    pub(super) fn start_workers(&mut self) -> Result<(), StartError> {
        for (worker, observed) in self.workers.drain(..).zip(&self.observer.workers) {
            let thread = thread::Builder::new().name(observed.thread.clone());
            let started = thread.spawn(move || worker.run());
            self.threads
                .push(refused(Operation::Thread, "a worker", started)?);
        }
        Ok(())
    }

    /// Whether a worker has ended without being stopped.
    pub(super) fn has_failed(&self) -> bool {
        !self.gone && self.threads.iter().any(JoinHandle::is_finished)
    }

    pub(super) fn stop_workers(&self) {
        self.stop.store(true, Ordering::Release);
        self.stop_wake.wake();
    }

    /// Stops the workers of a removed interface, and closes its sockets once they have ended.
    /// Called repeatedly.
    pub(super) fn remove(&mut self) {
        self.gone = true;
        self.stop_workers();
        if self.threads.iter().all(JoinHandle::is_finished) {
            self.join_workers();
            self.observer.close_sockets();
        }
    }

    pub(super) fn join_workers(&mut self) {
        for thread in self.threads.drain(..) {
            if thread.join().is_err() {
                tracing::error!("a worker has failed");
            }
        }
    }
}
