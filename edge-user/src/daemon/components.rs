//! Everything a daemon is made of, ready to run.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex};

use edge_ebpf::cookie::epoch_at;
use edge_ebpf::maps::Settings;

use super::error::{StartError, refused, system};
use super::host;
use super::link::{Link, Wanted, Watch};
use super::memory::memory;
use super::observe::Observer;
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
use crate::fetch::flights::Flights;
use crate::fetch::origin::local::Directory;
use crate::fetch::origin::pool;
use crate::limits::{BATCH, BOUNCE_QUEUE, RECEIVE_BUFFERS, SENDS};
use crate::network::{Interface, Network};
use crate::serve::bounce::BounceQueue;
use crate::serve::cookies::{CookieKeys, CookieMap};
use crate::serve::peer::Listeners;
use crate::serve::socket::event_loop::{EventLoop, Turn};
use crate::serve::socket::gso::GsoTransmitter;
use crate::serve::socket::handler::{Handler, LogLimiter, MissCells};
use crate::serve::transmit::Transmitter;
use crate::serve::xdp::transmit::XskTransmitter;
use crate::serve::xdp::worker::{Worker, WorkerCells, WorkerState};
use crate::sys::epochs::Reader;
use crate::sys::receive::{ReceiveRing, Wake};
use crate::sys::send::SendRing;
use crate::sys::socket::ServiceSocket;

pub(super) struct Components {
    pub(super) program: Option<Program>,
    /// What the program is told once everything runs.
    pub(super) wanted: Wanted,
    pub(super) watch: Watch,
    pub(super) workers: Vec<Worker>,
    pub(super) miss_path: EventLoop,
    pub(super) stop: Arc<AtomicBool>,
    pub(super) wakes: Vec<Wake>,
    pub(super) observer: Observer,
}

/// What several components share.
struct Wiring<'a> {
    config: &'a Config,
    interface: &'a str,
    sockets: Arc<[ServiceSocket]>,
    view: Arc<CacheView>,
    /// How many workers there are: their readers have the numbers below.
    workers: usize,
    services: Listeners,
    bounce_queue: Arc<BounceQueue>,
    stop: Arc<AtomicBool>,
    /// Wakes the miss path.
    wake: Wake,
    /// Wakes every worker, once: when it is time to stop.
    stop_wake: Wake,
}

impl Components {
    #[expect(
        clippy::too_many_lines,
        reason = "one order of making, easier to check whole"
    )]
    pub(super) fn make(config: &Config) -> Result<Self, StartError> {
        config.check_environment()?;
        let origins = config.origins.iter().map(|origin| match &origin.url {
            OriginUrl::Directory(path) => Directory::new(path.clone()),
        });
        let origins = origins.collect::<Result<_, _>>()?;
        let network = system("a look at interfaces", Network::open())?;
        let served = host::interface(&network, &config.service.interfaces[0])?;
        let interface = served.name.as_str();
        host::check_mtu(config, &served)?;
        let bytes = usize::try_from(config.store.size_bytes).unwrap_or(usize::MAX);
        let arena = memory("the arena", bytes, config)?;
        let mut hugepages = arena.hugepages();
        let sockets = host::listen(&config.service.listen, &network, &served)?;
        let (mut program, maps) = attached(config, &served)?;
        let queues = match program {
            None => 0,
            Some(_) => host::queue_count(&network, &served)?,
        };
        // The workers, and the socket path.
        let readers = queues as usize + 1;
        let layout = Layout::new(config.service.segment_bytes);
        let (view, blocks) = divide(arena, config.store.size_bytes, layout, readers)?;
        let wake = system("a wake-up", Wake::new())?;
        let wiring = Wiring {
            config,
            interface,
            services: Listeners::new(&config.service.listen, served.index),
            sockets,
            view,
            workers: queues as usize,
            bounce_queue: Arc::new(BounceQueue::new(BOUNCE_QUEUE, wake.clone())),
            stop: Arc::new(AtomicBool::new(false)),
            wake,
            stop_wake: system("a wake-up", Wake::new())?,
        };
        let settings = host::settings(config, &served)?;
        let number = program.as_mut().map(Program::number).transpose()?;
        let watch = Watch::new(config, &settings, served.index, queues, number);
        let watch = system("a look at addresses", watch)?;

        let mut workers = Vec::new();
        let mut observed = Vec::new();
        for queue in 0..queues {
            let worker = wiring.worker(queue)?;
            hugepages &= worker.state.xsk.hugepages();
            let socket = worker.state.xsk.share_fd();
            if let Some(program) = &mut program {
                program.set_socket(0, queue, Arc::clone(&socket))?;
            }
            observed.push((Arc::clone(&worker.state.cells), socket));
            workers.push(worker);
        }
        let miss = Arc::new(MissCells::default());
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
        let store = Store::new(Arc::clone(&wiring.view), blocks, publisher);
        let miss_path = wiring.miss_path(&settings, store, cookies, origins, &miss)?;
        Ok(Self {
            program,
            wanted: watch.wanted(&served),
            watch,
            workers,
            miss_path,
            observer: Observer {
                started: clock::now(),
                mode: mode(config, hugepages),
                interface: interface.to_owned(),
                link: Link::new(served.index, network),
                queues,
                listen: (config.service.listen.iter())
                    .map(ToString::to_string)
                    .collect(),
                program: counters,
                workers: observed,
                miss,
                sockets: wiring.sockets,
                health: Health::default(),
                host_changes: Cell::default(),
            },
            stop: wiring.stop,
            wakes: vec![wiring.wake, wiring.stop_wake],
        })
    }
}

