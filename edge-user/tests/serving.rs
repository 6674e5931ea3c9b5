//! A serving worker does not allocate (I12). Measured on what it calls for each packet: read the
//! packet, find the chunk, plan the reply, send it.
#![cfg(feature = "server")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use allocation_counter::measure;
use edge_ebpf::golden;
use edge_ebpf::wire::{ChunkId, DataHeader, SEGMENT_BYTES_DEFAULT};
use edge_user::cache::publish::Publisher;
use edge_user::cache::{Shared, Store};
use edge_user::counters::Sends;
use edge_user::limits::SENDS;
use edge_user::serve::peer::{Listeners, Peer};
use edge_user::serve::socket::gso::GsoTransmitter;
use edge_user::serve::xdp::classify::{Answer, answer};
use edge_user::sys::mapping::Mapping;
use edge_user::sys::send::SendRing;
use edge_user::sys::socket::ServiceSocket;
use sha2::{Digest, Sha256};

const ARENA_BYTES: usize = 16 << 20;

#[test]
fn a_serving_worker_does_not_allocate() {
    let arena = Mapping::anonymous(ARENA_BYTES, false).unwrap();
    let (shared, blocks) =
        Shared::new(arena, ARENA_BYTES as u64, SEGMENT_BYTES_DEFAULT, 1).unwrap();
    let mut store = Store::new(Arc::clone(&shared), blocks, Publisher::none());
    let chunk = vec![0x5a; 131_072];
    let id = ChunkId(Sha256::digest(&chunk).into());
    let slot = store.take_free(0).unwrap();
    let verified = slot
        .write(&shared, id, &chunk)
        .unwrap()
        .verify(&shared)
        .unwrap();
    let stay = store.publish(verified);

    // Nothing leaves the loopback interface.
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    let service = [ServiceSocket::bind(loopback).unwrap()];
    let client = UdpSocket::bind(loopback).unwrap();
    let peer = Peer {
        socket: 0,
        client: client.local_addr().unwrap(),
    };
    let counters = Arc::new(Sends::default());
    let ring = SendRing::new(SENDS, Arc::clone(&shared.slab), &service).unwrap();
    let mut sender = GsoTransmitter::new(ring, Arc::clone(&shared), Arc::clone(&counters), 53);
    let mut reader = shared.epochs.reader(0);
    let services = Listeners::new(&["192.0.2.10:7347".parse().unwrap()], 1);
    let case = golden::all()
        .into_iter()
        .find(|case| case.name == "a hit over IPv4")
        .unwrap();

    let mut received = [0; 2048];
    for want in [1, u128::MAX, 0x5555_5555_5555_5555_5555_5555] {
        let before = counters.bytes.get();
        let allocations = measure(|| {
            reader.quiescent();
            let mark = Some(case.world.resident);
            let answer = answer(&case.frame, mark, &shared.table, &services);
            assert!(matches!(answer, Answer::Bounce(_)));
            sender.data(&peer, stay, want).unwrap();
            sender.flush();
        });
        assert_eq!(allocations.count_total, 0, "want {want:x}");
        // What was sent is what the store was given, so the measured code did its work.
        let mut arrived = 0;
        while arrived < counters.bytes.get() - before {
            let len = client.recv(&mut received).unwrap();
            let header = DataHeader::decode(received.first_chunk().unwrap()).unwrap();
            assert!(header.place(len - 16, SEGMENT_BYTES_DEFAULT).is_some());
            assert!(received[16..len].iter().all(|byte| *byte == 0x5a));
            arrived += len as u64;
        }
    }
    let sent = [1, 53, 48].iter().sum::<u64>();
    assert_eq!(counters.datagrams.get(), sent);
    assert_eq!((counters.would_block.get(), counters.failed.get()), (0, 0));
}
