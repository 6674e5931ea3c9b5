//! Loads the program, attaches it to interfaces, and provides its maps. All interfaces share one
//! program and one cache, with separate settings.

use std::collections::BTreeSet;
use std::io;
use std::thread;
use std::time::{Duration, Instant};

use aya::maps::{Array, HashMap, Map, MapData, MapError, PerCpuArray, PerCpuValues, XskMap};
use aya::programs::{
    ProgramError, ProgramFd, TestRun, TestRunOptions, TestRunResult, Xdp, XdpMode as AyaMode,
};
use aya::{Ebpf, EbpfLoader};
use edge_ebpf::frame::Address;
use edge_ebpf::maps::{
    self, ABI_VERSION, InterfaceSettings, QUEUES_MAX, Settings, TALLIES, Tally, row, tally_index,
};
use edge_ebpf::reason::Reason;
use libc::{EMFILE, ENFILE, ENOMEM};
use rustix::process::{Resource, getrlimit};
use rustix::thread::{CapabilitySet, capabilities};

use crate::clock;
use crate::config::XdpMode;
use crate::counters::{Count, ReasonCounts};
use crate::daemon::remedy::{Operation, Refused};
use crate::limits::PROGRAM_RUN_MAX;
use crate::sys::bpf::{
    AddressKey, ChunkIdKey, CookiesValue, InterfaceSettingsValue, ResidentValue, TallyValue,
};

/// The compiled program; without it only `xdp.mode = "off"` works.
#[cfg(xdp_program)]
const PROGRAM: Option<&[u8]> = Some(aya::include_bytes_aligned!(env!("SEALEDGE_XDP_PROGRAM")));
#[cfg(not(xdp_program))]
const PROGRAM: Option<&[u8]> = None;

#[derive(Debug, thiserror::Error)]
pub enum AttachError {
    #[error(
        "this edged was built without the XDP program; build it with `cargo xtask build`, or set \
         xdp.mode = \"off\""
    )]
    NotBuilt,
    #[error(
        "loading and updating an XDP program requires {0}, which this process lacks; run as root, \
         or set xdp.mode = \"off\""
    )]
    NotPermitted(String),
    #[error("the XDP program does not load: {0}")]
    Load(String),
    #[error("the XDP program does not match this edged: {0}; rebuild both")]
    Mismatch(String),
    #[error(transparent)]
    Refused(#[from] Refused),
    #[error("the XDP program cannot be attached to {interface}: {reason}")]
    Attach { interface: String, reason: String },
}

/// The loaded program and the maps that it keeps. Dropping it detaches the program from all
/// interfaces.
pub struct Program {
    ebpf: Ebpf,
    settings: Array<MapData, InterfaceSettingsValue>,
    /// The contents of `settings`, and when the live sets were last switched.
    published: Vec<InterfaceSettings>,
    switched: Option<Instant>,
    locals: HashMap<MapData, AddressKey, u32>,
    /// The contents of `locals`.
    known: BTreeSet<Address>,
    sockets: XskMap<MapData>,
}

/// The maps used by other modules.
pub struct Maps {
    pub resident: HashMap<MapData, ChunkIdKey, ResidentValue>,
    pub cookies: Array<MapData, CookiesValue>,
    pub counters: ProgramCounters,
}

/// The result of a test run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The kernel's `XDP_…` number.
    pub action: u32,
    /// The length of the output.
    pub len_bytes: usize,
}

/// XDP actions (`linux/bpf.h`).
pub const XDP_DROP: u32 = 1;
pub const XDP_PASS: u32 = 2;
pub const XDP_TX: u32 = 3;
pub const XDP_REDIRECT: u32 = 4;

/// The ingress interface of test runs, in every network namespace.
pub const LOOPBACK_INDEX: u32 = 1;

pub struct ProgramCounters(PerCpuArray<MapData, TallyValue>);