impl Wiring<'_> {
    fn worker(&self, queue: u32) -> Result<Worker, StartError> {
        let cells = Arc::new(WorkerCells::default());
        let mut reader = self.view.reader(queue as usize);
        Ok(Worker {
            cpu: host::worker_cpu(queue),
            busy_poll: self.config.xdp.busy_poll,
            state: WorkerState {
                xsk: host::xsk(self.config, self.interface, queue)?,
                view: Arc::clone(&self.view),
                max_burst: self.config.service.max_burst,
                listeners: self.services.clone(),
                out: self.out(&mut reader, &cells.sends)?,
                reader,
                bounce_queue: Arc::clone(&self.bounce_queue),
                cells,
                batch: Vec::with_capacity(BATCH as usize),
                classified: Vec::with_capacity(BATCH as usize),
            },
            stop: Arc::clone(&self.stop),
            stop_wake: self.stop_wake.clone(),
        })
    }

    fn miss_path(
        &self,
        settings: &Settings,
        store: Store,
        mut cookies: CookieKeys,
        origins: Vec<Directory>,
        cells: &Arc<MissCells>,
    ) -> Result<EventLoop, StartError> {
        // The program needs keys before it is told to serve.
        cookies
            .turn_to(epoch_at(clock::unix_seconds()))
            .map_err(|error| AttachError::Load(error.to_string()))?;
        let origin = pool::start(origins, &self.wake);
        let mut reader = self.view.reader(self.workers);
        let sockets = Arc::clone(&self.sockets);
        let receive = ReceiveRing::new(RECEIVE_BUFFERS, sockets, self.wake.clone());
        Ok(EventLoop {
            receive: refused(Operation::IoUring, "receiving", receive)?,
            turn: Turn::new(
                Handler {
                    settings: *settings,
                    cookies,
                    store,
                    flights: Flights::default(),
                    origin: refused(Operation::Thread, "reading an origin", origin)?,
                    sender: self.sender(&mut reader, &cells.sends)?,
                    reader,
                    cells: Arc::clone(cells),
                    parked: None,
                    log_limiter: LogLimiter::default(),
                },
                Arc::clone(&self.bounce_queue),
            ),
            stop: Arc::clone(&self.stop),
        })
    }

    /// How the answers of one worker leave.
    fn out(
        &self,
        reader: &mut Reader,
        counters: &Arc<Sends>,
    ) -> Result<Box<dyn Transmitter>, StartError> {
        let service = &self.config.service;
        Ok(match service.sender {
            config::Sender::Gso => Box::new(self.sender(reader, counters)?),
            config::Sender::Xsk => Box::new(XskTransmitter::new(Arc::clone(counters))),
        })
    }

    fn sender(
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

/// The program on the interface, in the mode that was asked for, unless that is off.
fn attached(
    config: &Config,
    interface: &Interface,
) -> Result<(Option<Program>, Option<Maps>), StartError> {
    if config.xdp.mode == XdpMode::Off {
        return Ok((None, None));
    }
    let layout = Layout::new(config.service.segment_bytes);
    let slots = config.store.size_bytes / layout.slot_bytes() as u64;
    let slots = u32::try_from(slots).unwrap_or(u32::MAX);
    let (mut program, mut maps) = Program::load(slots, &[interface.index])?;
    program.check_abi(&mut maps.counters)?;
    program.attach(&interface.name, interface.index, config.xdp.mode)?;
    Ok((Some(program), Some(maps)))
}

/// The mode that really is in use.
fn mode(config: &Config, hugepages: bool) -> Mode {
    let off = config.xdp.mode == XdpMode::Off;
    Mode {
        xdp: config.xdp.mode.label().to_owned(),
        // Sockets are bound in copy mode, whether "copy" or "auto" was asked for.
        bind: if off { "none" } else { "copy" }.to_owned(),
        hugepages,
        sender: config.service.sender.label().to_owned(),
    }
}
