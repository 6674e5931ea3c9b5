//! Builds all parts of the daemon, ready to run.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use edge_ebpf::cookie::epoch_at;
use edge_ebpf::maps::Settings;

use super::error::{StartError, refused, system};
use super::host;
use super::memory::memory;
use super::monitor::Monitor;
use super::nic::Nic;
use super::observe::{NicObserver, Observer, WorkerObserver, XskObserver};
use super::remedy::Operation;
use crate::admin::health::Health;
use crate::cache::layout::Layout;
use crate::cache::lease::CacheView;
use crate::cache::publish::Publisher;
use crate::cache::store::{Store, divide};
use crate::clock;
use crate::config::{self, Config, OriginUrl, XdpMode};
use crate::counters::{Cell, Mode, Sends};
use crate::daemon::nic::program::{AttachError, Maps, Program};
use crate::event_fd::EventFd;
use crate::fetch::engine::Engine;
use crate::fetch::front::Front;
use crate::fetch::origin::Origin;
use crate::fetch::origin::local::Directory;
use crate::fetch::origin::pool;
use crate::limits::{BATCH, BOUNCE_QUEUE, RECEIVE_BUFFERS, SENDS};
use crate::network::{Interface, Network};
use crate::serve::Request;
use crate::serve::bounce::BounceQueue;
use crate::serve::cookies::{CookieKeys, CookieMap};
use crate::serve::peer::Listeners;
use crate::serve::socket::event_loop::{EventLoop, SocketState};
use crate::serve::socket::gso::GsoTransmitter;
use crate::serve::socket::handler::{Handler, SocketCells};
use crate::serve::transmit::Transmitter;
use crate::serve::xdp::transmit::XskTransmitter;
use crate::serve::xdp::worker::{Worker, WorkerCells, WorkerState};
use crate::sys::epochs::Reader;
use crate::sys::receive::ReceiveRing;
use crate::sys::send::SendRing;
use crate::sys::socket::ServiceSocket;

pub(super) struct Components {
    pub(super) program: Option<Program>,
    pub(super) monitor: Monitor,
    pub(super) nics: Vec<Nic>,
    pub(super) engine: Engine,
    pub(super) socket: EventLoop,
    /// Stops and wakes engine and socket front.
    pub(super) stop: Arc<AtomicBool>,
    pub(super) wakes: [EventFd; 2],
    pub(super) observer: Observer,
}

/// What several components share.
struct SharedParts<'a> {
    config: &'a Config,
    sockets: Arc<[ServiceSocket]>,
    view: Arc<CacheView>,
    /// Number of workers, whose readers have the numbers below this.
    workers: usize,
    bounce_queue: Arc<BounceQueue>,
    stop: Arc<AtomicBool>,
    /// Wakes the socket front.
    wake: EventFd,
}

