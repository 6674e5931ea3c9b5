//! What stands in for the XDP program: the same decisions (`decide`, `rewrite`), over maps that
//! are plain memory here and that may refuse a change.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aya::maps::MapError;
use edge_ebpf::frame::Address;
use edge_ebpf::golden;
use edge_ebpf::maps::{Cookies, Resident, Settings};
use edge_ebpf::reason::Reason;
use edge_ebpf::rewrite;
use edge_ebpf::steer::{Tables, Verdict, decide};
use edge_ebpf::wire::ChunkId;
use edge_user::cache::publish::ResidentMap;
use edge_user::serve::cookies::CookieMap;

use super::chance::Chance;

#[derive(Debug)]
pub(crate) struct Maps {
    pub(crate) settings: Settings,
    pub(crate) cookies: Cookies,
    pub(crate) resident: HashMap<ChunkId, Resident>,
    /// What was put into `resident` since somebody looked.
    pub(crate) fresh: Vec<(ChunkId, Resident)>,
    refuses: u64,
    chance: Chance,
}

impl Tables for Maps {
    fn settings(&self) -> Option<&Settings> {
        Some(&self.settings)
    }

    fn cookies(&self) -> Option<&Cookies> {
        Some(&self.cookies)
    }

    fn resident(&self, id: &ChunkId) -> Option<Resident> {
        self.resident.get(id).copied()
    }

    fn is_local(&self, address: &Address) -> bool {
        golden::world().is_local(address)
    }
}

/// The maps, as the server writes them.
#[derive(Clone, Debug)]
pub(crate) struct Shared(Arc<Mutex<Maps>>);

impl Shared {
    pub(crate) fn maps(&self) -> MutexGuard<'_, Maps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Maps)) -> Result<(), MapError> {
        let mut maps = self.maps();
        let refuses = maps.refuses;
        if maps.chance.permille(refuses) {
            return Err(MapError::KeyNotFound);
        }
        change(&mut maps);
        Ok(())
    }
}

impl ResidentMap for Shared {
    fn insert(&mut self, id: &ChunkId, resident: Resident) -> Result<(), MapError> {
        self.change(|maps| {
            maps.resident.insert(*id, resident);
            maps.fresh.push((*id, resident));
        })
    }

    fn remove(&mut self, id: &ChunkId) -> Result<(), MapError> {
        self.change(|maps| {
            maps.resident.remove(id);
        })
    }
}

impl CookieMap for Shared {
    fn set(&mut self, cookies: Cookies) -> Result<(), MapError> {
        self.change(|maps| maps.cookies = cookies)
    }
}

/// What becomes of a frame.
pub(crate) enum Fate {
    /// To the service's socket.
    Kernel,
    Dropped,
    /// Sent back, rewritten.
    Reply(Vec<u8>),
    Steered(Resident),
}

#[derive(Debug)]
pub(crate) struct Program {
    pub(crate) shared: Shared,
    pub(crate) packets: u64,
    pub(crate) reasons: [u64; Reason::COUNT as usize],
}

impl Program {
    pub(crate) fn new(refuses: u64, chance: Chance) -> Self {
        let maps = Maps {
            settings: golden::world().settings,
            cookies: Cookies::NONE,
            resident: HashMap::new(),
            fresh: Vec::new(),
            refuses,
            chance,
        };
        Self {
            shared: Shared(Arc::new(Mutex::new(maps))),
            packets: 0,
            reasons: [0; Reason::COUNT as usize],
        }
    }

    /// As the program's `main` does it.
    pub(crate) fn run(&mut self, mut frame: Vec<u8>) -> Fate {
        self.packets += 1;
        let verdict = decide(frame.as_slice(), &*self.shared.maps());
        let (reason, fate) = match verdict {
            Verdict::Pass(reason) => (reason, Fate::Kernel),
            Verdict::Drop(reason) => (reason, Fate::Dropped),
            Verdict::Steer(resident) => (Reason::Steered, Fate::Steered(resident)),
            Verdict::Reply(reason, headers, reply) => {
                let resize = rewrite::reply(frame.as_mut_slice(), &headers, &reply);
                let resize = resize.expect("the frame is as long as its headers say");
                frame.truncate(resize.keep_bytes);
                frame.resize(resize.frame_bytes, 0);
                (reason, Fate::Reply(frame))
            }
        };
        self.reasons[reason as usize] += 1;
        fate
    }
}
