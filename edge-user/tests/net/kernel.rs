//! What the kernel does to datagrams before the edge sees them, and what it lets through.

use std::net::IpAddr;
use std::time::Duration;

use edge_ebpf::golden::build::{self, Build};
use edge_ebpf::reason::Reason;
use edge_testbed::client::Client;
use edge_testbed::packet;
use edge_testbed::raw_socket::RawSocket;

use crate::daemon::{Edged, Settings, settings};
use crate::objects::Object;
use crate::testbed::Testbed;
use crate::wait;

const PATIENCE: Duration = Duration::from_millis(500);

#[test]
fn a_reader_is_served_where_the_kernel_puts_its_requests_into_one_frame() {
    let Some(testbed) = Testbed::new() else {
        return;
    };
    let object = Object::seal(&testbed, "coalesced", 5_000_000);
    let setup = Settings {
        xdp: "generic".into(),
        ..settings(&testbed, "gso")
    };
    let edged = Edged::start(&testbed, &setup);
    object.fetch(&testbed, testbed.service_v4());
    let from: [IpAddr; 2] = [testbed.reader.ipv4.into(), testbed.reader.ipv6.into()];
    for (from, edge) in from.into_iter().zip(testbed.services()) {
        let client = Client::greet(&testbed.reader, from, edge).unwrap();
        let get = |want| client.get(object.chunk_id(), want).to_vec();
        let kinds = |first: Vec<u8>, second: Vec<u8>| {
            let both = [&first[..], &second].concat();
            client.send_as_one(first.len(), &both).unwrap();
            let mut heard = [(); 2].map(|()| {
                let answer = client.receive().unwrap();
                [answer[1], answer[2]]
            });
            heard.sort_unstable();
            heard
        };
        assert_eq!(kinds(get(1), get(2)), [[0x14, 0], [0x14, 1]]);
        assert_eq!(kinds(build::hello(1232), get(4)), [[0x12, 4], [0x14, 2]]);
    }
    let stat = edged.settled();
    assert_eq!(
        stat.xdp_packets(Reason::Coalesced),
        4,
        "{:?}",
        stat.interfaces
    );
    edged.stop();
}

/// A HELLO to the whole link is nobody's; what routers look at is not looked at; and the same
/// with and without the program.
#[test]
fn a_greeting_is_answered_or_not_alike_by_program_and_socket() {
    for xdp in ["native", "off"] {
        let Some(testbed) = Testbed::new() else {
            return;
        };
        let setup = Settings {
            xdp: xdp.to_owned(),
            ..settings(&testbed, "gso")
        };
        let edged = Edged::start(&testbed, &setup);
        let tap = RawSocket::on(&testbed.reader).unwrap();
        let hello = |v6| testbed.request(v6, build::hello(1232));
        let from = testbed.reader.mac;
        let group = [0x01, 0x00, 0x5e, 0, 0, 1];
        let subnet = [10, 71, 0, 255];
        let broadcast = || hello(false).destination(&subnet, 7347);
        let mut damaged = hello(false).frame();
        damaged[24] ^= 1;
        let answered = |frame: &[u8]| {
            assert!(tap.send(frame).unwrap());
            let welcome = || loop {
                let frame = tap.receive(PATIENCE).unwrap()?;
                let payload = packet::read(&frame).and_then(|packet| packet.payload());
                if payload.is_some_and(|payload| payload.starts_with(&[0xed, 0x12])) {
                    return Some(());
                }
            };
            welcome().is_some()
        };
        // The kernel asks for the reader's station once, and loses nothing meanwhile.
        let warm = wait::until(PATIENCE * 4, || {
            answered(&hello(true).frame()).then_some(())
        });
        assert!(warm.is_some(), "{xdp}: {}", edged.log());
        let cases: [(&str, Build, bool); 8] = [
            ("IPv4", hello(false), true),
            ("IPv6", hello(true), true),
            ("TTL 0", hello(false).ttl(0), true),
            ("hop limit 0", hello(true).ttl(0), true),
            ("every station", hello(false).macs(from, [0xff; 6]), false),
            ("a group of stations", hello(true).macs(from, group), false),
            ("the network's broadcast address", broadcast(), false),
            (
                "that, and every station",
                broadcast().macs(from, [0xff; 6]),
                false,
            ),
        ];
        for (name, build, expected) in cases {
            assert_eq!(answered(&build.frame()), expected, "{xdp}: {name}");
        }
        assert!(!answered(&damaged), "{xdp}: a wrong header checksum");
        edged.stop();
    }
}