impl Program {
    /// Loads the program, with room for `slots` chunks, for the interfaces with these indexes. It
    /// serves none of them yet.
    pub fn load(slots: u32, interface_indexes: &[u32]) -> Result<(Self, Maps), AttachError> {
        let object = PROGRAM.ok_or(AttachError::NotBuilt)?;
        // Checked first, because the verifier's error would not name the missing capability.
        let missing = missing_capabilities();
        if !missing.is_empty() {
            return Err(AttachError::NotPermitted(missing.join(", ")));
        }
        let interfaces = u32::try_from(interface_indexes.len()).unwrap_or(u32::MAX);
        let rows = interfaces.saturating_mul(QUEUES_MAX);
        let mut ebpf = EbpfLoader::new()
            .map_max_entries(maps::RESIDENT, slots)
            .map_max_entries(maps::SETTINGS, interfaces)
            .map_max_entries(maps::XSKS, rows)
            .map_max_entries(maps::COUNTERS, rows.saturating_mul(TALLIES))
            .load(object)
            .map_err(not_loaded)?;
        let settings = take(&mut ebpf, maps::SETTINGS)?;
        let sockets = take(&mut ebpf, maps::XSKS)?;
        let maps = Maps {
            resident: take(&mut ebpf, maps::RESIDENT)?,
            cookies: take(&mut ebpf, maps::COOKIES)?,
            counters: ProgramCounters(take(&mut ebpf, maps::COUNTERS)?),
        };
        let locals = take(&mut ebpf, maps::LOCALS)?;
        let mut program = Self {
            ebpf,
            settings,
            published: (interface_indexes.iter().zip(0..))
                .map(|(index, place)| InterfaceSettings::new(*index, place))
                .collect(),
            switched: None,
            locals,
            known: BTreeSet::new(),
            sockets,
        };
        program.xdp()?.load().map_err(not_loaded)?;
        program.withdraw()?;
        Ok((program, maps))
    }

    fn xdp(&mut self) -> Result<&mut Xdp, AttachError> {
        let missing = || AttachError::Mismatch(format!("it has no program {}", maps::PROGRAM));
        self.ebpf
            .program_mut(maps::PROGRAM)
            .and_then(|program| program.try_into().ok())
            .ok_or_else(missing)
    }

    /// Attaches in this mode, without a fallback.
    pub fn attach(
        &mut self,
        interface: &str,
        index: u32,
        mode: XdpMode,
    ) -> Result<(), AttachError> {
        let (mode, operation) = match mode {
            XdpMode::Native => (AyaMode::Driver, Operation::AttachNative),
            XdpMode::Generic | XdpMode::Off => (AyaMode::Skb, Operation::AttachGeneric),
        };
        let attached = self.xdp()?.attach_to_if_index(index, mode);
        attached.map(drop).map_err(|error| {
            let subject = interface.to_owned();
            match io_error(&error) {
                Some(number) => AttachError::Refused(Refused {
                    operation,
                    subject,
                    error: io::Error::from_raw_os_error(number),
                }),
                None => AttachError::Attach {
                    interface: subject,
                    reason: chain(&error),
                },
            }
        })
    }

    /// I13: a program of another ABI version passes everything to the kernel, which its counters
    /// show after a frame of another protocol. Called before the program is attached.
    pub fn check_abi(&mut self, counters: &mut ProgramCounters) -> Result<(), AttachError> {
        let mismatch = |text: &str| AttachError::Mismatch(text.to_owned());
        let served = self.published.clone();
        self.published = vec![InterfaceSettings::new(LOOPBACK_INDEX, 0)];
        self.publish(&[Settings {
            abi_version: ABI_VERSION,
            ..Settings::NONE
        }])?;
        let verdict = self.run(&[0; 64], &mut [0; 256])?;
        self.published = served;
        self.withdraw()?;
        let counted = counters.of_queue(0, 0);
        counters.clear(0, Reason::NotIp)?;
        let as_expected = verdict.action == XDP_PASS
            && counted.len() == 1
            && counted.contains_key(Reason::NotIp.label());
        as_expected
            .then_some(())
            .ok_or_else(|| mismatch("it has another ABI version"))
    }

