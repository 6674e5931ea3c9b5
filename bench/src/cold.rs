//! Cost of the XDP program for a hit with cold caches: another chunk and source in each of the
//! kernel's test runs, compared with a bare lookup under the same conditions.

use std::iter;
use std::num::NonZeroU32;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use aya::maps::{Array, HashMap, Map, MapData, MapError, ProgramArray, XskMap};
use aya::programs::{TestRun as _, TestRunOptions, TestRunResult, Xdp};
use aya::{Ebpf, EbpfLoader};
use edge_ebpf::frame::{Address, Endpoint, Family};
use edge_ebpf::golden::build::{get, v4};
use edge_ebpf::golden::{self, World};
use edge_ebpf::maps::{RESIDENT, Resident, XSKS};
use edge_ebpf::reason::Reason;
use edge_ebpf::rotate::{REQUEST_BYTES, REQUESTS, Request};
use edge_ebpf::steer::Tables;
use edge_ebpf::wire::{ChunkId, Cookie};
use edge_user::daemon::nic::program::{LOOPBACK_INDEX, Maps, Program, XDP_REDIRECT};
use edge_user::limits::XSK;
use edge_user::sys::bpf::{ChunkIdKey, CookiesValue, ResidentValue};
use edge_user::sys::mapping::Mapping;
use edge_user::sys::xsk::Xsk;
use rand::rngs::SmallRng;
use rand::seq::{SliceRandom as _, index};
use rand::{RngExt as _, SeedableRng as _};
use serde_json::{Value, json};

const ROTATE: &str = "measure_rotate";
pub(crate) const BARE: &str = "measure_bare";
const NOTHING: &str = "measure_nothing";
const REQUESTED: &str = "REQUESTS";
const TESTED: &str = "TESTED";
/// Runs per measurement: each request once.
const RUNS: u32 = REQUESTS;
/// Rounds per figure, each of all programs.
pub(crate) const ROUNDS: usize = 9;

/// Measures the XDP program on hits with cold caches, with the kernel's test runs.
#[derive(clap::Args)]
pub struct Cold {
    /// Number of resident chunks
    #[arg(long, value_name = "COUNT")]
    resident: NonZeroU32,
    /// Object file with the programs, built by `cargo xtask build`
    #[arg(long, value_name = "FILE")]
    programs: PathBuf,
}

/// The program that follows the prologue.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Tested {
    /// The edge's program as it serves.
    Edge,
    /// Parse, lookup and redirect.
    Bare,
    /// None, to measure the prologue alone.
    Nothing,
}

/// Nanoseconds per run: of the edge and of the bare lookup, without the prologue; of the prologue;
/// and of the edge without prologue on the same packet each time.
pub fn cold(options: &Cold) -> Result<Value> {
    let mut trial = Trial::prepare(&options.programs, options.resident.get())?;
    let rounds = trial.rounds()?;
    let of_all = |figure: fn(&Figures) -> f64| middle(rounds.each_ref().map(figure));
    Ok(json!({
        "resident": options.resident,
        "requests": REQUESTS,
        "edge_ns": of_all(|round| round.edge),
        "bare_ns": of_all(|round| round.bare),
        "prologue_ns": of_all(|round| round.prologue),
        "same_key_ns": of_all(|round| round.same_key),
    }))
}

/// Mean of the middle third: robust against interruptions, and finer than the kernel's whole
/// nanoseconds.
pub(crate) fn middle(mut figures: [f64; ROUNDS]) -> f64 {
    figures.sort_by(f64::total_cmp);
    let [.., below, median, above, _, _, _] = figures;
    (below + median + above) / 3.0
}

/// Nanoseconds per run, in one round.
#[derive(Default)]
struct Figures {
    prologue: f64,
    /// Without the prologue, like those below.
    bare: f64,
    edge: f64,
    same_key: f64,
}

