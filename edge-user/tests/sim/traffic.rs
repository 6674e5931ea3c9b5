//! Who got how much from the edge (I14), told apart by address and port.

use std::collections::HashMap;
use std::net::SocketAddr;

use edge_ebpf::wire::{Cookie, GET_BYTES, Get, Kind, WELCOME_HEADER_BYTES, Welcome, opening};

#[derive(Default)]
struct Totals {
    received: u64,
    sent: u64,
    /// A good cookie came from there.
    good: bool,
    issued: Vec<Cookie>,
}

#[derive(Default)]
pub(crate) struct Traffic {
    by_address: HashMap<SocketAddr, Totals>,
    /// All cookies there are, and whose they were.
    pub(crate) issued: Vec<(SocketAddr, Cookie)>,
}

impl Traffic {
    /// A datagram is judged, at this cookie epoch.
    pub(crate) fn received(&mut self, from: SocketAddr, payload: &[u8], epoch: u32) {
        let totals = self.by_address.entry(from).or_default();
        totals.received += payload.len() as u64;
        let get: Option<&[u8; GET_BYTES]> = payload.try_into().ok();
        if let Some(get) = get.filter(|get| get[..2] == opening(Kind::Get))
            && let Ok(get) = Get::decode(get)
        {
            let fresh = get.cookie.epoch.abs_diff(epoch) <= 1;
            totals.good |= fresh && totals.issued.contains(&get.cookie);
        }
    }

    /// A datagram leaves the edge.
    pub(crate) fn sent(&mut self, to: SocketAddr, payload: &[u8]) {
        let totals = self.by_address.entry(to).or_default();
        totals.sent += payload.len() as u64;
        assert!(
            totals.good || totals.sent <= totals.received,
            "I14: {to} sent {} bytes and no good cookie, and got {}",
            totals.received,
            totals.sent
        );
        let welcome = payload.first_chunk::<WELCOME_HEADER_BYTES>();
        if let Some(Ok(welcome)) = welcome.map(Welcome::decode) {
            totals.issued.push(welcome.cookie);
            self.issued.push((to, welcome.cookie));
        }
    }
}
