//! A running `edged`, on the edge's side of a ground.

use std::fmt::Write;
use std::fs::{self, File};
use std::iter;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use edge_ebpf::reason::Reason;
use edge_user::counters::Snapshot;
use rustix::process::{Pid, Signal, kill_process};

use crate::ground::{Ground, program};
use crate::wait::{self, ANSWER_TIME_MAX};

/// What the configuration file will say.
#[derive(Clone)]
pub(crate) struct Setup {
    pub(crate) interfaces: Vec<String>,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) xdp: &'static str,
    pub(crate) sender: &'static str,
    pub(crate) size: &'static str,
    pub(crate) hugepages: &'static str,
    pub(crate) origin: PathBuf,
    /// Asked when the first cannot help.
    pub(crate) second_origin: Option<PathBuf>,
    pub(crate) socket: PathBuf,
    pub(crate) vlans: &'static [&'static str],
}

impl Setup {
    /// Native XDP, both addresses, 64 MiB.
    pub(crate) fn of(ground: &Ground, sender: &'static str) -> Self {
        let origin = ground.folder().join("origin");
        fs::create_dir_all(&origin).unwrap();
        Self {
            interfaces: vec![ground.edge.link.to_owned()],
            listen: vec![ground.service_v4(), ground.service_v6()],
            xdp: "native",
            sender,
            size: "64MiB",
            hugepages: "prefer",
            origin,
            second_origin: None,
            socket: ground.folder().join("admin.sock"),
            vlans: &[],
        }
    }

    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        let listen: Vec<_> = self.listen.iter().map(ToString::to_string).collect();
        let origins: Vec<_> = (iter::once(&self.origin).chain(&self.second_origin))
            .map(|path| format!("{{ url = \"file://{}\" }}", path.display()))
            .collect();
        let (origins, socket) = (origins.join(", "), self.socket.display());
        write!(
            text,
            r#"service = {{ interfaces = {:?}, listen = {listen:?}, sender = "{}" }}
xdp = {{ mode = "{}", vlans = {:?} }}
store = {{ size = "{}", hugepages = "{}" }}
origin = [{origins}]
admin = {{ socket = "{socket}", metrics = "" }}
"#,
            self.interfaces, self.sender, self.xdp, self.vlans, self.size, self.hugepages,
        )
        .unwrap();
        text
    }

    /// `edged` with this text as its file.
    pub(crate) fn command(&self, ground: &Ground) -> Command {
        command_with(ground, &self.text())
    }
}

pub(crate) fn command_with(ground: &Ground, text: &str) -> Command {
    let file = ground.folder().join("edged.toml");
    fs::write(&file, text).unwrap();
    let mut command = ground.edge.inside(program("edged"));
    command
        .arg("--config")
        .arg(file)
        .env_remove("NOTIFY_SOCKET");
    command
}

/// The same as by `nsenter --net`, with the mounts of this process: /sys shows other devices, and the
/// control groups.
pub(crate) fn command_beside(ground: &Ground, setup: &Setup) -> Command {
    let file = ground.folder().join("edged.toml");
    fs::write(&file, setup.text()).unwrap();
    let mut command = Command::new("nsenter");
    command
        .arg(format!("--net=/run/netns/{}", ground.edge.namespace))
        .arg(program("edged"))
        .arg("--config")
        .arg(file)
        .env_remove("NOTIFY_SOCKET");
    command
}

/// A started daemon; ended with this value, also when a test fails.
pub(crate) struct Edged {
    child: Child,
    log: PathBuf,
    socket: PathBuf,
}

impl Edged {
    /// Starts it, and waits until it says that it is ready.
    pub(crate) fn start(ground: &Ground, setup: &Setup) -> Self {
        Self::start_command(ground, setup, setup.command(ground))
    }

    /// The same by a command of the test's own.
    pub(crate) fn start_command(ground: &Ground, setup: &Setup, mut command: Command) -> Self {
        let log = ground.folder().join("edged.log");
        let child = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut edged = Self {
            child,
            log,
            socket: setup.socket.clone(),
        };
        let ready = wait::until(ANSWER_TIME_MAX, || {
            let ended = edged.child.try_wait().unwrap();
            assert!(ended.is_none(), "edged does not start:\n{}", edged.log());
            edged.log().contains("ready: ").then_some(())
        });
        assert!(
            ready.is_some(),
            "edged does not get ready:\n{}",
            edged.log()
        );
        edged
    }

    pub(crate) fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// `ip netns exec` becomes the program, so the child's number is the daemon's.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = Pid::from_raw(self.pid().try_into().unwrap()).unwrap();
        kill_process(pid, signal).unwrap();
    }

    /// What it has counted, by `edge stat --json`.
    pub(crate) fn stat(&self) -> Snapshot {
        let mut command = Command::new(program("edge"));
        command
            .args(["stat", "--json", "--socket"])
            .arg(&self.socket);
        let output = wait::ended(command, ANSWER_TIME_MAX);
        assert!(
            output.status.success(),
            "{}\n{}",
            wait::said(&output),
            self.log()
        );
        serde_json::from_slice(&output.stdout).unwrap()
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
    pub(crate) fn end(&mut self, limit: Duration) -> ExitStatus {
        let ended = wait::until(limit, || self.child.try_wait().unwrap());
        ended.unwrap_or_else(|| panic!("edged does not end within {limit:?}:\n{}", self.log()))
    }

    /// Counts once more, and stops it in good order.
    pub(crate) fn stop(mut self) {
        self.settled();
        self.signal(Signal::TERM);
        let status = self.end(Duration::from_secs(2));
        assert_eq!(status.code(), Some(0), "{}", self.log());
        assert!(!self.log().contains("ERROR"), "{}", self.log());
    }
}

impl Drop for Edged {
    fn drop(&mut self) {
        if self.child.try_wait().is_ok_and(|status| status.is_none()) {
            eprintln!("the log of edged:\n{}", self.log());
            // A failed test brings us here: nothing must panic now.
            drop(self.child.kill());
            drop(self.child.wait());
        }
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