/// The edge's program and those to compare it with, with the same chunks resident in each.
struct Trial {
    loaded: Loaded,
    tested: ProgramArray<MapData>,
    /// A GET that the prologue replaces with the first request.
    frame: Vec<u8>,
}

impl Trial {
    fn prepare(programs: &Path, resident: u32) -> Result<Self> {
        let mut random = SmallRng::seed_from_u64(7);
        let ids: Vec<ChunkId> = iter::repeat_with(|| ChunkId(random.random()))
            .take(usize::try_from(resident)?)
            .collect();
        let slots = (0..).map(|slot| Resident {
            slot,
            generation: 1,
        });
        let mut loaded = load(programs, resident, ids.iter().copied().zip(slots))?;
        let beside = &mut loaded.beside;
        for name in [ROTATE, NOTHING] {
            program(beside, name)?.load()?;
        }
        let world = golden::world();
        let mut requests: Array<_, [u8; REQUEST_BYTES]> = map(beside, REQUESTED)?;
        for (number, request) in (0..).zip(drawn(&ids, &world, &mut random)?) {
            requests.set(number, request.encode(), 0)?;
        }
        Ok(Self {
            tested: ProgramArray::try_from(beside.take_map(TESTED).context("no map TESTED")?)?,
            loaded,
            frame: v4(get(Cookie::default(), ChunkId([0; 32]), 1)).frame(),
        })
    }

    fn rounds(&mut self) -> Result<[Figures; ROUNDS]> {
        let first = self.rotated(&self.frame.clone())?;
        let mut rounds: [Figures; ROUNDS] = Default::default();
        for round in &mut rounds {
            let prologue = self.time(Tested::Nothing)?;
            *round = Figures {
                prologue,
                bare: (self.time(Tested::Bare)? - prologue).max(0.0),
                edge: (self.time(Tested::Edge)? - prologue).max(0.0),
                same_key: self.same_key(&first)?,
            };
        }
        Ok(rounds)
    }

    /// Runs the prologue once; returns the packet that it makes.
    fn rotated(&mut self, frame: &[u8]) -> Result<Vec<u8>> {
        let mut output = vec![0; frame.len()];
        let options = TestRunOptions {
            data_in: Some(frame),
            data_out: Some(&mut output),
            ..TestRunOptions::new()
        };
        self.run(Tested::Nothing, options)?;
        Ok(output)
    }

    /// Nanoseconds per run, prologue included.
    fn time(&mut self, tested: Tested) -> Result<f64> {
        let before = self.counted();
        let frame = self.frame.clone();
        let options = TestRunOptions {
            data_in: Some(&frame),
            repeat: RUNS,
            ..TestRunOptions::new()
        };
        let result = self.run(tested, options)?;
        let steered = if tested == Tested::Edge { RUNS } else { 0 };
        self.check(result.return_value, before, steered)?;
        nanoseconds(result.duration)
    }

    fn same_key(&mut self, frame: &[u8]) -> Result<f64> {
        let before = self.counted();
        let (action, time) = self.loaded.edge.time(frame, RUNS)?;
        self.check(action, before, RUNS)?;
        nanoseconds(time)
    }

    fn run(&mut self, tested: Tested, options: TestRunOptions<'_>) -> Result<TestRunResult> {
        let next = match tested {
            Tested::Edge => self.loaded.edge.fd()?,
            Tested::Bare => program(&mut self.loaded.beside, BARE)?.fd()?,
            Tested::Nothing => program(&mut self.loaded.beside, NOTHING)?.fd()?,
        };
        self.tested.set(0, next, 0)?;
        Ok(program(&mut self.loaded.beside, ROTATE)?.test_run(options)?)
    }

    /// Checks that each run was a hit and counted no other packet.
    fn check(&self, action: u32, before: (u64, u64), steered: u32) -> Result<()> {
        let after = self.counted();
        let risen = (after.0 - before.0, after.1 - before.1);
        if action != XDP_REDIRECT || risen != (u64::from(steered), u64::from(steered)) {
            bail!(
                "action {action} instead of {XDP_REDIRECT}; {steered} runs counted {} packets, {} \
                 as steered",
                risen.1,
                risen.0
            );
        }
        Ok(())
    }

