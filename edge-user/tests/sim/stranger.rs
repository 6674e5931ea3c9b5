//! Who sends what no reader would: from addresses that are not its own, with cookies that are
//! somebody else's, too old or made up, and datagrams that are none. Or a crowd in one: with a good
//! cookie, for all chunks there are, so that they push each other out all the time, or for as many
//! as can be asked for that nobody has.

use std::net::SocketAddr;
use std::time::Duration;

use edge_ebpf::wire::{ChunkId, Cookie, Get, Hello};

use super::catalog::CATALOG;
use super::chance::Chance;
use super::conditions::{Conditions, Crowd};
use super::traffic::Traffic;

pub(crate) struct Stranger {
    pub(crate) next: Option<Duration>,
    left: u64,
    crowd: Crowd,
    chance: Chance,
}

const CROWD_PAUSE: Duration = Duration::from_millis(1);
/// Where the crowd is.
pub(crate) const CROWD: ([u8; 4], u16) = ([192, 0, 2, 97], 3000);

impl Stranger {
    pub(crate) fn new(with: &Conditions, mut chance: Chance) -> Self {
        let first = chance.time(Duration::from_millis(50));
        Self {
            next: (with.strangers > 0).then_some(first),
            left: with.strangers,
            crowd: with.crowd,
            chance,
        }
    }

    pub(crate) fn act(
        &mut self,
        now: Duration,
        readers: &[SocketAddr],
        traffic: &Traffic,
    ) -> (SocketAddr, Vec<u8>) {
        self.left -= 1;
        if self.crowd != Crowd::None {
            self.next = (self.left > 0).then_some(now + self.chance.time(CROWD_PAUSE));
            return self.as_crowd(traffic);
        }
        let pause = self.chance.one_of(&[1, 20, 1000]);
        let pause = self.chance.time(Duration::from_millis(pause));
        self.next = (self.left > 0).then_some(now + pause);
        let chance = &mut self.chance;
        let own: SocketAddr = match chance.below(4) {
            0 => ([192, 0, 2, 99], 1000).into(),
            1 => ([192, 0, 2, 99], 1 + u16::from(chance.bytes::<1>()[0])).into(),
            2 => ([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x99], 1000).into(),
            _ => readers[chance.index(readers.len())],
        };
        let (owner, cookie) = match traffic.issued.len() {
            0 => (own, Cookie::default()),
            // Often an old one.
            len if chance.permille(500) => traffic.issued[chance.index(len)],
            len => traffic.issued[chance.index(len.min(3))],
        };
        let id = match chance.below(4) {
            0 => ChunkId(chance.bytes()),
            1 => CATALOG.fillers[chance.index(CATALOG.fillers.len())],
            _ => CATALOG.small[chance.index(CATALOG.small.len())].ids[0],
        };
        let want = match chance.below(3) {
            0 => u128::MAX,
            1 => 1 << 127,
            _ => 1,
        };
        let get = |cookie| Get { cookie, id, want }.encode().to_vec();
        // Who knows a reader's cookie and can send in its name can also answer in the edge's:
        // that is somebody on the way, whom nothing here can keep out.
        let (own, owner) = if readers.iter().any(|reader| reader.ip() == owner.ip()) {
            let elsewhere: SocketAddr = ([192, 0, 2, 98], 2000).into();
            (
                if own.ip() == owner.ip() {
                    elsewhere
                } else {
                    own
                },
                elsewhere,
            )
        } else {
            (own, owner)
        };
        match chance.below(8) {
            0 | 1 => (own, self.hello()),
            2 => (owner, get(cookie)),
            3 | 4 => (own, get(cookie)),
            5 => {
                let value = self.chance.bytes();
                (own, get(Cookie { value, ..cookie }))
            }
            6 => {
                let mut bytes = get(cookie);
                let at = self.chance.index(bytes.len());
                bytes[at] ^= 1 << self.chance.below(8);
                bytes.truncate(1 + self.chance.index(64));
                (owner, bytes)
            }
            _ => {
                let len = self.chance.index(1400);
                (own, vec![self.chance.bytes::<1>()[0]; len])
            }
        }
    }

    fn as_crowd(&mut self, traffic: &Traffic) -> (SocketAddr, Vec<u8>) {
        let own: SocketAddr = CROWD.into();
        let of_own = |(owner, _): &&(SocketAddr, Cookie)| *owner == own;
        let Some((_, cookie)) = traffic.issued.iter().rev().find(of_own) else {
            return (own, self.hello());
        };
        let (small, fillers) = (&CATALOG.small, &CATALOG.fillers);
        let which = self.chance.index(small.len() + fillers.len());
        let id = if self.crowd == Crowd::Absent {
            ChunkId(self.chance.bytes())
        } else {
            (fillers.get(which).copied()).unwrap_or_else(|| small[which - fillers.len()].ids[0])
        };
        let get = Get {
            cookie: *cookie,
            id,
            want: 1,
        };
        (own, get.encode().to_vec())
    }

    fn hello(&mut self) -> Vec<u8> {
        let nonce = self.chance.bytes();
        let mut bytes = Hello { nonce }.encode().to_vec();
        let len = self.chance.one_of(&[1199, 1200, 1232, 1456, 1457]);
        bytes.resize(len, 0);
        bytes
    }
}
