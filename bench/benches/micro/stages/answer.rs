//! From a steered packet to its reply.

use std::hint::black_box;

use edge_ebpf::golden::build::{Build, get, v4, v6};
use edge_ebpf::maps::Resident;
use edge_ebpf::wire::Cookie;
use edge_user::serve::Decision;
use edge_user::serve::peer::Listeners;
use edge_user::serve::xdp::classify::Classifier;

use super::Meter;
use super::stored::Stored;

struct Steered {
    frame: Vec<u8>,
    hint: Resident,
    stored: Stored,
    listeners: Listeners,
}

impl Steered {
    fn new(family: fn(Vec<u8>) -> Build) -> Self {
        let mut stored = Stored::new(1000);
        let (id, hint) = stored.turn();
        let listen = ["192.0.2.10:7347", "[2001:db8::10]:7347"];
        let listen = listen.map(|address| address.parse().expect("an address"));
        Self {
            // The cookie was checked before.
            frame: family(get(Cookie::default(), id, u128::MAX)).frame(),
            hint,
            stored,
            listeners: Listeners::new(&listen, 1),
        }
    }

    /// With the hint of an earlier chunk.
    fn stale() -> Self {
        let mut steered = Self::new(v4);
        steered.hint.generation += 2;
        steered
    }

    /// Whether the chunk is resident.
    fn classify(&mut self) -> bool {
        let classifier = Classifier {
            view: self.stored.view(),
            listeners: &self.listeners,
            max_burst: 53,
        };
        let frame = black_box(self.frame.as_slice());
        let hint = Some(black_box(self.hint));
        let steered = classifier.classify(&self.stored.reader, frame, hint);
        let steered = black_box(steered).expect("it is a GET");
        matches!(steered.decision, Decision::Data(..))
    }
}

pub(super) fn all(meter: &mut impl Meter) {
    let set_up = |family| {
        move || {
            let mut steered = Steered::new(family);
            assert!(steered.classify());
            steered
        }
    };
    meter.measure("answer", "a hit over IPv4", set_up(v4), Steered::classify);
    meter.measure("answer", "a hit over IPv6", set_up(v6), Steered::classify);
    let set_up = || {
        let mut steered = Steered::stale();
        assert!(!steered.classify());
        steered
    };
    meter.measure("answer", "a stale hint", set_up, Steered::classify);
}
