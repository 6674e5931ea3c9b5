//! I14: nobody gets more than he sent, on any path.

use std::collections::{HashMap, HashSet};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use edge_ebpf::frame::ETHERNET_BYTES;
use edge_ebpf::wire::Cookie;
use edge_testbed::client::Client;
use edge_testbed::packet;
use edge_testbed::raw_socket::RawSocket;

use crate::daemon::{Edged, Settings, settings};
use crate::objects::Object;
use crate::testbed::{FULL_MTU_BYTES, Plan, Testbed, offload};
use crate::trace::{Answer, Bait, Row, WORDS, Wrapping, rows};

/// When nothing came for this long, nothing more will.
const SILENCE: Duration = Duration::from_millis(400);

with_each_sender!(
    forged_sources_get_no_more_than_they_sent_with_the_native_program,
    forged_sources_get_no_more_than_they_sent_with_the_generic_program
);

fn forged_sources_get_no_more_than_they_sent_with_the_native_program(sender: &'static str) {
    forged_sources_get_no_more_than_they_sent("native", sender);
}

fn forged_sources_get_no_more_than_they_sent_with_the_generic_program(sender: &'static str) {
    forged_sources_get_no_more_than_they_sent("generic", sender);
}

#[test]
fn forged_sources_get_no_more_than_they_sent_without_a_program() {
    forged_sources_get_no_more_than_they_sent("off", "gso");
}

fn forged_sources_get_no_more_than_they_sent(xdp: &'static str, sender: &'static str) {
    let Some(testbed) = Testbed::with(Plan {
        mtu_bytes: FULL_MTU_BYTES,
        ..Plan::default()
    }) else {
        return;
    };
    let object = Object::seal(&testbed, "bait", 1_000_000);
    let edged = Edged::start(
        &testbed,
        &Settings {
            xdp: xdp.to_owned(),
            ..settings(&testbed, sender)
        },
    );
    // Else what the kernel sends has checksums only in part, and we want to look at them.
    offload(&testbed.edge, "off");
    // The chunks are there: whoever was believed would get a hundred times what he sends.
    object.fetch(&testbed, testbed.service_v4());
    let bait = Bait {
        id: object.chunk_id(),
        stolen: cookie(&testbed),
    };
    let rows = rows(&testbed, &bait);
    testbed.claim_for_reader(rows.iter().map(|row| row.source));

    let heard = answers(&testbed, &rows);
    for row in &rows {
        assert_right(row, heard.get(&row.source).map_or(&[], Vec::as_slice));
    }
    let answered: HashSet<_> = rows
        .iter()
        .filter(|row| matches!(row.answer, Some(Answer::Welcome(_))))
        .filter(|row| heard.contains_key(&row.source))
        .map(|row| (row.source.is_ipv6(), row.wrapping))
        .collect();
    assert_eq!(
        answered.len(),
        Wrapping::V4.len() + Wrapping::V6.len(),
        "{answered:?}"
    );
    edged.stop();
}

/// A cookie of the reader's own address.
pub(crate) fn cookie(testbed: &Testbed) -> Cookie {
    let client = Client::greet(&testbed.reader, Ipv4Addr::UNSPECIFIED, testbed.service_v4());
    client.unwrap().cookie
}

/// Sends the trace; gives the frames that came back, by whom they were for.
pub(crate) fn answers(testbed: &Testbed, rows: &[Row]) -> HashMap<IpAddr, Vec<Vec<u8>>> {
    let tap = RawSocket::on(&testbed.reader).unwrap();
    for frame in rows.iter().flat_map(|row| &row.frames) {
        assert!(tap.send(frame).unwrap());
    }
    let mut heard: HashMap<IpAddr, Vec<Vec<u8>>> = HashMap::new();
    while let Some(frame) = tap.receive(SILENCE).unwrap() {
        if let Some(to) = packet::read(&frame).map(|packet| packet.to.ip()) {
            heard.entry(to).or_default().push(frame);
        }
    }
    heard
}

fn assert_right(row: &Row, heard: &[Vec<u8>]) {
    let name = format!("{}, {:?}, from {}", row.name, row.wrapping, row.source);
    let packets = heard.iter().map(|frame| packet::read(frame).unwrap());
    let packets: Vec<_> = packets.collect();
    let bytes_in: usize = row
        .frames
        .iter()
        .map(|frame| frame.len() - ETHERNET_BYTES)
        .sum();
    let bytes_out: usize = packets.iter().map(|packet| packet.ip_bytes).sum();
    assert!(
        bytes_out <= bytes_in,
        "I14: {name}: {bytes_in} bytes in, {bytes_out} out"
    );
    assert_eq!(heard.len(), usize::from(row.answer.is_some()), "{name}");
    for packet in packets {
        let payload = packet.payload();
        let payload = payload.unwrap_or_else(|| panic!("{name}: not UDP"));
        assert!(row.answer.unwrap().is(payload), "{name}: {payload:x?}");
        assert!(packet.checksum_is_right(), "{name}");
        let repeats = payload.windows(WORDS.len()).any(|window| window == WORDS);
        assert!(!repeats, "{name}: words came back");
    }
}
