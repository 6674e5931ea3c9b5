//! The legitimate reader during an attack, which also sets the periods.

use std::slice;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use edge_testbed::{
    clock,
    cpu::CpuTime,
    daemon::{Counts, Daemon},
    objects::Sealed,
};

use super::Session;
use super::report::Fetch;
use super::run::{Now, Phase};

/// Number of quiet periods, each followed by an attack.
pub(super) const ROUNDS: usize = 2;
/// The same where goodput is measured.
const STEADY_ROUNDS: usize = 5;
/// An attack is paused after this time, to find out whether a reader that still fetches is only
/// slow. Longer than a reader's timeout.
const ATTACK_MAX: Duration = Duration::from_secs(12);

/// Measurements during the attack.
#[derive(Default)]
pub(super) struct Measured {
    pub(super) seconds: f64,
    pub(super) cpu_seconds: f64,
    pub(super) in_flight_max: u64,
    /// Fetches still running when the attack was paused.
    pub(super) outlasted: usize,
    pub(super) fetches: Vec<Fetch>,
}

impl Measured {
    /// Adds its own notes.
    pub(super) fn notes(&self, mut notes: Vec<String>) -> Vec<String> {
        if self.outlasted > 0 {
            notes.push(format!(
                "{} fetches were still running when the attack was paused after {} s",
                self.outlasted,
                ATTACK_MAX.as_secs()
            ));
        }
        notes
    }
}

pub(super) struct Victim<'a> {
    session: &'a Session<'a>,
    phase: &'a Phase,
    edged: &'a mut Daemon,
    /// The object that it fetches repeatedly.
    hot_object: &'a Sealed,
    cold_objects: slice::Iter<'a, Sealed>,
    over_ipv6: bool,
    measured: Measured,
}

impl<'a> Victim<'a> {
    pub(super) fn new(session: &'a Session<'a>, phase: &'a Phase, edged: &'a mut Daemon) -> Self {
        Self {
            session,
            phase,
            edged,
            hot_object: session.hot_object,
            cold_objects: session.cold_objects.iter(),
            over_ipv6: false,
            measured: Measured::default(),
        }
    }

    /// Quiet periods and attacks in turn.
    pub(super) fn run(mut self) -> Result<Measured> {
        for round in 0..ROUNDS {
            for cold in [false, false, true] {
                self.fetch(cold, &mut || {})?;
            }
            let cold_first = round % 2 == 0;
            self.attack(&[cold_first, !cold_first])?;
        }
        self.fetch(false, &mut || {})?;
        Ok(self.measured)
    }

    /// Quiet periods and attacks in turn, of equal duration, with one large resident file.
    pub(super) fn run_steadily(mut self) -> Result<Measured> {
        self.hot_object = &self.session.large_object;
        // Now the edge holds it.
        self.fetch(false, &mut || {})?;
        self.measured.fetches.clear();
        for _round in 0..STEADY_ROUNDS {
            let begin = clock::now();
            while begin.elapsed() < self.session.slice {
                self.fetch(false, &mut || {})?;
            }
            self.attack(&[])?;
        }
        self.fetch(false, &mut || {})?;
        Ok(self.measured)
    }

    /// Fetches files of these kinds (cold or not), then hot ones, during an attack.
    fn attack(&mut self, kinds: &[bool]) -> Result<()> {
        let mut slice = Slice::begin(self.phase, self.edged.id())?;
        let mut kinds = kinds.iter();
        while !slice.is_over() {
            let kind = kinds.next();
            if kind.is_none() && slice.begin.elapsed() >= self.session.slice {
                break;
            }
            let longest = ATTACK_MAX.max(self.session.slice);
            self.fetch(kind.copied().unwrap_or(false), &mut || {
                if slice.begin.elapsed() >= longest {
                    slice.end();
                }
            })?;
            self.measured.outlasted += usize::from(slice.is_over());
            self.look()?;
        }
        let (seconds, cpu_seconds) = slice.end();
        self.measured.seconds += seconds;
        self.measured.cpu_seconds += cpu_seconds;
        Ok(())
    }

    fn fetch(&mut self, cold: bool, meanwhile: &mut dyn FnMut()) -> Result<()> {
        let object = if cold {
            self.cold_objects.next().context("a cold object")?
        } else {
            self.hot_object
        };
        let attacked = self.phase.now() == Now::Attack;
        let family = usize::from(self.over_ipv6);
        self.over_ipv6 = !self.over_ipv6;
        let (seconds, end) = self.session.fetch(object, family, meanwhile)?;
        self.edged.runs()?;
        self.measured.fetches.push(Fetch {
            cold,
            attacked,
            seconds,
            end,
        });
        Ok(())
    }

    /// Number of flights in use.
    fn look(&mut self) -> Result<()> {
        let counts = Counts::read(&self.session.testbed.settings.socket)?;
        let in_flight = counts.all()["origin"]["in_flight"].as_u64().unwrap_or(0);
        self.measured.in_flight_max = self.measured.in_flight_max.max(in_flight);
        Ok(())
    }
}

/// One attack period.
struct Slice<'a> {
    phase: &'a Phase,
    pid: u32,
    begin: Instant,
    cpu_before: f64,
    /// Seconds, and the CPU seconds of the edge.
    took: Option<(f64, f64)>,
}

impl<'a> Slice<'a> {
    fn begin(phase: &'a Phase, pid: u32) -> Result<Self> {
        let cpu_before = CpuTime::of(pid)?.all();
        phase.set(Now::Attack);
        Ok(Self {
            phase,
            pid,
            begin: clock::now(),
            cpu_before,
            took: None,
        })
    }

    fn is_over(&self) -> bool {
        self.took.is_some()
    }

    fn end(&mut self) -> (f64, f64) {
        self.phase.set(Now::Rest);
        *self.took.get_or_insert_with(|| {
            // An edge that ended is detected where it is waited for.
            let cpu = CpuTime::of(self.pid).map_or(self.cpu_before, CpuTime::all) - self.cpu_before;
            (self.begin.elapsed().as_secs_f64(), cpu)
        })
    }
}
