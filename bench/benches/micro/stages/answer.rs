//! From a steered packet to what is sent.

use std::hint::black_box;

use edge_ebpf::golden::build::{Build, get, v4, v6};
use edge_ebpf::maps::Resident;
use edge_ebpf::wire::Cookie;
use edge_user::serve::peer::Listeners;
use edge_user::serve::xdp::classify::{Answer, answer};

use super::Meter;
use super::stored::Stored;

struct Steered {
    frame: Vec<u8>,
    mark: Resident,
    stored: Stored,
    services: Listeners,
}

impl Steered {
    fn new(family: fn(Vec<u8>) -> Build) -> Self {
        let mut stored = Stored::new(1000);
        let (id, mark) = stored.turn();
        let listen = ["192.0.2.10:7347", "[2001:db8::10]:7347"];
        let listen = listen.map(|address| address.parse().expect("an address"));
        Self {
            // Whether the cookie is good was asked before.
            frame: family(get(Cookie::default(), id, u128::MAX)).frame(),
            mark,
            stored,
            services: Listeners::new(&listen, 1),
        }
    }

    /// With the hint of an earlier stay.
    fn stale() -> Self {
        let mut steered = Self::new(v4);
        steered.mark.generation += 2;
        steered
    }

    fn answer(&mut self) -> Answer {
        let table = &self.stored.store.shared().table;
        let frame = black_box(self.frame.as_slice());
        answer(frame, Some(black_box(self.mark)), table, &self.services)
    }
}

pub(super) fn all(meter: &mut impl Meter) {
    let set_up = |family| {
        move || {
            let mut steered = Steered::new(family);
            assert!(matches!(steered.answer(), Answer::Data(..)));
            steered
        }
    };
    meter.measure("answer", "a hit over IPv4", set_up(v4), Steered::answer);
    meter.measure("answer", "a hit over IPv6", set_up(v6), Steered::answer);
    let set_up = || {
        let mut steered = Steered::stale();
        assert!(matches!(steered.answer(), Answer::Bounce(_)));
        steered
    };
    meter.measure("answer", "a stale hint", set_up, Steered::answer);
}
