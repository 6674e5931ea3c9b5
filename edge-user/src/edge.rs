//! Puts the daemon together, and takes it apart.
//!
//! The order matters in both directions. Up: memory, sockets, the program on the interface (the
//! number of queues may change with it), a worker for each queue, the miss path, and last the
//! settings, from which on the program steers. Down: the settings first, so that what comes from
//! then on goes to the kernel; then the threads; then the program.

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Instant;

use edge_ebpf::cookie::epoch_at;
use edge_ebpf::frame::Address;
use edge_ebpf::maps::{ABI_VERSION, ADDRESSES_MAX, Settings};
use rustix::thread::sched_getaffinity;
use tokio::runtime::Handle;

use crate::attach::{AttachError, Maps, Program, ProgramCounters, queue_count};
use crate::clock;
use crate::config::{Config, Hugepages, OriginUrl, XdpMode};
use crate::counters::{Mode, Sends, Snapshot, SocketCounts, WorkerCounts, XskCounts};
use crate::hit::worker::{Worker, WorkerCells};
use crate::inbox::Inbox;
use crate::limits::{RECEIVE_BUFFERS, XSK};
use crate::miss::cookies::CookieJar;
use crate::miss::desk::{Desk, MissCells};
use crate::miss::flight::Flights;
use crate::miss::origin::{OriginError, Origins};
use crate::miss::path::MissPath;
use crate::reply::gso::Sender;
use crate::reply::peer::{Services, endpoint};
use crate::store::publish::Publisher;
use crate::store::{Shared, Store, TooSmall, slot_bytes};
use crate::sys::mapping::{HUGEPAGE_BYTES, Mapping};
use crate::sys::receive::{ReceiveRing, Wake};
use crate::sys::socket::ServiceSocket;
use crate::sys::xsk::{Xsk, statistics};

/// Why the daemon does not start, with what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error(transparent)]
    Attach(#[from] AttachError),
    #[error(transparent)]
    Origin(#[from] OriginError),
    #[error("{0}; raise store.size")]
    TooSmall(#[from] TooSmall),
    #[error(
        "no {bytes_mib} MiB of hugepages for {what}: {error}; reserve {pages} more with `sysctl -w \
         vm.nr_hugepages=N`, or set store.hugepages = \"prefer\" or \"off\""
    )]
    Hugepages {
        what: String,
        bytes_mib: usize,
        pages: usize,
        error: io::Error,
    },
    #[error("no memory for {what}: {error}")]
    Memory { what: String, error: io::Error },
    #[error("{address} is taken by another program (`ss -lunp` names it); stop it first")]
    AddressInUse { address: SocketAddr },
    #[error(
        "{address} is not an address of this host; give it to an interface (`ip address add …`) or \
         change service.listen"
    )]
    NoSuchAddress { address: SocketAddr },
    #[error("cannot listen on {address}: {error}")]
    Listen {
        address: SocketAddr,
        error: io::Error,
    },
    #[error("interface {interface}: {error}; `ip link` lists those there are")]
    Interface { interface: String, error: io::Error },
    #[error(
        "no AF_XDP socket on queue {queue} of {interface}: {error}; see docs/OPERATING.md, \
         \"Queues\""
    )]
    Bind {
        queue: u32,
        interface: String,
        error: io::Error,
    },
    #[error("{what} cannot be set up: {error}")]
    System {
        what: &'static str,
        error: io::Error,
    },
    #[error(transparent)]
    Config(#[from] crate::config::ConfigError),
}

impl StartError {
    /// As in docs/OPERATING.md, "Exit codes".
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Attach(AttachError::NotPermitted) => 77,
            Self::AddressInUse { .. } | Self::Attach(AttachError::Occupied { .. }) => 75,
            Self::Config(_) | Self::NoSuchAddress { .. } | Self::TooSmall(_) => 78,
            Self::Bind { error, .. } | Self::Listen { error, .. } | Self::System { error, .. }
                if matches!(error.raw_os_error(), Some(libc::EPERM | libc::EACCES)) =>
            {
                77
            }
            Self::Attach(_)
            | Self::Origin(_)
            | Self::Hugepages { .. }
            | Self::Memory { .. }
            | Self::Listen { .. }
            | Self::Interface { .. }
            | Self::Bind { .. }
            | Self::System { .. } => 1,
        }
    }
}

/// A daemon that serves.
pub struct Edge {
    program: Option<Program>,
    workers: Vec<JoinHandle<()>>,
    miss_path: JoinHandle<io::Result<()>>,
    stop: Arc<AtomicBool>,
    wakes: Vec<Wake>,
    observer: Arc<Observer>,
}

