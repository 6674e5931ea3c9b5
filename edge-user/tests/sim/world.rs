//! All of them, and what happens next. Whoever is due first acts; how long each takes is chance.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use edge_ebpf::cookie::{EPOCH_SECONDS, epoch_at};
use edge_ebpf::frame::{Family, Parsed, parse};
use edge_ebpf::golden::build;
use edge_ebpf::maps::Resident;
use edge_ebpf::reason::Reason;
use edge_ebpf::wire::{ChunkId, Kind, NackCode, SEGMENT_BYTES_DEFAULT, opening};
use edge_user::cache::layout::Layout;
use edge_user::cache::lease::CacheView;
use edge_user::cache::publish::Publisher;
use edge_user::cache::store::{Store, divide};
use edge_user::client::failure::Failure;
use edge_user::clock;
use edge_user::counters::{Count, ReasonCounts, SocketCounts};
use edge_user::event_fd::EventFd;
use edge_user::fetch::engine::Engine;
use edge_user::fetch::schedule::Fetches;
use edge_user::limits::{SEND_RETRY_NS, SLOTS_MIN, TICK};
use edge_user::serve::bounce::BounceQueue;
use edge_user::serve::cookies::CookieKeys;
use edge_user::serve::peer::Listeners;
use edge_user::serve::socket::event_loop::SocketState;
use edge_user::serve::socket::gso::GsoTransmitter;
use edge_user::serve::socket::handler::{Handler, SocketCells};
use edge_user::serve::transmit::Transmitter;
use edge_user::serve::xdp::transmit::XskTransmitter;
use edge_user::serve::xdp::worker::{WorkerCells, WorkerState};
use edge_user::sys::epochs::Reader as CacheReader;
use edge_user::sys::mapping::Mapping;
use edge_user::sys::receive::Received;
use edge_user::sys::undumped::Undumped;

use super::catalog::CATALOG;
use super::chance::Chance;
use super::conditions::{Conditions, Crowd};
use super::hand::{self, Hand, total};
use super::kernel::{Kernel, Leaving, Sends};
use super::origin::Origins;
use super::program::{Fate, Program};
use super::reader::Reader;
use super::stranger::{CROWD, Stranger};
use super::traffic::Traffic;

const US: Duration = Duration::from_micros(1);
const MAX_BURST: u8 = 53;
/// More than any run has needed.
const STEPS_MAX: u64 = 400_000;
/// How soon a chunk that waits for a slot, or a send that is not done, is looked at again.
const SOON: Duration = Duration::from_millis(10);
/// Longer than every wait of the edge's, and every read that hangs.
const REST: Duration = Duration::from_secs(30);

/// One for all runs: what counts is what is added to it.
static START: LazyLock<Instant> = LazyLock::new(clock::now);

/// A datagram on its way.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Flying {
    ToEdge {
        from: SocketAddr,
        payload: Vec<u8>,
        options: bool,
    },
    ToClient {
        to: SocketAddr,
        payload: Vec<u8>,
    },
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Actor {
    Network,
    Sends,
    Completions(usize),
    Worker(usize),
    Socket,
    Engine,
    Origin,
    Reader(usize),
    Stranger,
    Clock,
}

/// What a run came to; the same for the same seed.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    steps: u64,
    took: Duration,
    fetched: u64,
    failed: usize,
    served: u64,
    bounced: u64,
}

pub(crate) struct World {
    with: Conditions,
    chance: Chance,
    trace: bool,
    now: Duration,
    steps: u64,
    listen: [SocketAddr; 2],

    flying: BinaryHeap<Reverse<(Duration, u64, Flying)>>,
    flown: u64,
    kernel: Arc<Mutex<Kernel>>,
    program: Program,
    traffic: Traffic,
    view: Arc<CacheView>,
    hands: Vec<Hand>,