impl Components {
    #[expect(
        clippy::too_many_lines,
        reason = "one sequence, easier to check as a whole"
    )]
    pub(super) fn make(config: &Config) -> Result<Self, StartError> {
        config.check_environment()?;
        let origins = config.origins.iter().map(|origin| match &origin.url {
            OriginUrl::Directory(path) => {
                Directory::new(path.clone()).map(|origin| Box::new(origin) as Box<dyn Origin>)
            }
        });
        let origins = origins.collect::<Result<_, _>>()?;
        let network = system("interface information", Network::open())?;
        let interfaces = host::interfaces(&network, config)?;
        let bytes = usize::try_from(config.store.size_bytes).unwrap_or(usize::MAX);
        let arena = memory("the arena", bytes, config)?;
        let mut hugepages = arena.hugepages();
        let sockets = host::listen(&config.service.listen, &network, &interfaces)?;
        let (mut program, maps) = attach(config, &interfaces)?;
        let queue_count = |interface| match program {
            None => Ok(0),
            Some(_) => host::queue_count(&network, interface),
        };
        let queues = interfaces.iter().map(queue_count);
        let queues = queues.collect::<Result<Vec<_>, _>>()?;
        let workers = queues.iter().sum::<u32>() as usize;
        // The workers, and the socket front.
        let readers = workers + 1;
        let layout = Layout::new(config.service.segment_bytes);
        let (view, blocks) = divide(arena, config.store.size_bytes, layout, readers)?;
        let wake = system("an eventfd", EventFd::new())?;
        let parts = SharedParts {
            config,
            sockets,
            view,
            workers,
            bounce_queue: Arc::new(BounceQueue::new(BOUNCE_QUEUE, wake.clone())),
            stop: Arc::new(AtomicBool::new(false)),
            wake,
        };
        let settings = host::settings(config);
        let number = program.as_mut().map(Program::number).transpose()?;
        let monitor = system("address information", Monitor::new(config, number))?;

        let mut nics: Vec<Nic> = Vec::new();
        let mut workers_before = 0;
        for (interface, queues) in interfaces.into_iter().zip(queues) {
            let nic = parts.nic(interface, &settings, queues, workers_before)?;
            workers_before += queues as usize;
            for (worker, queue) in nic.workers.iter().zip(0..) {
                hugepages &= worker.state.xsk.hugepages();
                if let Some(program) = &mut program {
                    program.set_socket(nics.len(), queue, worker.state.xsk.share_fd())?;
                }
            }
            nics.push(nic);
        }
        let (publisher, keys, counters) = match maps {
            Some(maps) => (
                Publisher::to(maps.resident),
                Some(Box::new(maps.cookies) as Box<dyn CookieMap>),
                Some(Mutex::new(maps.counters)),
            ),
            None => (Publisher::none(), None, None),
        };
        let cookies = CookieKeys::new(config.read_secret()?, keys);
        let cookies = system("memory for the cookie secret", cookies)?;
        let store = Store::new(Arc::clone(&parts.view), blocks, publisher);
        let (mut engine, engine_wake) = parts.engine(store, origins)?;
        let front = engine.front(parts.wake.clone());
        let socket = parts.socket(&settings, cookies, front)?;
        Ok(Self {
            program,
            monitor,
            observer: Observer {
                started: clock::now(),
                mode: mode(config, hugepages),
                network,
                nics: nics.iter().map(|nic| Arc::clone(&nic.observer)).collect(),
                listen: (config.service.listen.iter())
                    .map(ToString::to_string)
                    .collect(),
                program: counters,
                engine: Arc::clone(engine.cells()),
                socket: Arc::clone(&socket.state.handler.cells),
                sockets: parts.sockets,
                health: Health::of(nics.iter().map(|nic| nic.name.clone()).collect()),
                host_changes: Cell::default(),
            },
            nics,
            engine,
            socket,
            stop: parts.stop,
            wakes: [engine_wake, parts.wake],
        })
    }
}

