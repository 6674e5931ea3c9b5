//! A reader: the client's state machine, its socket's buffer, and the thread that checks chunks.

use std::collections::{BTreeSet, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use edge_user::client::failure::Failure;
use edge_user::client::handshake::DATAGRAM_BYTES_MAX;
use edge_user::client::transfer::{Action, Complete, Transfer};
use edge_user::object::tree::{Place, id_of};

use super::catalog::Object;
use super::chance::Chance;

/// How many datagrams its socket holds.
const HELD: usize = 400;
/// A chunk each for 64 buffers, a GET each for 400 segments, a HELLO.
const ACTIONS_MAX: u32 = 600;
/// Longer than all waits of a transfer that a reader may allow an edge.
const PATIENCE: Duration = Duration::from_mins(5);

pub(crate) struct Reader {
    address: IpAddr,
    port: u16,
    to_fetch: VecDeque<&'static Object>,
    chance: Chance,
    current: Option<Current>,
    /// When it acts next by itself; never, when it has nothing left to fetch.
    pub(crate) next: Option<Duration>,
    pub(crate) fetched: u64,
    pub(crate) failures: Vec<Failure>,
}

struct Current {
    object: &'static Object,
    transfer: Transfer,
    began: Duration,
    heard: VecDeque<Vec<u8>>,
    unchecked: VecDeque<Complete>,
    accepted: BTreeSet<Place>,
}

impl Reader {
    pub(crate) fn new(
        address: IpAddr,
        to_fetch: VecDeque<&'static Object>,
        starts: Duration,
        chance: Chance,
    ) -> Self {
        Self {
            address,
            port: 40_000,
            to_fetch,
            chance,
            current: None,
            next: Some(starts),
            fetched: 0,
            failures: Vec::new(),
        }
    }

    pub(crate) fn socket(&self) -> SocketAddr {
        (self.address, self.port).into()
    }

    /// What comes for a port that was left, or does not fit, is heard by nobody.
    pub(crate) fn deliver(&mut self, to: SocketAddr, payload: Vec<u8>, now: Duration) {
        let here = to == self.socket();
        if let Some(current) = &mut self.current
            && here
            && current.heard.len() < HELD
        {
            current.heard.push_back(payload);
            let soon = now + self.chance.time(Duration::from_micros(50));
            self.next = Some(self.next.map_or(soon, |next| next.min(soon)));
        }
    }

    /// Acts, and says what it sends.
    pub(crate) fn act(&mut self, now: Duration) -> Vec<(SocketAddr, Vec<u8>)> {
        let mut sent = Vec::new();
        if self.current.is_none() {
            let Some(object) = self.to_fetch.pop_front() else {
                self.next = None;
                return sent;
            };
            self.current = Some(Current {
                object,
                transfer: Transfer::new(&object.ticket, self.chance.bytes(), None),
                began: now,
                heard: VecDeque::new(),
                unchecked: VecDeque::new(),
                accepted: BTreeSet::new(),
            });
        }
        let current = self.current.as_mut().expect("made above");
        assert!(
            now < current.began + PATIENCE,
            "a transfer does not come to an end"
        );
        for datagram in current.heard.drain(..) {
            current.transfer.on_datagram(now, &datagram);
        }
        // The second thread is behind, or it is not.
        while !current.unchecked.is_empty() && self.chance.permille(700) {
            current.check();
        }
        let mut out = [0; DATAGRAM_BYTES_MAX];
        for actions in 0.. {
            assert!(actions < ACTIONS_MAX, "a reader does not come to rest");
            match current.transfer.act(now, now, &mut out) {
                Action::Open => {
                    self.port += 1;
                    current.heard.clear();
                    current.transfer.opened(u32::try_from(HELD).expect("400"));
                }
                Action::Send(len) => {
                    sent.push(((self.address, self.port).into(), out[..len].to_vec()));
                }
                Action::Verify(complete) => current.unchecked.push_back(complete),
                Action::Wait(until) => {
                    assert!(until > now, "a wait that is no wait");
                    let soon = now + Duration::from_micros(20);
                    let checks = (!current.unchecked.is_empty()).then_some(soon);
                    self.next = Some(checks.map_or(until, |soon| soon.min(until)));
                    return sent;
                }
                Action::Done => {
                    let chunks = current.accepted.len();
                    assert_eq!(chunks, current.object.ids.len(), "an object came whole");
                    self.fetched += 1;
                    break;
                }
                Action::Failed(failure) => {
                    self.failures.push(failure);
                    break;
                }
            }
        }
        self.current = None;
        self.port += 1;
        self.next = Some(now + self.chance.time(Duration::from_millis(20)));
        sent
    }
}

impl Current {
    fn check(&mut self) {
        let Some(complete) = self.unchecked.pop_front() else {
            return;
        };
        match complete.verify() {
            Err(complete) => {
                // Neither edge nor network alters anything here (I4, I5, I6).
                panic!("chunk {} came altered", complete.wanted().id);
            }
            Ok((wanted, chunk)) => {
                assert_eq!(id_of(chunk.bytes()), wanted.id);
                assert!(self.accepted.insert(wanted.place), "a chunk came twice");
                if wanted.place.level > 0 {
                    self.transfer.accept_index(&wanted, chunk);
                    return;
                }
                let index = usize::try_from(wanted.place.index).expect("few");
                assert!(wanted.place.index < self.object.data_chunks);
                assert_eq!(wanted.id, self.object.ids[index], "a chunk in its place");
                self.transfer.accept_data(&wanted, chunk.into_bytes());
            }
        }
    }
}