    /// Runs the program on a test frame. The resulting frame, with the metadata in front, goes to
    /// `output`.
    pub fn run(&mut self, frame: &[u8], output: &mut [u8]) -> Result<Verdict, AttachError> {
        let result = self.test_run(TestRunOptions {
            data_in: Some(frame),
            data_out: Some(output),
            ..TestRunOptions::new()
        })?;
        Ok(Verdict {
            action: result.return_value,
            len_bytes: result.data_size_out as usize,
        })
    }

    /// Runs the program repeatedly; returns the action and the time of one run.
    pub fn time(&mut self, frame: &[u8], repeat: u32) -> Result<(u32, Duration), AttachError> {
        let result = self.test_run(TestRunOptions {
            data_in: Some(frame),
            repeat,
            ..TestRunOptions::new()
        })?;
        Ok((result.return_value, result.duration))
    }

    /// The kernel's program id.
    pub fn number(&mut self) -> Result<u32, AttachError> {
        let info = self.xdp()?.info();
        info.map(|info| info.id()).map_err(not_loaded)
    }

    /// For tail calls from another program.
    pub fn fd(&mut self) -> Result<&ProgramFd, AttachError> {
        self.xdp()?.fd().map_err(not_loaded)
    }

    fn test_run(&mut self, options: TestRunOptions<'_>) -> Result<TestRunResult, AttachError> {
        self.xdp()?.test_run(options).map_err(not_loaded)
    }

    /// Makes the program steer hits on this queue to this socket (I3). `place` is the position of
    /// the interface in the list.
    pub fn set_socket(
        &mut self,
        place: usize,
        queue: u32,
        socket: impl std::os::fd::AsRawFd,
    ) -> Result<(), AttachError> {
        let first_row = self.published[place].first_row;
        self.sockets
            .set(row(first_row, queue), socket, 0)
            .map_err(not_loaded)
    }

    /// Makes the program serve with these settings, one for each interface, and ignore packets from
    /// the addresses `locals`, which are those that `Settings::locals` was made of.
    pub fn serve(&mut self, settings: &[Settings], locals: &[Address]) -> Result<(), AttachError> {
        let locals: BTreeSet<Address> = locals.iter().copied().collect();
        // Addresses are added before the filter refers to them, and removed after.
        for address in &locals {
            if !self.known.contains(address) {
                self.locals
                    .insert(AddressKey(*address), 1, 0)
                    .map_err(not_loaded)?;
                self.known.insert(*address);
            }
        }
        self.publish(settings)?;
        while let Some(address) = self.known.difference(&locals).next().copied() {
            self.locals
                .remove(&AddressKey(address))
                .map_err(not_loaded)?;
            self.known.remove(&address);
        }
        Ok(())
    }

    /// Makes the program pass everything to the kernel.
    pub fn withdraw(&mut self) -> Result<(), AttachError> {
        self.publish(&vec![Settings::NONE; self.published.len()])
    }

    /// As described at [`InterfaceSettings`]: writes the inactive set, then makes it the live one.
    #[expect(
        clippy::disallowed_methods,
        reason = "rare, short, and not on a serving thread"
    )]
    fn publish(&mut self, settings: &[Settings]) -> Result<(), AttachError> {
        // A run that began before the last switch may still read the previous set.
        if let Some(switched) = self.switched {
            thread::sleep(PROGRAM_RUN_MAX.saturating_sub(clock::now() - switched));
        }
        for ((published, place), settings) in self.published.iter_mut().zip(0..).zip(settings) {
            for next in published.followed_by(settings) {
                self.settings
                    .set(place, InterfaceSettingsValue(next), 0)
                    .map_err(not_loaded)?;
                *published = next;
            }
        }
        self.switched = Some(clock::now());
        Ok(())
    }
}