    /// Packets counted as steered, and all packets counted.
    fn counted(&self) -> (u64, u64) {
        let reasons = self.loaded.maps.counters.of_queue(0, 0);
        let steered = reasons.get(Reason::Steered.label());
        (
            steered.map_or(0, |count| count.packets),
            reasons.values().map(|count| count.packets).sum(),
        )
    }
}

/// The edge's program and the bare one, with the same chunks resident and one socket each.
pub(crate) struct Loaded {
    pub(crate) edge: Program,
    pub(crate) maps: Maps,
    pub(crate) beside: Ebpf,
    _socket: Xsk,
}

pub(crate) fn load(
    programs: &Path,
    slots: u32,
    resident: impl IntoIterator<Item = (ChunkId, Resident)>,
) -> Result<Loaded> {
    let world = golden::world();
    let (mut edge, mut maps) = Program::load(slots, &[LOOPBACK_INDEX])?;
    edge.serve(&[world.settings], &world.locals)?;
    maps.cookies.set(0, CookiesValue(world.cookies), 0)?;
    let mut beside = EbpfLoader::new()
        .map_max_entries(RESIDENT, slots)
        .map_max_entries(REQUESTED, REQUESTS)
        .load_file(programs)
        .with_context(|| format!("cannot load {}", programs.display()))?;
    program(&mut beside, BARE)?.load()?;
    let mut bare: HashMap<_, ChunkIdKey, ResidentValue> = map(&mut beside, RESIDENT)?;
    for (id, place) in resident {
        maps.resident
            .insert(ChunkIdKey(id), ResidentValue(place), 0)?;
        bare.insert(ChunkIdKey(id), ResidentValue(place), 0)?;
    }
    let socket = Xsk::new(Mapping::anonymous(XSK.umem_bytes(), false)?, XSK)?;
    edge.set_socket(0, 0, socket.share_fd())?;
    let mut sockets: XskMap<_> = map(&mut beside, XSKS)?;
    sockets.set(0, socket.share_fd(), 0)?;
    Ok(Loaded {
        edge,
        maps,
        beside,
        _socket: socket,
    })
}

/// Requests for chunks spread over all that are resident. Each names the next one, in random order;
/// the last one names the first.
fn drawn(ids: &[ChunkId], world: &World, random: &mut SmallRng) -> Result<Vec<Request>> {
    let count = usize::try_from(REQUESTS)?;
    let picked = index::sample(random, ids.len(), ids.len().min(count)).into_vec();
    let mut order: Vec<u16> = (0..=u16::MAX).collect();
    order.shuffle(random);
    let mut next = vec![0; count];
    for (number, following) in order.iter().zip(order.iter().cycle().skip(1)) {
        next[usize::from(*number)] = *following;
    }
    picked
        .iter()
        .cycle()
        .zip(next)
        .map(|(chunk, next)| {
            let source = source(world, random);
            let cookie = world
                .cookies
                .issue(&source)
                .context("no valid cookie key")?;
            Ok(Request {
                source,
                cookie,
                id: ids[*chunk],
                next,
            })
        })
        .collect()
}

/// A valid source address and port.
fn source(world: &World, random: &mut SmallRng) -> Endpoint {
    loop {
        let address = Address::v4(random.random());
        if address.can_be_answered(Family::V4) && !world.is_local(&address) {
            let port = random.random_range(1..=u16::MAX);
            return Endpoint { address, port };
        }
    }
}

pub(crate) fn program<'a>(ebpf: &'a mut Ebpf, name: &str) -> Result<&'a mut Xdp> {
    let program = ebpf.program_mut(name);
    let program = program.with_context(|| format!("no program {name}"))?;
    Ok(program.try_into()?)
}