/// What the counters are read from, from any thread.
struct Observer {
    started: Instant,
    mode: Mode,
    interface: String,
    queues: u32,
    listen: Vec<String>,
    program: Option<Mutex<ProgramCounters>>,
    workers: Vec<(Arc<WorkerCells>, Arc<std::os::fd::OwnedFd>)>,
    miss: Arc<MissCells>,
}

impl Edge {
    pub fn start(config: &Config, runtime: &Handle) -> Result<Self, StartError> {
        config.check_environment()?;
        let origins = config.origins.iter().map(|origin| match &origin.url {
            OriginUrl::Directory(path) => path.clone(),
        });
        let origins = Origins::open(origins)?;
        let secret = config.read_secret()?;
        let interface = config.service.interfaces[0].as_str();

        let (arena, hugepages) = arena(config)?;
        let sockets = listen(&config.service.listen)?;
        let slot_bytes = slot_bytes(config.service.segment_bytes) as u64;
        let slots = u32::try_from(config.store.size_bytes / slot_bytes).unwrap_or(u32::MAX);
        let (mut program, maps) = match config.xdp.mode {
            XdpMode::Off => (None, None),
            mode @ (XdpMode::Native | XdpMode::Generic) => {
                let (mut program, mut maps) = Program::load(slots)?;
                program.check_abi(&mut maps.counters)?;
                program.attach(interface, mode)?;
                (Some(program), Some(maps))
            }
        };
        let queues = match program {
            None => 0,
            Some(_) => queue_count(interface).map_err(|error| StartError::Interface {
                interface: interface.to_owned(),
                error,
            })?,
        };
        let (shared, pieces) = Shared::new(
            arena,
            config.store.size_bytes,
            config.service.segment_bytes,
            queues as usize,
        )?;

        let stop = Arc::new(AtomicBool::new(false));
        let wake = system("a wake-up", Wake::new())?;
        let stop_wake = system("a wake-up", Wake::new())?;
        let inbox = Arc::new(Inbox::new(wake.clone()));
        let interface_index = interface_number(interface, "ifindex")?;
        let services = Services::new(&sockets, interface_index);
        let plant = Plant {
            config,
            shared: &shared,
            sockets: &sockets,
            hugepages,
        };

        // Every part is made before the first thread starts: an error leaves nothing behind.
        let mut workers = Vec::new();
        let mut cells = Vec::new();
        for queue in 0..queues {
            let xsk = plant.xsk(queue)?;
            let own = Arc::new(WorkerCells::default());
            cells.push((Arc::clone(&own), xsk.share_fd()));
            if let Some(program) = &mut program {
                program.set_socket(queue, xsk.share_fd())?;
            }
            workers.push(Worker {
                cpu: worker_cpu(queue),
                busy_poll: config.xdp.busy_poll,
                xsk,
                shared: Arc::clone(&shared),
                reader: shared.epochs.reader(queue as usize),
                services: services.clone(),
                sender: plant.sender(&own.sends)?,
                inbox: Arc::clone(&inbox),
                cells: own,
                stop: Arc::clone(&stop),
                stop_wake: stop_wake.clone(),
            });
        }

        let settings = settings(config, interface)?;
        let miss = Arc::new(MissCells::default());
        let (publisher, cookie_map, counters) = match maps {
            Some(Maps {
                resident,
                cookies,
                counters,
            }) => (
                Publisher::to(resident),
                Some(cookies),
                Some(Mutex::new(counters)),
            ),
            None => (Publisher::none(), None, None),
        };
        let mut cookies = CookieJar::new(secret, cookie_map);
        cookies.turn_to(epoch_at(clock::unix_seconds()));
        let receive = ReceiveRing::new(RECEIVE_BUFFERS, Arc::clone(&sockets), wake.clone());
        let miss_path = MissPath {
            receive: system("io_uring", receive)?,
            inbox,
            desk: Desk {
                settings,
                cookies,
                store: Store::new(Arc::clone(&shared), pieces, publisher),
                flights: Flights::default(),
                origin: origins.start(runtime, wake.clone()),
                sender: plant.sender(&miss.sends)?,
                cells: Arc::clone(&miss),
                parked: None,
            },
            stop: Arc::clone(&stop),
        };

        let observer = Arc::new(Observer {
            started: clock::now(),
            mode: plant.mode(),
            interface: interface.to_owned(),
            queues,
            listen: config
                .service
                .listen
                .iter()
                .map(ToString::to_string)
                .collect(),
            program: counters,
            workers: cells,
            miss,
        });
        let miss_path = system(
            "the thread of the miss path",
            thread::Builder::new()
                .name("filler".to_owned())
                .spawn(move || miss_path.run()),
        )?;
        let mut edge = Self {
            program,
            workers: Vec::new(),
            miss_path,
            stop,
            wakes: vec![wake, stop_wake],
            observer,
        };
        for (worker, queue) in workers.into_iter().zip(0..) {
            let name = format!("worker-{queue}");
            let spawned = thread::Builder::new()
                .name(name)
                .spawn(move || worker.run());
            match spawned {
                Ok(handle) => edge.workers.push(handle),
                Err(error) => {
                    edge.stop();
                    return Err(StartError::System {
                        what: "a worker's thread",
                        error,
                    });
                }
            }
        }
        if let Some(program) = &mut edge.program
            && let Err(error) = program.serve(settings)
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

    /// Whether a thread has ended that should run as long as the daemon does.
    pub fn has_failed(&self) -> bool {
        self.miss_path.is_finished() || self.workers.iter().any(JoinHandle::is_finished)
    }

    /// Stops serving, and leaves nothing on the interface.
    pub fn stop(mut self) {
        if let Some(program) = &mut self.program
            && let Err(error) = program.serve(Settings::NONE)
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

impl Observer {
    fn snapshot(&self) -> Snapshot {
        let xdp = self.program.as_ref().map(|program| {
            let program = program.lock().unwrap_or_else(PoisonError::into_inner);
            (0..self.queues)
                .map(|queue| (queue, program.of_queue(queue)))
                .collect()
        });
        let workers = self.workers.iter().zip(0..).map(|((cells, xsk), queue)| {
            let xsk = statistics(std::os::fd::AsFd::as_fd(xsk)).unwrap_or_default();
            WorkerCounts {
                queue,
                received: cells.received.get(),
                reasons: cells.reasons.snapshot(),
                sends: cells.sends.snapshot(),
                xsk: XskCounts {
                    rx_dropped: xsk.rx_dropped,
                    rx_ring_full: xsk.rx_ring_full,
                    rx_invalid_descs: xsk.rx_invalid_descs,
                    rx_fill_ring_empty: xsk.rx_fill_ring_empty,
                },
            }
        });
        let miss = &self.miss;
        Snapshot {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            commit: env!("SEALEDGE_COMMIT").to_owned(),
            uptime_seconds: clock::now()
                .saturating_duration_since(self.started)
                .as_secs(),
            mode: self.mode.clone(),
            interface: self.interface.clone(),
            queues: self.queues,
            listen: self.listen.clone(),
            xdp: xdp.unwrap_or_default(),
            workers: workers.collect(),
            socket: SocketCounts {
                received: miss.received.get(),
                reasons: miss.reasons.snapshot(),
                bounced: miss.bounced.get(),
                bounce_reasons: miss.bounce_reasons.snapshot(),
                sends: miss.sends.snapshot(),
            },
            store: *miss.store.lock().unwrap_or_else(PoisonError::into_inner),
            origin: miss.origin(),
        }
    }
}

/// What the parts are made from.
struct Plant<'a> {
    config: &'a Config,
    shared: &'a Arc<Shared>,
    sockets: &'a Arc<[ServiceSocket]>,
    hugepages: bool,
}

impl Plant<'_> {
    fn sender(&self, counters: &Arc<Sends>) -> Result<Sender, StartError> {
        let sender = Sender::new(
            Arc::clone(self.shared),
            Arc::clone(self.sockets),
            Arc::clone(counters),
            self.config.service.max_burst,
        );
        system("io_uring", sender)
    }

    fn xsk(&self, queue: u32) -> Result<Xsk, StartError> {
        let interface = self.config.service.interfaces[0].clone();
        let bytes = XSK.frame_bytes as usize * XSK.frame_count as usize;
        let umem = memory(&format!("the umem of queue {queue}"), bytes, self.config)?;
        let xsk = Xsk::new(umem, XSK).and_then(|xsk| {
            xsk.bind(&interface, queue)?;
            Ok(xsk)
        });
        xsk.map_err(|error| StartError::Bind {
            queue,
            interface,
            error,
        })
    }

    /// The mode that really is in use.
    fn mode(&self) -> Mode {
        let off = self.config.xdp.mode == XdpMode::Off;
        Mode {
            xdp: self.config.xdp.mode.label().to_owned(),
            // Sockets are bound in copy mode, whether "copy" or "auto" was asked for.
            bind: if off { "none" } else { "copy" }.to_owned(),
            hugepages: self.hugepages,
            sender: self.config.service.sender.label().to_owned(),
        }
    }
}

fn arena(config: &Config) -> Result<(Mapping, bool), StartError> {
    let bytes = usize::try_from(config.store.size_bytes).unwrap_or(usize::MAX);
    let arena = memory("the arena", bytes, config)?;
    let hugepages = arena.hugepages();
    Ok((arena, hugepages))
}

/// Memory, in hugepages as the configuration says.
fn memory(what: &str, len_bytes: usize, config: &Config) -> Result<Mapping, StartError> {
    let what = || what.to_owned();
    let small = |error| StartError::Memory {
        what: what(),
        error,
    };
    match config.store.hugepages {
        Hugepages::Off => Mapping::anonymous(len_bytes, false).map_err(small),
        Hugepages::Prefer => Mapping::anonymous(len_bytes, true)
            .or_else(|_| Mapping::anonymous(len_bytes, false))
            .map_err(small),
        Hugepages::Require => {
            Mapping::anonymous(len_bytes, true).map_err(|error| StartError::Hugepages {
                what: what(),
                bytes_mib: len_bytes >> 20,
                pages: len_bytes.div_ceil(HUGEPAGE_BYTES),
                error,
            })
        }
    }
}

fn listen(addresses: &[SocketAddr]) -> Result<Arc<[ServiceSocket]>, StartError> {
    let bind = |address: &SocketAddr| {
        ServiceSocket::bind(*address).map_err(|error| match error.raw_os_error() {
            Some(libc::EADDRINUSE) => StartError::AddressInUse { address: *address },
            Some(libc::EADDRNOTAVAIL) => StartError::NoSuchAddress { address: *address },
            _ => StartError::Listen {
                address: *address,
                error,
            },
        })
    };
    addresses.iter().map(bind).collect()
}

/// What the program must know to tell whose packet it has.
fn settings(config: &Config, interface: &str) -> Result<Settings, StartError> {
    let mut addresses = [Address::UNSPECIFIED; ADDRESSES_MAX];
    let listen = &config.service.listen;
    for (place, address) in addresses.iter_mut().zip(listen) {
        *place = endpoint(address).0.address;
    }
    Ok(Settings {
        abi_version: ABI_VERSION,
        port: listen[0].port(),
        segment_bytes: config.service.segment_bytes,
        address_count: u32::try_from(listen.len()).unwrap_or(u32::MAX),
        max_burst: config.service.max_burst,
        reserved: 0,
        mac: station_address(interface)?,
        addresses,
    })
}

fn interface_file(interface: &str, name: &str) -> Result<String, StartError> {
    std::fs::read_to_string(format!("/sys/class/net/{interface}/{name}")).map_err(|error| {
        StartError::Interface {
            interface: interface.to_owned(),
            error,
        }
    })
}

fn interface_number(interface: &str, name: &str) -> Result<u32, StartError> {
    let text = interface_file(interface, name)?;
    text.trim().parse().map_err(|_| StartError::Interface {
        interface: interface.to_owned(),
        error: io::ErrorKind::InvalidData.into(),
    })
}

fn station_address(interface: &str) -> Result<[u8; 6], StartError> {
    let text = interface_file(interface, "address")?;
    let mut bytes = text
        .trim()
        .split(':')
        .map(|byte| u8::from_str_radix(byte, 16));
    let mut mac = [0; 6];
    for place in &mut mac {
        *place = bytes
            .next()
            .and_then(Result::ok)
            .ok_or_else(|| StartError::Interface {
                interface: interface.to_owned(),
                error: io::Error::other("it has no Ethernet address"),
            })?;
    }
    Ok(mac)
}

/// Workers go round the CPUs this process may use.
fn worker_cpu(queue: u32) -> usize {
    let allowed = sched_getaffinity(None).ok();
    let cpus: Vec<usize> = (0..rustix::thread::CpuSet::MAX_CPU)
        .filter(|cpu| allowed.as_ref().is_some_and(|allowed| allowed.is_set(*cpu)))
        .collect();
    cpus.get(queue as usize % cpus.len().max(1))
        .copied()
        .unwrap_or(0)
}

fn system<T>(what: &'static str, result: io::Result<T>) -> Result<T, StartError> {
    result.map_err(|error| StartError::System { what, error })
}
