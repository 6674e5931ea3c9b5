//! Requests under VLAN tags, which the frame sender answers under the same tags. There is no VLAN
//! device here: the frames are made by hand.

use std::time::Duration;

use edge_ebpf::golden::build;
use edge_ebpf::wire::{Cookie, DataHeader, Welcome};
use edge_testbed::packet;
use edge_testbed::raw_socket::RawSocket;

use crate::daemon::{Edged, Settings, settings};
use crate::objects::Object;
use crate::testbed::Testbed;

const PATIENCE: Duration = Duration::from_secs(2);
/// The tag of a customer VLAN, as the builder writes it.
const CUSTOMER: [u8; 4] = [0x81, 0x00, 0x20, 0x05];

#[test]
fn a_request_under_tags_is_answered_under_the_same_tags() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "tagged", 5_000);
    let edged = Edged::start(
        &testbed,
        &Settings {
            vlans: &["untagged", "5", "5.5"],
            ..settings(&testbed, "xsk")
        },
    );
    object.fetch(&testbed, testbed.service_v4());
    let id = object.chunk_id();
    let tap = RawSocket::on(&testbed.reader).unwrap();
    for tags in [&[0x8100_u16][..], &[0x88a8, 0x8100]] {
        for v6 in [false, true] {
            let frame = |payload: Vec<u8>| {
                let request = testbed.request(v6, payload);
                let tagged = tags.iter().fold(request, |request, tag| request.tag(*tag));
                tagged.frame()
            };
            let send = |payload| assert!(tap.send(&frame(payload)).unwrap());
            let answer = || payload(&tap.receive(PATIENCE).unwrap().expect("an answer"), tags);
            send(build::hello(1232));
            let welcome = Welcome::decode(answer().first_chunk().unwrap()).unwrap();
            assert_ne!(welcome.cookie, Cookie::default());
            send(build::get(welcome.cookie, id, 0b11010));
            for index in [1, 3, 4] {
                let data = answer();
                let header = DataHeader::decode(data.first_chunk().unwrap()).unwrap();
                assert_eq!((header.index, header.last), (index, 4), "lowest first");
                assert_eq!(header.tag, id.tag());
                let start = header.place(data.len() - 16, 1216).unwrap();
                let chunk = std::fs::read(&object.chunks[0]).unwrap();
                assert_eq!(data[16..], chunk[start..start + data.len() - 16]);
            }
        }
    }
    edged.stop();
}

/// The UDP payload of a frame that bore these tags and bears right checksums.
fn payload(frame: &[u8], tags: &[u16]) -> Vec<u8> {
    // The receiving kernel takes the outer tag off. That an inner one is left shows that there was
    // an outer one.
    let inner: &[u8] = if tags.len() == 2 { &CUSTOMER } else { &[] };
    let ip_at = 14 + inner.len();
    assert_eq!(frame[12..ip_at - 2], *inner, "the tags come back");
    let untagged = [&frame[..12], &frame[ip_at - 2..]].concat();
    let packet = packet::read(&untagged).expect("an IP packet");
    assert!(packet.checksum_is_right());
    packet.payload().expect("UDP").to_vec()
}