    /// Datagrams in the service's socket.
    socket: VecDeque<(SocketAddr, Vec<u8>)>,
    state: SocketState<Sends>,
    wake: EventFd,
    socket_next: Duration,
    engine: Engine,
    engine_wake: EventFd,
    engine_next: Duration,
    fills: u64,
    origin: Origins,
    unix_seconds: u64,
    clock_steps: Vec<(Duration, i64)>,

    readers: Vec<Reader>,
    stranger: Stranger,
}

impl World {
    #[expect(
        clippy::too_many_lines,
        reason = "one order of making, easier to check whole"
    )]
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut chance = Chance::new(seed);
        let with = Conditions::draw(&mut chance);
        let listen = ["192.0.2.10:7347", "[2001:db8::10]:7347"].map(|at| at.parse().unwrap());
        let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
        let arena_bytes = layout.slot_bytes() * SLOTS_MIN as usize;
        let arena = Mapping::sparse(arena_bytes).unwrap();
        // The workers, the socket front, and those who check.
        let readers = with.workers + 2;
        let (view, blocks) = divide(arena, arena_bytes as u64, layout, readers).unwrap();
        let kernel = Kernel::new(with.workers + 1, chance.split(), &with);
        let kernel = Arc::new(Mutex::new(kernel));
        let program = Program::new(with.map_refuses, chance.split());
        let wake = EventFd::new().unwrap();
        let bounce_queue = Arc::new(BounceQueue::new(with.bounce_queue, wake.clone()));
        let sender = |sender: usize, reader: &mut CacheReader, counters| {
            let sends = Sends {
                sender,
                kernel: Arc::clone(&kernel),
                holds: reader.holds(),
            };
            GsoTransmitter::new(sends, layout, counters)
        };

        let services = Listeners::new(&listen, 1);
        let hands = (0..with.workers).map(|queue| {
            let (xsk, kernel) = hand::socket(&with);
            let cells = Arc::new(WorkerCells::default());
            let counters = Arc::clone(&cells.sends);
            let mut reader = view.reader(queue);
            let transmitter: Box<dyn Transmitter> = if with.by_frames {
                Box::new(XskTransmitter::new(counters))
            } else {
                Box::new(sender(queue + 1, &mut reader, counters))
            };
            let state = WorkerState {
                xsk,
                view: Arc::clone(&view),
                listeners: services.clone(),
                max_burst: MAX_BURST,
                transmitter,
                reader,
                bounce_queue: Arc::clone(&bounce_queue),
                cells,
                batch: Vec::new(),
                classified: Vec::new(),
            };
            Hand {
                state,
                kernel,
                next: Some(Duration::ZERO),
                asleep: false,
            }
        });
        let hands: Vec<Hand> = hands.collect();

        let (publisher, map) = if with.workers == 0 {
            (Publisher::none(), None)
        } else {
            let map: Box<dyn edge_user::serve::cookies::CookieMap> =
                Box::new(program.shared.clone());
            (Publisher::to(program.shared.clone()), Some(map))
        };
        let (fetches, ends) =
            Fetches::new(with.origins, with.origin_threads, with.origin_slots, &view);
        let mut store = Store::new(Arc::clone(&view), blocks, publisher);
        let engine_wake = EventFd::new().unwrap();
        let readers = (0..with.readers).map(|number| {
            let host = u8::try_from(20 + number).expect("few");
            let address: IpAddr = if number % 2 == 0 {
                [192, 0, 2, host].into()
            } else {
                [0x2001, 0xdb8, 0, 0, 0, 0, 0, host.into()].into()
            };
            let mut objects: VecDeque<_> = (0..with.objects_each)
                .map(|_| &CATALOG.small[chance.index(with.objects)])
                .collect();
            if with.large && number < 2 {
                objects.push_back(&CATALOG.large);
            }
            let starts = chance.time(Duration::from_millis(20));
            Reader::new(address, objects, starts, chance.split())
        });
        let readers: Vec<Reader> = readers.collect();
        let unix_seconds = 1_700_000_000 + chance.below(EPOCH_SECONDS);
        let clock_steps = (0..with.clock_steps)
            .map(|_| {
                let by = chance.one_of(&[-100_000, -130, 130, 260, 5000]);
                (chance.time(Duration::from_millis(300)), by)
            })
            .collect();
        let origin = Origins::new(ends, engine_wake.clone(), chance.split(), &with);
        let stranger = Stranger::new(&with, chance.split());
        let hot = chance.index(with.objects.min(with.resident) + 1);
        fill_up(&mut store, hot, with.resident);
        let mut engine = Engine::new(store, fetches, engine_wake.clone());
        let cells = Arc::new(SocketCells::default());
        let mut secret = Undumped::new(32).unwrap();
        secret.fill(7);
        let mut reader = view.reader(with.workers);
        let handler = Handler {
            settings: program.shared.maps().settings,
            cookies: CookieKeys::new(Some(secret), map).unwrap(),
            view: Arc::clone(&view),
            front: engine.front(wake.clone()),
            sender: sender(0, &mut reader, Arc::clone(&cells.sends)),
            reader,
            cells,
        };
        let mut world = Self {
            with,
            chance,
            trace,
            now: Duration::ZERO,
            steps: 0,
            listen,
            flying: BinaryHeap::new(),
            flown: 0,
            kernel,
            program,
            traffic: Traffic::default(),
            view,
            hands,
            socket: VecDeque::new(),
            state: SocketState::new(handler, bounce_queue),
            wake,
            socket_next: Duration::ZERO,
            engine,
            engine_wake,
            engine_next: Duration::ZERO,
            fills: 0,
            origin,
            unix_seconds,
            clock_steps,
            readers,
            stranger,
        };
        let epoch = world.epoch();
        // The daemon does not start without this.
        while world.state.handler.cookies.rotate_to(epoch).is_err() {}
        world.check_store();
        world
    }

    fn say(&self, what: impl FnOnce() -> String) {
        if self.trace {
            #[expect(clippy::print_stderr, reason = "this is what the trace is for")]
            {
                eprintln!("{:>12?}  {}", self.now, what());
            }
        }
    }

    fn kernel(&self) -> MutexGuard<'_, Kernel> {
        self.kernel.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs until everybody is done and everything has come to rest.
    pub(crate) fn run(mut self) -> Outcome {
        self.say(|| format!("{:#?}", self.with));
        let mut rest = None;
        loop {
            let (at, actor) = self.next();
            if self.readers.iter().all(|reader| reader.next.is_none())
                && self.stranger.next.is_none()
            {
                let until = *rest.get_or_insert(self.now + REST);
                if self.now > until && self.is_idle() {
                    break;
                }
                assert!(self.now < until * 2, "the edge does not come to rest");
            }
            self.steps += 1;
            assert!(self.steps < STEPS_MAX, "too many steps");
            self.now = self.now.max(at);
            self.kernel().now = self.now;
            self.act(actor);
        }
        self.check_end()
    }

    /// Who is due first, and when.
    fn next(&self) -> (Duration, Actor) {
        let mut first = (self.socket_next, Actor::Socket);
        let mut offer = |at: Option<Duration>, actor| {
            if let Some(at) = at
                && at < first.0
            {
                first = (at, actor);
            }
        };
        let network = self.flying.peek().map(|Reverse((at, ..))| *at);
        offer(network, Actor::Network);
        offer(self.kernel().next(), Actor::Sends);
        for (queue, hand) in self.hands.iter().enumerate() {
            offer(hand.next, Actor::Worker(queue));
            offer(hand.next_completion(), Actor::Completions(queue));
        }
        offer(Some(self.engine_next), Actor::Engine);
        offer(self.origin.next(), Actor::Origin);
        for (number, reader) in self.readers.iter().enumerate() {
            offer(reader.next, Actor::Reader(number));
        }
        offer(self.stranger.next, Actor::Stranger);
        offer(
            self.clock_steps.iter().map(|(at, _)| *at).min(),
            Actor::Clock,
        );
        first
    }

    fn act(&mut self, actor: Actor) {
        match actor {
            Actor::Network => {
                if let Some(Reverse((.., flying))) = self.flying.pop() {
                    self.arrive(flying);
                }
            }
            Actor::Sends => {
                self.say(|| "kernel: sends end".to_owned());
                self.kernel().act();
            }
            Actor::Completions(queue) => {
                self.say(|| format!("kernel: frames of queue {queue} are sent"));
                self.hands[queue].complete(self.now);
            }
            Actor::Worker(queue) => self.work(queue),
            Actor::Socket => self.poll_socket(),
            Actor::Engine => self.poll_engine(),
            Actor::Origin => {
                self.say(|| "origin: fetches end".to_owned());
                self.origin.act(self.now);
            }
            Actor::Reader(number) => {
                let sent = self.readers[number].act(self.now);
                for (from, payload) in sent {
                    self.say(|| format!("reader {from} sends {}", name(&payload)));
                    self.fly(from, payload);
                }
                let until = self.stall("the reader");
                let next = &mut self.readers[number].next;
                *next = next.map(|next| next.max(until));
            }
            Actor::Stranger => {
                let readers: Vec<_> = self.readers.iter().map(Reader::socket).collect();
                let (from, payload) = self.stranger.act(self.now, &readers, &self.traffic);
                self.say(|| format!("stranger as {from} sends {}", name(&payload)));
                self.fly(from, payload);
            }
            Actor::Clock => {
                let first = self.clock_steps.iter().map(|(at, _)| *at).min();
                let at = (self.clock_steps.iter()).position(|(at, _)| Some(*at) == first);
                let (_, by) = self.clock_steps.remove(at.expect("it was due"));
                self.say(|| format!("the wall clock steps by {by} s"));
                self.unix_seconds = self.unix_seconds.saturating_add_signed(by);
            }
        }
        let leaving = std::mem::take(&mut self.kernel().leaving);
        for Leaving { to, payload } in leaving {
            self.leave(to, payload);
        }
        if rung(&self.wake) {
            self.wake_socket();
        }
        if rung(&self.engine_wake) {
            let soon = self.now + self.chance.time(20 * US);
            self.engine_next = self.engine_next.min(soon);
        }
    }

    fn wake_socket(&mut self) {
        let soon = self.now + self.chance.time(20 * US);
        self.socket_next = self.socket_next.min(soon);
    }

    fn epoch(&self) -> u32 {
        epoch_at(self.unix_seconds + self.now.as_secs())
    }

    // --- network --------------------------------------------------------------------------

    fn put(&mut self, flying: &Flying) {
        let copies = 1 + u32::from(self.chance.permille(self.with.repeats));
        for _ in 0..copies {
            if self.chance.permille(self.with.loss) {
                continue;
            }
            let at = self.now + self.with.delay + self.chance.time(self.with.delay);
            self.flown += 1;
            self.flying.push(Reverse((at, self.flown, flying.clone())));
        }
    }

    fn fly(&mut self, from: SocketAddr, payload: Vec<u8>) {
        let options = self.chance.permille(self.with.options);
        self.put(&Flying::ToEdge {
            from,
            payload,
            options,
        });
    }

    /// A datagram leaves the edge.
    fn leave(&mut self, to: SocketAddr, payload: Vec<u8>) {
        self.say(|| format!("edge sends {to} {}", name(&payload)));
        self.traffic.sent(to, &payload);
        if payload[..2] == opening(Kind::Data) {
            // I4, I5, I6: whatever went wrong in between, no wrong byte leaves.
            assert!(CATALOG.is_true(&payload), "DATA that is not what it says");
        }
        if payload[..2] == opening(Kind::Nack) && payload[2] == NackCode::Busy as u8 {
            let greedy = self.with.crowd == Crowd::Absent && to == CROWD.into();
            assert!(
                greedy,
                "BUSY to {to}, because of what another source asks for"
            );
        }
        self.put(&Flying::ToClient { to, payload });
    }

    fn leave_as_frame(&mut self, frame: &[u8]) {
        let Parsed::Udp(headers) = parse(frame) else {
            panic!("the edge sent a frame that is not UDP");
        };
        let address = headers.destination.address.bytes();
        let [.., a, b, c, d] = address;
        let to: IpAddr = match headers.family {
            Family::V4 => [a, b, c, d].into(),
            Family::V6 => address.into(),
        };
        let len = headers.payload_bytes(frame.len()).expect("a whole frame");
        let payload = frame[headers.payload_at()..][..len].to_vec();
        self.leave((to, headers.destination.port).into(), payload);
    }

    fn arrive(&mut self, flying: Flying) {
        match flying {
            Flying::ToClient { to, payload } => {
                for reader in &mut self.readers {
                    if reader.socket() == to {
                        reader.deliver(to, payload, self.now);
                        return;
                    }
                }
            }
            Flying::ToEdge {
                from,
                payload,
                options,
            } => {
                if self.hands.is_empty() {
                    self.enter_socket(from, payload);
                    return;
                }
                let build = match from.ip() {
                    IpAddr::V4(ip) => build::v4(payload.clone()).source(&ip.octets(), from.port()),
                    IpAddr::V6(ip) => build::v6(payload.clone()).source(&ip.octets(), from.port()),
                };
                let build = match (options, from.is_ipv4()) {
                    (false, _) => build,
                    (true, true) => build.extra(0, &[1; 4]),
                    (true, false) => build.extra(60, &[1, 4, 0, 0, 0, 0]),
                };
                self.through_program(from, payload, build.frame());
            }
        }
    }

    fn through_program(&mut self, from: SocketAddr, payload: Vec<u8>, frame: Vec<u8>) {
        let fate = self.program.run(frame.clone());
        let judged = !matches!(fate, Fate::Kernel);
        if judged {
            let epoch = self.program.shared.maps().cookies.epoch;
            self.traffic.received(from, &payload, epoch);
        }
        match fate {
            Fate::Kernel => self.enter_socket(from, payload),
            Fate::Dropped => self.say(|| format!("program drops a datagram of {from}")),
            Fate::Reply(frame) => self.leave_as_frame(&frame),
            Fate::Steered(resident) => self.steer(from, &frame, resident),
        }
    }

    fn steer(&mut self, from: SocketAddr, frame: &[u8], mut resident: Resident) {
        if self.chance.permille(self.with.map_lies) {
            resident = Resident {
                slot: self.chance.one_of(&[0, 1, 62, 63, 64, u32::MAX]),
                generation: self.chance.one_of(&[0, 1, 1, 2, 3]),
            };
        }
        let queue = usize::from(from.port()) % self.hands.len();
        let bad = self.chance.permille(self.with.bad_descriptor);
        let hand = &mut self.hands[queue];
        let got_in = hand.receive(frame, resident, bad);
        let soon = self.now + self.chance.time(20 * US);
        hand.next = Some(
            hand.next
                .map_or(soon, |next| if hand.asleep { next.min(soon) } else { next }),
        );
        self.say(|| format!("steered {from} to queue {queue}, {resident:?}: {got_in}"));
    }

    fn enter_socket(&mut self, from: SocketAddr, payload: Vec<u8>) {
        let fits = self.socket.len() < self.with.socket_datagrams;
        self.say(|| format!("to the socket from {from}: {fits}"));
        if fits {
            self.socket.push_back((from, payload));
            self.wake_socket();
        }
    }

    // --- workers --------------------------------------------------------------------------

    fn work(&mut self, queue: usize) {
        let hand = &mut self.hands[queue];
        let bounced = hand.bounced();
        let any = hand.state.poll_once();
        if hand.bounced() > bounced {
            assert!(rung(&self.wake), "I9: a bounced request waits for nobody");
            self.wake_socket();
        }
        let hand = &mut self.hands[queue];
        hand.asleep = false;
        hand.check();
        let packets = hand.transmit(self.now, &mut self.chance, &self.with);
        hand.next = Some(self.now + US + self.chance.time(20 * US));
        if !any && self.chance.permille(500) {
            let again = hand.state.before_sleep();
            hand.asleep = true;
            let retry = Duration::from_nanos(SEND_RETRY_NS.unsigned_abs());
            hand.next = again.then_some(self.now + retry);
            if hand.waiting() {
                hand.next = Some(self.now);
            }
        }
        let asleep = hand.asleep;
        for packet in packets {
            self.leave_as_frame(&packet);
        }
        self.say(|| format!("worker {queue}: any {any}, asleep {asleep}"));
        let until = self.stall("the worker");
        let next = &mut self.hands[queue].next;
        *next = next.map(|next| next.max(until));
    }

    /// Now and then somebody is not run for a while: until this moment.
    fn stall(&mut self, who: &str) -> Duration {
        if !self.chance.permille(self.with.stalls) {
            return Duration::ZERO;
        }
        let until = self.now + self.chance.time(self.with.stall);
        self.say(|| format!("{who} is not run until {until:?}"));
        until
    }

    // --- socket front and engine ----------------------------------------------------------

    fn poll_socket(&mut self) {
        let now = *START + self.now;
        self.wake.clear();
        // A part of what is there, as io_uring hands it over.
        for _ in 0..self.socket.len().min(64) {
            let Some((source, payload)) = self.socket.pop_front() else {
                break;
            };
            let epoch = self.state.handler.cookies.cookies().epoch;
            self.traffic.received(source, &payload, epoch);
            let socket = self
                .listen
                .iter()
                .position(|at| at.is_ipv4() == source.is_ipv4());
            let received = Received {
                socket: socket.expect("both families are served"),
                source,
                payload: &payload,
                truncated: false,
            };
            self.state.handler.datagram(&received, now);
        }
        self.state.after_sleep(now);
        let sleep = self
            .state
            .before_sleep(now, self.unix_seconds + self.now.as_secs());
        self.socket_next = self.now + sleep.max(US);
        self.say(|| format!("socket: sleeps {sleep:?}"));
        // Every wait has a bound (I9).
        let unsent = self.state.handler.sender.in_flight() > 0;
        assert!(sleep <= if unsent { SOON } else { TICK }, "slept {sleep:?}");
        if !self.socket.is_empty() {
            self.wake_socket();
        }
        self.check_socket();
        self.socket_next = self.stall("the socket front").max(self.socket_next);
    }

    fn poll_engine(&mut self) {
        self.engine_wake.clear();
        let sleep = self.engine.poll_once(*START + self.now);
        let waits = self.engine.wants_slot();
        self.origin.begin_reads(self.now);
        self.engine_next = self.now + sleep.max(US);
        self.say(|| format!("engine: sleeps {sleep:?}, a chunk waits for a slot {waits}"));
        // Every wait has a bound (I9).
        assert!(sleep <= if waits { SOON } else { TICK }, "slept {sleep:?}");
        self.check_flights();
        self.check_store();
        self.engine_next = self.stall("the engine").max(self.engine_next);
    }

    // --- what always holds ----------------------------------------------------------------

    fn check_socket(&mut self) {
        let cells = &self.state.handler.cells;
        assert_eq!(
            cells.received.get(),
            total(&cells.reasons),
            "I10: the socket"
        );
        let bounced = total(&cells.bounce_reasons);
        assert_eq!(cells.bounced.get(), bounced, "I10: bounced requests");
    }

    /// The engine has taken all commands.
    fn check_flights(&self) {
        let front = &self.state.handler.front;
        let fetches = self.engine.cells().in_flight.get();
        assert_eq!(
            front.in_flight() as u64,
            fetches + front.completions() as u64,
            "I8: a flight for each fetch, and a fetch for each flight"
        );
    }

    fn check_store(&mut self) {
        let counts = self.engine.store().counts();
        let slots = counts.resident + counts.free + counts.withdrawn + counts.filling;
        assert_eq!(slots, counts.slots, "a slot is in one state");
        let cells = self.engine.cells();
        let fills = counts.published_total + cells.corrupt.get();
        if fills == self.fills {
            return;
        }
        self.fills = fills;
        self.kernel().check_all();
        let fresh = std::mem::take(&mut self.program.shared.maps().fresh);
        for (id, resident) in fresh {
            self.check_stay(&id, resident);
        }
    }

    /// I4: what can be found is what its name says.
    fn check_stay(&self, id: &ChunkId, resident: Resident) {
        let mut reader = self.view.reader(self.with.workers + 1);
        reader.quiescent();
        let Some(lease) = self.view.confirm(&reader, resident, id) else {
            // Published and pushed out again in one step.
            return;
        };
        let chunk = CATALOG.chunk(id).expect("I4: nobody made this chunk");
        let datagrams = 0..=lease.geometry().last;
        let datagrams = datagrams.map(|index| lease.datagram(index).expect("it exists"));
        let mut chunk_bytes = 0;
        for datagram in datagrams {
            assert!(CATALOG.is_true(datagram), "I4: a slot holds other bytes");
            chunk_bytes += datagram.len() - 16;
        }
        assert_eq!(chunk.len(), chunk_bytes, "I4: a length");
    }

    fn is_idle(&self) -> bool {
        self.hands.iter().all(Hand::is_idle)
            && self.flying.is_empty()
            && self.socket.is_empty()
            && self.kernel().under_way() == 0
            // Reads that hung have ended, and their slots are back.
            && self.engine.store().counts().filling == 0
    }

    /// Everything has come back to where it belongs.
    fn check_end(mut self) -> Outcome {
        for reader in &self.readers {
            for failure in &reader.failures {
                self.check_failure(failure);
            }
        }
        for hand in &mut self.hands {
            hand.check();
        }
        self.check_sums();
        let handler = &mut self.state.handler;
        assert_eq!(handler.front.in_flight(), 0, "I8: a flight was left behind");
        assert_eq!(handler.sender.in_flight(), 0, "a send was left behind");
        // Nobody reads any more.
        handler.reader.offline();
        for hand in &mut self.hands {
            hand.state.reader.offline();
        }
        // All slots can be had: nobody holds one any more.
        let mut store = self.engine.into_store();
        let slots = store.counts().slots;
        let free = (0..slots).filter_map(|_| store.take_free()).count();
        assert_eq!(free as u64, slots, "I6: a slot was lost");
        Outcome {
            steps: self.steps,
            took: self.now,
            fetched: self.readers.iter().map(|reader| reader.fetched).sum(),
            failed: self
                .readers
                .iter()
                .map(|reader| reader.failures.len())
                .sum(),
            served: (self.hands.iter())
                .map(|hand| hand.state.cells.reasons.packets(Reason::Served))
                .sum(),
            bounced: self.state.handler.cells.bounced.get(),
        }
    }

    /// I10, as the operator would check it.
    fn check_sums(&self) {
        let program: u64 = self.program.reasons.iter().sum();
        assert_eq!(program, self.program.packets, "I10: the program");
        let strays: u64 = self.hands.iter().map(Hand::strays).sum();
        let steered = Count {
            packets: self.program.reasons[Reason::Steered as usize] + strays,
            bytes: 0,
        };
        let steered = ReasonCounts::from([(Reason::Steered.label().to_owned(), steered)]);
        let cells = &self.state.handler.cells;
        let mut snapshot = hand::snapshot(&self.hands);
        snapshot.interfaces[0].xdp.insert(0, steered);
        snapshot.socket = SocketCounts {
            received: cells.received.get(),
            dropped: 0,
            reasons: cells.reasons.snapshot(),
            bounced: cells.bounced.get(),
            bounce_reasons: cells.bounce_reasons.snapshot(),
            sends: cells.sends.snapshot(),
            ..SocketCounts::default()
        };
        snapshot.store = self.engine.store().counts();
        assert_eq!(snapshot.unbalanced(), [""; 0], "I10");
        let mut senders = vec![cells.sends.datagrams.get()];
        for hand in &self.hands {
            senders.push(hand.state.cells.sends.datagrams.get());
        }
        for (sender, left) in self.kernel().left.iter().enumerate() {
            if sender == 0 || !self.with.by_frames {
                assert_eq!(senders[sender], *left, "I10: datagrams of sender {sender}");
            }
        }
    }

    /// A reader that ends without its object must have been told why, and it must be true.
    fn check_failure(&self, failure: &Failure) {
        let (rough, slow) = (self.with.is_rough(), self.with.is_slow());
        let true_cause = match failure {
            Failure::Absent(id) => self.origin.absent.contains(id),
            Failure::Origin(id) => slow || self.origin.failed.contains(id),
            Failure::Pending(id) => rough || slow || self.origin.failed.contains(id),
            Failure::Unanswered | Failure::Lost | Failure::NoData => rough || self.with.loss > 0,
            // Some strangers say HELLO with a reader's address.
            Failure::Unexpected(_) => (rough || self.with.loss > 0) && self.with.strangers > 0,
            Failure::CookieRefused => self.with.clock_steps > 0,
            // Its source has room, whatever another asks for.
            Failure::Busy
            | Failure::ConnectionRefused
            | Failure::Misrouted(_)
            | Failure::Network(_)
            | Failure::MtuTooSmall(_)
            | Failure::LengthMismatch { .. }
            | Failure::UnstableSegmentSize
            | Failure::PathTooNarrow(_)
            | Failure::Version(_)
            | Failure::BadWelcome { .. }
            | Failure::Range(_)
            | Failure::Corrupt(_)
            | Failure::Sink(_)
            | Failure::Socket { .. }
            | Failure::Thread(_)
            | Failure::AllFailed(_)
            | Failure::Interrupted => false,
        };
        assert!(true_cause, "a reader failed without cause: {failure}");
    }
}