impl SharedParts<'_> {
    /// An interface with its workers, which are numbered across all interfaces.
    fn nic(
        &self,
        interface: Interface,
        settings: &Settings,
        queues: u32,
        workers_before: usize,
    ) -> Result<Nic, StartError> {
        let Interface {
            index, name, mac, ..
        } = interface;
        let listeners = Listeners::new(&self.config.service.listen, index);
        let stop = Arc::new(AtomicBool::new(false));
        let stop_wake = system("an eventfd", EventFd::new())?;
        let (mut workers, mut observed) = (Vec::new(), Vec::new());
        for (queue, number) in (0..queues).zip(workers_before..) {
            let cells = Arc::new(WorkerCells::default());
            let mut reader = self.view.reader(number);
            let xsk = host::xsk(self.config, &name, queue)?;
            observed.push(WorkerObserver {
                thread: format!("worker-{number}"),
                cells: Arc::clone(&cells),
                xsk: Mutex::new(XskObserver::Open(xsk.share_fd())),
            });
            workers.push(Worker {
                cpu: host::worker_cpu(number),
                busy_poll: self.config.xdp.busy_poll,
                state: WorkerState {
                    xsk,
                    view: Arc::clone(&self.view),
                    max_burst: self.config.service.max_burst,
                    listeners: listeners.clone(),
                    transmitter: self.transmitter(&mut reader, &cells.sends)?,
                    reader,
                    bounce_queue: Arc::clone(&self.bounce_queue),
                    cells,
                    batch: Vec::with_capacity(BATCH as usize),
                    classified: Vec::with_capacity(BATCH as usize),
                },
                stop: Arc::clone(&stop),
                stop_wake: stop_wake.clone(),
            });
        }
        Ok(Nic {
            index,
            settings: Settings {
                mac: mac.unwrap_or_default(),
                ..*settings
            },
            observer: Arc::new(NicObserver {
                index,
                name: name.clone(),
                workers: observed,
            }),
            name,
            workers,
            threads: Vec::new(),
            stop,
            stop_wake,
            gone: false,
        })
    }

    /// The engine and its wake-up.
    fn engine(
        &self,
        store: Store,
        origins: Vec<Box<dyn Origin>>,
    ) -> Result<(Engine, EventFd), StartError> {
        let wake = system("an eventfd", EventFd::new())?;
        let fetches = pool::start(origins, &self.view, &wake);
        let fetches = refused(Operation::Thread, "reading an origin", fetches)?;
        Ok((Engine::new(store, fetches, wake.clone()), wake))
    }

    fn socket(
        &self,
        settings: &Settings,
        mut cookies: CookieKeys,
        front: Front<Request>,
    ) -> Result<EventLoop, StartError> {
        // The program needs keys before it serves.
        cookies
            .rotate_to(epoch_at(clock::unix_seconds()))
            .map_err(|error| AttachError::Load(error.to_string()))?;
        let cells = Arc::new(SocketCells::default());
        let mut reader = self.view.reader(self.workers);
        let sockets = Arc::clone(&self.sockets);
        let receive = ReceiveRing::new(RECEIVE_BUFFERS, sockets, self.wake.clone());
        Ok(EventLoop {
            receive: refused(Operation::IoUring, "receiving", receive)?,
            state: SocketState::new(
                Handler {
                    settings: *settings,
                    cookies,
                    view: Arc::clone(&self.view),
                    front,
                    sender: self.gso_transmitter(&mut reader, &cells.sends)?,
                    reader,
                    cells,
                },
                Arc::clone(&self.bounce_queue),
            ),
            stop: Arc::clone(&self.stop),
        })
    }

    /// The transmitter of one worker.
    fn transmitter(
        &self,
        reader: &mut Reader,
        counters: &Arc<Sends>,
    ) -> Result<Box<dyn Transmitter>, StartError> {
        let service = &self.config.service;
        Ok(match service.sender {
            config::Sender::Gso => Box::new(self.gso_transmitter(reader, counters)?),
            config::Sender::Xsk => Box::new(XskTransmitter::new(Arc::clone(counters))),
        })
    }

    fn gso_transmitter(
        &self,
        reader: &mut Reader,
        counters: &Arc<Sends>,
    ) -> Result<GsoTransmitter, StartError> {
        let ring = SendRing::new(SENDS, reader.holds(), &self.sockets);
        let ring = refused(Operation::IoUring, "sending", ring)?;
        let layout = self.view.layout();
        Ok(GsoTransmitter::new(ring, layout, Arc::clone(counters)))
    }
}

/// Loads the program and attaches it to all interfaces in the configured mode, unless XDP is off.
fn attach(
    config: &Config,
    interfaces: &[Interface],
) -> Result<(Option<Program>, Option<Maps>), StartError> {
    if config.xdp.mode == XdpMode::Off {
        return Ok((None, None));
    }
    let layout = Layout::new(config.service.segment_bytes);
    let slots = config.store.size_bytes / layout.slot_bytes() as u64;
    let indexes: Vec<u32> = interfaces.iter().map(|interface| interface.index).collect();
    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
    let (mut program, mut maps) = Program::load(slots, &indexes)?;
    program.check_abi(&mut maps.counters)?;
    for Interface { name, index, .. } in interfaces {
        program.attach(name, *index, config.xdp.mode)?;
    }
    Ok((Some(program), Some(maps)))
}

/// The mode in use.
fn mode(config: &Config, hugepages: bool) -> Mode {
    let off = config.xdp.mode == XdpMode::Off;
    Mode {
        xdp: config.xdp.mode.label().to_owned(),
        // "auto" too binds in copy mode.
        bind: if off { "none" } else { "copy" }.to_owned(),
        hugepages,
        sender: config.service.sender.label().to_owned(),
    }
}
