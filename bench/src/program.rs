//! The XDP programs for measurements, attached to an interface as long as they are held.

use std::os::fd::AsRawFd;
use std::path::Path;

use anyhow::{Context as _, Result};
use aya::maps::{Array, MapData, XskMap};
use aya::programs::{Xdp, XdpMode};
use aya::{Ebpf, EbpfLoader};

/// What happens to the packets that match the rule.
#[derive(Clone, Copy, PartialEq, Eq, Debug, clap::ValueEnum)]
pub enum Action {
    Redirect,
    Reflect,
    Drop,
}

impl Action {
    const fn program(self) -> &'static str {
        match self {
            Self::Redirect => "measure_redirect",
            Self::Reflect => "measure_reflect",
            Self::Drop => "measure_drop",
        }
    }
}

/// Which packets match.
#[derive(Clone, Copy, Debug)]
pub enum Rule {
    /// To this UDP port.
    Port(u16),
    /// To an IPv4 address with these first two bytes.
    Net([u8; 2]),
}

pub struct Program {
    _ebpf: Ebpf,
    sockets: XskMap<MapData>,
}

impl Program {
    /// Attaches in native mode only.
    pub fn attach(object: &Path, interface: &str, action: Action, rule: Rule) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .load_file(object)
            .with_context(|| format!("cannot load {}", object.display()))?;
        let mut words: Array<_, u32> =
            Array::try_from(ebpf.map_mut("RULE").context("no map RULE")?)?;
        match rule {
            Rule::Port(port) => words.set(0, u32::from(port), 0)?,
            Rule::Net(bytes) => words.set(1, u32::from(u16::from_be_bytes(bytes)), 0)?,
        }
        let name = action.program();
        let program: &mut Xdp = ebpf
            .program_mut(name)
            .with_context(|| format!("no program {name}"))?
            .try_into()?;
        program.load()?;
        let _link = program
            .attach(interface, XdpMode::Driver)
            .with_context(|| format!("cannot attach {name} to {interface}"))?;
        let sockets = ebpf.take_map("XSKS").context("no map XSKS")?;
        Ok(Self {
            sockets: XskMap::try_from(sockets)?,
            _ebpf: ebpf,
        })
    }

    /// Redirects packets of this queue to this socket.
    pub fn set_socket(&mut self, queue: u32, socket: impl AsRawFd) -> Result<()> {
        self.sockets.set(queue, socket, 0)?;
        Ok(())
    }
}