/// Puts into the store what is there from the start: first, and so the first to be evicted, some of
/// what readers ask for.
fn fill_up(store: &mut Store, hot: usize, resident: usize) {
    let view = Arc::clone(store.view());
    let wanted = CATALOG.small[..hot].iter().map(|object| object.ids[0]);
    let others = CATALOG.fillers.iter().copied();
    for id in wanted.chain(others).take(resident) {
        let slot = store.take_free().expect("there is room");
        let bytes = CATALOG.chunk(&id).expect("in the catalog");
        let written = slot.write(&view, id, bytes).expect("a chunk");
        store.publish(written.verify(&view).expect("is what it says"));
    }
}

/// Whether somebody rang since the last time.
fn rung(wake: &EventFd) -> bool {
    rustix::io::read(wake.fd(), &mut [0_u8; 8]).is_ok()
}

/// What a datagram is, in a word.
fn name(payload: &[u8]) -> String {
    let kind = match payload.get(1).map(|kind| kind & 0x0f) {
        Some(1) => "HELLO",
        Some(2) => "WELCOME",
        Some(3) => "GET",
        Some(4) => "DATA",
        Some(5) => "NACK",
        _ => "something",
    };
    let more = match kind {
        "NACK" => format!(" code {}", payload[2]),
        "DATA" => format!(" {} of {}", payload[2], payload[3]),
        _ => String::new(),
    };
    format!("{kind}{more}, {} bytes", payload.len())
}
