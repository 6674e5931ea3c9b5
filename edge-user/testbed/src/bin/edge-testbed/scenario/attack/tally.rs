//! Counts bytes sent and received by address (I14).

use std::collections::{BTreeMap, HashSet};
use std::net::IpAddr;

use edge_ebpf::frame::ETHERNET_BYTES;
use edge_testbed::packet::{self, Mac};
use serde::Serialize;

use super::frames::Frame;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Amount {
    pub(super) packets: u64,
    /// The length of the IP packets.
    pub(super) bytes: u64,
}

impl Amount {
    fn add(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

/// What went over the link, except the legitimate reader's.
pub(super) struct Tally {
    edge: Mac,
    /// The legitimate reader's.
    not_counted: Vec<IpAddr>,
    sent: BTreeMap<IpAddr, Amount>,
    received: BTreeMap<IpAddr, BTreeMap<Mac, Amount>>,
    /// All that the edge's end emitted.
    pub(super) emitted: Amount,
}

impl Tally {
    pub(super) fn new(edge: Mac, not_counted: Vec<IpAddr>) -> Self {
        Self {
            edge,
            not_counted,
            sent: BTreeMap::new(),
            received: BTreeMap::new(),
            emitted: Amount::default(),
        }
    }

    pub(super) fn sent(&mut self, frame: &Frame, times: u64) {
        let bytes = times * frame.ip_bytes();
        let packets = times;
        let sum = self.sent.entry(frame.source).or_default();
        sum.add(Amount { packets, bytes });
    }

    /// Counts the beginning of a frame of this length.
    pub(super) fn record(&mut self, front: &[u8], length: usize) {
        let bytes = (length - ETHERNET_BYTES.min(length)) as u64;
        let amount = Amount { packets: 1, bytes };
        let Some(packet) = packet::read(front).filter(|packet| packet.from_mac == self.edge) else {
            return;
        };
        self.emitted.add(amount);
        let to = packet.to.ip();
        // A kernel's neighbour requests are not replies.
        let neighbours = match to {
            IpAddr::V4(_) => false,
            IpAddr::V6(to) => to.is_multicast() || to.is_unicast_link_local(),
        };
        let talk = packet.payload().is_none() && neighbours;
        if !talk && !self.not_counted.contains(&to) {
            let of = self.received.entry(to).or_default();
            of.entry(packet.to_mac).or_default().add(amount);
        }
    }

    pub(super) fn spent(&self) -> Amount {
        sum(self.sent.values().copied())
    }

    pub(super) fn answered(&self) -> Amount {
        sum(self.received.values().flat_map(BTreeMap::values).copied())
    }

    /// What an address received, by destination MAC address.
    pub(super) fn received_by(&self, address: IpAddr) -> Vec<(Mac, Amount)> {
        let of = self.received.get(&address).into_iter().flatten();
        of.map(|(mac, amount)| (*mac, *amount)).collect()
    }

    /// Addresses that received more than they sent, except those that proved their address.
    pub(super) fn amplified(&self, proved: &HashSet<IpAddr>) -> Vec<String> {
        let unproved = self.received.iter().filter(|(to, _)| !proved.contains(to));
        let more = unproved.filter_map(|(to, of)| {
            let sent = self.sent.get(to).copied().unwrap_or_default().bytes;
            let got = sum(of.values().copied()).bytes;
            (got > sent).then(|| format!("{to} sent {sent} bytes and received {got}"))
        });
        more.collect()
    }

    pub(super) fn addresses(&self) -> usize {
        self.sent.len()
    }
}

fn sum(amounts: impl Iterator<Item = Amount>) -> Amount {
    let mut sum = Amount::default();
    amounts.for_each(|one| sum.add(one));
    sum
}

#[cfg(test)]
mod tests {
    use super::*;

    const EDGE: Mac = [2, 0, 0, 0, 0, 1];
    const READER: Mac = [2, 0, 0, 0, 0, 2];

    fn frame(from: &str, macs: (Mac, Mac), len: usize) -> Frame {
        let to = "10.71.0.1:7347".parse().unwrap();
        Frame::new(from.parse().unwrap(), to, macs, vec![0; len])
    }

    /// The edge's reply: source and destination exchanged.
    fn answer(to: &str, len: usize) -> Vec<u8> {
        let from = "10.71.0.1:7347".parse().unwrap();
        Frame::new(from, to.parse().unwrap(), (EDGE, READER), vec![0; len]).bytes
    }

    #[test]
    fn who_got_more_than_he_sent_is_named_unless_he_proved_his_address() {
        let mut tally = Tally::new(EDGE, vec!["10.71.0.2".parse().unwrap()]);
        tally.sent(&frame("198.18.0.1:7", (READER, EDGE), 64), 2);
        for (to, len) in [
            ("198.18.0.1:7", 92),
            ("198.18.0.1:7", 64),
            ("10.71.0.2:9", 9000),
        ] {
            let frame = answer(to, len);
            tally.record(&frame, frame.len());
        }
        assert_eq!(tally.answered().packets, 2);
        let amplified = tally.amplified(&HashSet::new());
        assert_eq!(amplified, ["198.18.0.1 sent 184 bytes and received 212"]);
        let proved = HashSet::from(["198.18.0.1".parse().unwrap()]);
        assert_eq!(tally.amplified(&proved), [""; 0]);
    }

    #[test]
    fn what_others_on_the_link_say_is_not_the_edges() {
        let mut tally = Tally::new(EDGE, Vec::new());
        let frame = frame("198.18.0.1:7", (READER, EDGE), 64);
        tally.record(&frame.bytes, frame.bytes.len());
        assert_eq!(tally.answered(), Amount::default());
    }
}