impl ProgramCounters {
    fn clear(&mut self, row: u32, reason: Reason) -> Result<(), AttachError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, error)| not_loaded(error))?;
        let zeros =
            PerCpuValues::try_from(vec![TallyValue(Tally::default()); cpus]).map_err(not_loaded)?;
        self.0
            .set(tally_index(row, reason), zeros, 0)
            .map_err(not_loaded)
    }

    /// The counts of one queue, summed over CPUs. `place` is the position of the interface in the
    /// list.
    pub fn of_queue(&self, place: u32, queue: u32) -> ReasonCounts {
        let row = row(place * QUEUES_MAX, queue);
        let mut counts = ReasonCounts::new();
        for reason in Reason::ALL {
            let Ok(tallies) = self.0.get(&tally_index(row, *reason), 0) else {
                continue;
            };
            let count = tallies.iter().fold(Count::default(), |sum, tally| Count {
                packets: sum.packets.wrapping_add(tally.0.packets),
                bytes: sum.bytes.wrapping_add(tally.0.bytes),
            });
            if count.packets > 0 {
                counts.insert(reason.label().to_owned(), count);
            }
        }
        counts
    }
}

/// Capabilities that this process needs and lacks.
fn missing_capabilities() -> Vec<&'static str> {
    // If they cannot be read, a later operation reports its own error.
    let Ok(sets) = capabilities(None) else {
        return Vec::new();
    };
    let has = |capability| sets.effective.contains(capability);
    let unlocked = getrlimit(Resource::Memlock).current.is_none();
    let all = has(CapabilitySet::SYS_ADMIN);
    [
        ("CAP_BPF", all || has(CapabilitySet::BPF)),
        ("CAP_PERFMON", all || has(CapabilitySet::PERFMON)),
        ("CAP_NET_ADMIN", has(CapabilitySet::NET_ADMIN)),
        ("CAP_NET_RAW", has(CapabilitySet::NET_RAW)),
        ("CAP_IPC_LOCK", unlocked || has(CapabilitySet::IPC_LOCK)),
    ]
    .into_iter()
    .filter_map(|(name, present)| (!present).then_some(name))
    .collect()
}

/// I13: a map that is missing or has keys or values of another size belongs to another build.
fn take<T: TryFrom<Map, Error = MapError>>(ebpf: &mut Ebpf, name: &str) -> Result<T, AttachError> {
    let mismatch = |reason: String| AttachError::Mismatch(format!("map {name}: {reason}"));
    let map = ebpf
        .take_map(name)
        .ok_or_else(|| mismatch("is missing".to_owned()))?;
    T::try_from(map).map_err(|error| mismatch(error.to_string()))
}

/// An error with its causes, in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(inner) = cause {
        let inner_text = inner.to_string();
        if !text.contains(&inner_text) {
            text = format!("{text}: {inner_text}");
        }
        cause = inner.source();
    }
    text.replace('\n', " ")
}

/// Names the limit of this process or host that caused the error, if any.
fn not_loaded(error: impl std::error::Error + 'static) -> AttachError {
    match io_error(&error) {
        Some(number) if [EMFILE, ENFILE, ENOMEM].contains(&number) => {
            AttachError::Refused(Refused {
                operation: Operation::Other,
                subject: "the XDP program".to_owned(),
                error: io::Error::from_raw_os_error(number),
            })
        }
        _ => AttachError::Load(chain(&error)),
    }
}

/// The `errno` in a chain of causes.
fn io_error(error: &(dyn std::error::Error + 'static)) -> Option<i32> {
    let mut cause = Some(error);
    while let Some(inner) = cause {
        // Two of aya's variants do not expose the error they contain as a source.
        let hidden = match (inner.downcast_ref(), inner.downcast_ref()) {
            (Some(ProgramError::IOError(io)), _) | (_, Some(MapError::IoError(io))) => Some(io),
            _ => None,
        };
        if let Some(io) = inner.downcast_ref::<io::Error>().or(hidden) {
            return io.raw_os_error();
        }
        cause = inner.source();
    }
    None
}