pub(crate) fn map<'a, T>(ebpf: &'a mut Ebpf, name: &str) -> Result<T>
where
    T: TryFrom<&'a mut Map, Error = MapError>,
{
    let map = ebpf.map_mut(name);
    Ok(T::try_from(map.with_context(|| format!("no map {name}"))?)?)
}

pub(crate) fn nanoseconds(time: Duration) -> Result<f64> {
    Ok(f64::from(u32::try_from(time.as_nanos())?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use edge_ebpf::frame::Address;
    use edge_ebpf::rotate;
    use edge_ebpf::steer::{Verdict, decide};

    const RESIDENT_CHUNKS: u32 = 100;

    fn trial() -> Trial {
        let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        let programs = workspace.join(target).join("xdp/edge-bench-xdp");
        Trial::prepare(&programs, RESIDENT_CHUNKS)
            .unwrap_or_else(|error| panic!("{error:#}: run this by `cargo xtask test`, as root"))
    }

    /// The tables of the edge's program, as the host sees them.
    struct Asked<'a>(World, &'a Trial);

    impl Tables for Asked<'_> {
        fn settings(&self) -> Option<&edge_ebpf::maps::Settings> {
            Some(&self.0.settings)
        }

        fn cookies(&self) -> Option<&edge_ebpf::maps::Cookies> {
            Some(&self.0.cookies)
        }

        fn resident(&self, id: &ChunkId) -> Option<Resident> {
            let resident = &self.1.loaded.maps.resident;
            resident.get(&ChunkIdKey(*id), 0).ok().map(|value| value.0)
        }

        fn is_local(&self, address: &Address) -> bool {
            self.0.is_local(address)
        }
    }

    #[test]
    fn each_run_is_another_request_and_a_hit_on_the_host_too() {
        let mut trial = trial();
        let mut frame = trial.frame.clone();
        let mut asked = vec![false; usize::try_from(REQUESTS).unwrap()];
        let mut slots = vec![0; usize::try_from(RESIDENT_CHUNKS).unwrap()];
        for _ in 0..REQUESTS {
            let number = rotate::number(frame.as_slice()).unwrap();
            assert!(!std::mem::replace(&mut asked[usize::from(number)], true));
            frame = trial.rotated(&frame).unwrap();
            let verdict = decide(frame.as_slice(), &Asked(golden::world(), &trial));
            let Verdict::Steer(resident) = verdict else {
                panic!("request {number}: {verdict:?}");
            };
            slots[usize::try_from(resident.slot).unwrap()] += 1;
        }
        assert_eq!(
            rotate::number(frame.as_slice()),
            Some(0),
            "the sequence starts again"
        );
        let few = REQUESTS / RESIDENT_CHUNKS;
        assert!(slots.iter().all(|count| (few..=few + 1).contains(count)));
    }

    #[test]
    fn one_run_that_is_no_hit_fails_the_measurement() {
        let mut trial = trial();
        for tested in [Tested::Nothing, Tested::Bare, Tested::Edge] {
            trial.time(tested).unwrap();
        }
        let first = trial.rotated(&trial.frame.clone()).unwrap();
        let Verdict::Steer(_) = decide(first.as_slice(), &Asked(golden::world(), &trial)) else {
            panic!("the first request is no hit");
        };
        let id = ChunkIdKey(ChunkId(first[58..90].try_into().unwrap()));
        let mut bare: HashMap<_, ChunkIdKey, ResidentValue> =
            map(&mut trial.loaded.beside, RESIDENT).unwrap();
        bare.remove(&id).unwrap();
        trial.loaded.maps.resident.remove(&id).unwrap();
        for tested in [Tested::Bare, Tested::Edge] {
            let error = trial.time(tested).unwrap_err().to_string();
            assert!(error.contains("instead of"), "{tested:?}: {error}");
        }
        trial.time(Tested::Nothing).unwrap();
    }
}
