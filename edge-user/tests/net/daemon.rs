//! A running `edged`, on the edge's side of a testbed.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use edge_ebpf::reason::Reason;
use edge_testbed::daemon::{Daemon, stat};
use edge_user::counters::Snapshot;
use rustix::process::Signal;

use crate::testbed::{Testbed, program};
use crate::wait;

pub(crate) use edge_testbed::daemon::Settings;

/// Native XDP, both addresses, 64 MiB.
pub(crate) fn settings(testbed: &Testbed, sender: &str) -> Settings {
    let settings = Settings {
        sender: sender.to_owned(),
        hugepages: "prefer",
        metrics: "",
        ..Settings::on(testbed, testbed.folder())
    };
    fs::create_dir_all(settings.origin()).unwrap();
    settings
}

/// `edged` with these settings.
pub(crate) fn command(testbed: &Testbed, settings: &Settings) -> Command {
    command_with(testbed, &settings.to_toml())
}

/// `edged` with this text as its file.
pub(crate) fn command_with(testbed: &Testbed, text: &str) -> Command {
    configured(testbed, text, testbed.edge.inside(program("edged")))
}

/// The same as by `nsenter --net`, with the mounts of this process: /sys shows other devices, and the
/// control groups.
pub(crate) fn command_beside(testbed: &Testbed, settings: &Settings) -> Command {
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", testbed.edge.namespace))
        .arg(program("edged"));
    configured(testbed, &settings.to_toml(), command)
}

fn configured(testbed: &Testbed, text: &str, mut command: Command) -> Command {
    let file = testbed.folder().join("edged.toml");
    fs::write(&file, text).unwrap();
    command
        .arg("--config")
        .arg(file)
        .env_remove("NOTIFY_SOCKET");
    command
}

/// A started daemon; ended with this value, also when a test fails.
pub(crate) struct Edged {
    daemon: Mutex<Daemon>,
    socket: PathBuf,
}

impl Edged {
    /// Starts it, and waits until it says that it is ready.
    pub(crate) fn start(testbed: &Testbed, settings: &Settings) -> Self {
        Self::start_command(settings, command(testbed, settings))
    }

    /// The same by a command of the test's own.
    pub(crate) fn start_command(settings: &Settings, mut command: Command) -> Self {
        Self {
            daemon: Mutex::new(Daemon::start(&mut command).unwrap()),
            socket: settings.socket.clone(),
        }
    }

    fn daemon(&self) -> MutexGuard<'_, Daemon> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn log(&self) -> String {
        self.daemon().log().join("\n")
    }

    /// `ip netns exec` becomes the program, so the child's number is the daemon's.
    pub(crate) fn pid(&self) -> u32 {
        self.daemon().id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        self.daemon().signal(signal).unwrap();
    }

    /// What it has counted, by `edge stat --json`.
    pub(crate) fn stat(&self) -> Snapshot {
        stat(&self.socket, &[]).unwrap_or_else(|error| panic!("{error:#}\n{}", self.log()))
    }

    /// The counts, once every datagram on its way has found its end (I10).
    pub(crate) fn settled(&self) -> Snapshot {
        // Turns are counted while all rests.
        let counted = |snapshot: &Snapshot| {
            let xdp = snapshot.interfaces.iter().map(|found| found.xdp.clone());
            let (xdp, mut socket) = (xdp.collect::<Vec<_>>(), snapshot.socket.clone());
            socket.turns = 0;
            (xdp, socket)
        };
        let mut last = self.stat();
        let settled = wait::until(Duration::from_secs(3), || {
            let now = self.stat();
            let rests = counted(&now) == counted(&last);
            last = now;
            (rests && last.unbalanced().is_empty()).then_some(())
        });
        assert!(
            settled.is_some(),
            "I10: {}\n{last:#?}",
            last.unbalanced().join("; ")
        );
        last
    }

    /// The end, with code and time limit of a good stop.
    pub(crate) fn end(&self, limit: Duration) -> ExitStatus {
        self.daemon().ended(limit).unwrap()
    }

    /// Counts once more, and stops it in good order.
    pub(crate) fn stop(self) {
        self.settled();
        self.signal(Signal::TERM);
        let status = self.end(Duration::from_secs(2));
        assert_eq!(status.code(), Some(0), "{}", self.log());
        assert!(!self.log().contains("ERROR"), "{}", self.log());
    }
}

/// GETs the program handed to workers, and good GETs it left to the kernel.
pub(crate) fn gets(snapshot: &Snapshot) -> (u64, u64) {
    let to_kernel = [Reason::Miss, Reason::NoSocket, Reason::NoMetadata];
    let to_kernel = to_kernel
        .map(|reason| snapshot.xdp_packets(reason))
        .iter()
        .sum();
    (snapshot.xdp_packets(Reason::Steered), to_kernel)
}
