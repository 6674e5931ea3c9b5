//! A serving worker does not allocate (I12). Measured on what it calls for each packet: read the
//! packet, find the chunk, plan the reply, send it.
#![cfg(feature = "server")]

use std::net::{SocketAddr, UdpSocket};
use std::sync::Arc;

use allocation_counter::measure;
use edge_ebpf::golden;
use edge_ebpf::wire::{ChunkId, DataHeader, Get, SEGMENT_BYTES_DEFAULT};
use edge_user::cache::layout::Layout;
use edge_user::cache::publish::Publisher;
use edge_user::cache::store::{Store, divide};
use edge_user::counters::Sends;
use edge_user::limits::SENDS;
use edge_user::serve::peer::{Listeners, Peer};
use edge_user::serve::socket::gso::GsoTransmitter;
use edge_user::serve::xdp::classify::Classifier;
use edge_user::serve::{Decision, Request, decide};
use edge_user::sys::mapping::Mapping;
use edge_user::sys::send::SendRing;
use edge_user::sys::socket::ServiceSocket;
use sha2::{Digest, Sha256};

const ARENA_BYTES: usize = 16 << 20;

#[test]
fn a_serving_worker_does_not_allocate() {
    let arena = Mapping::anonymous(ARENA_BYTES, false).unwrap();
    let layout = Layout::new(SEGMENT_BYTES_DEFAULT);
    let (view, blocks) = divide(arena, ARENA_BYTES as u64, layout, 1).unwrap();
    let mut store = Store::new(Arc::clone(&view), blocks, Publisher::none());
    let chunk = vec![0x5a; 131_072];
    let id = ChunkId(Sha256::digest(&chunk).into());
    let slot = store.take_free().unwrap();
    let verified = slot
        .write(&view, id, &chunk)
        .unwrap()
        .verify(&view)
        .unwrap();
    store.publish(verified);

    // Nothing leaves the loopback interface.
    let loopback: SocketAddr = ([127, 0, 0, 1], 0).into();
    let service = [ServiceSocket::bind(loopback).unwrap()];
    let client = UdpSocket::bind(loopback).unwrap();
    let peer = Peer {
        socket: 0,
        client: client.local_addr().unwrap(),
    };
    let counters = Arc::new(Sends::default());
    let mut reader = view.reader(0);
    let ring = SendRing::new(SENDS, reader.holds(), &service).unwrap();
    let mut sender = GsoTransmitter::new(ring, layout, Arc::clone(&counters));
    let listeners = Listeners::new(&["192.0.2.10:7347".parse().unwrap()], 1);
    let case = golden::all()
        .into_iter()
        .find(|case| case.name == "a hit over IPv4")
        .unwrap();

    let mut received = [0; 2048];
    for want in [1, u128::MAX, 0x5555_5555_5555_5555_5555_5555] {
        let before = counters.bytes.get();
        let allocations = measure(|| {
            reader.quiescent();
            let classifier = Classifier {
                view: &view,
                listeners: &listeners,
                max_burst: 53,
            };
            let hint = Some(case.world.resident);
            let steered = classifier.classify(&reader, &case.frame, hint).unwrap();
            assert!(matches!(steered.decision, Decision::Miss));
            let get = Get {
                id,
                want,
                ..steered.request.get
            };
            let lease = view.lookup(&reader, &id);
            let decision = decide(&Request { peer, get }, lease, 53);
            let Decision::Data(lease, runs) = decision else {
                panic!("the chunk is resident")
            };
            sender.data(&peer, &lease, runs).unwrap();
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
